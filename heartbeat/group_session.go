package heartbeat

import (
	"context"
	"errors"
	"slices"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// inGroup says whether the node is one of a group.
func (s *Session) inGroup() bool { return s.judged() && s.record.GetInfo().GetGroup() != "" }

// group answers what a beat says of the node's group. nil: it could not be decided in time, or the outcome of a change that
// the writer asked for is unknown, so that nothing may be taken for it; the next beat asks again. asks: what the beat asks for
// has had no answer yet.
func (s *Session) group(ctx context.Context, b beat, asks bool) (*metasrvpb.GroupStatus, error) {
	if !s.inGroup() || b.repeated {
		return nil, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Tracker.cfg.Interval, errLate)
	defer cancel()
	status, err := s.decideGroup(ctx, b, asks)
	switch {
	case err == nil:
		return status, nil
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errLate), endsStream(err):
		return nil, err
	}
	s.log.Warn("decision on the node's group is put off", "group", s.record.GetInfo().GetGroup(), "error", err)
	return nil, nil
}

func (s *Session) decideGroup(ctx context.Context, b beat, asks bool) (*metasrvpb.GroupStatus, error) {
	if asks {
		if err := s.changeGroupInSync(ctx, b); err != nil {
			return nil, err
		}
	}
	lease := s.cfg.Tracker.lease()
	view, err := s.cfg.Barrier.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.cfg.Dispatcher.reach(ctx, view); err != nil {
		return nil, err
	}
	status, err := s.cfg.Tracker.group(s.stream, s.cfg.Viewer, view, b, lease)
	if err == nil {
		s.logClaim(b, status)
	}
	return status, err
}

// changeGroupInSync proposes the in-sync set that the writer's report names, where it is another one than the state's. It
// names the version that the node knows. A proposal whose outcome is unknown is made again, be it for nothing, until one
// behind it in the log has an outcome: then it can't be carried out any more.
func (s *Session) changeGroupInSync(ctx context.Context, b beat) error {
	g, err := Group(s.cfg.Viewer.View(), s.record.GetInfo().GetGroup())
	if err != nil {
		return err
	}
	unsettled := s.cfg.Tracker.unsettled(s.stream)
	wanted, differs := inSyncOf(g, uint64(s.stream.id), b.group)
	if !unsettled && (!differs || b.group.Version != g.Version || b.group.Epoch != g.Epoch || !isWriter(g, uint64(s.stream.id))) {
		return nil
	}
	end, err := s.cfg.Tracker.beginChange(s.stream)
	if err != nil {
		return err
	}
	_, err = s.cfg.Proposer.Propose(ctx, state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_GROUP,
		Payload: &storagepb.ChangeGroup{Name: g.Name, Version: b.group.Version, Change: &storagepb.ChangeGroup_SetInSync{
			SetInSync: &storagepb.SetGroupInSync{NodeIds: wanted, Incarnation: uint64(s.stream.incarnation)},
		}},
		PlannedTerm: s.cfg.Tracker.term,
	})
	known := err == nil || settles(err)
	end(known)
	if !known {
		return err
	}
	if err != nil {
		s.log.Warn("the group's in-sync set stays", "group", g.Name, "error", err)
	}
	return nil
}

// settles reports whether an error is the outcome of a command in the log that changes a group.
func settles(err error) bool {
	for _, refusal := range []error{
		metasrv.ErrGroupChanged, metasrv.ErrGroupNotFound, metasrv.ErrNodeNotInGroup, metasrv.ErrNodeNotFound,
		metasrv.ErrStaleIncarnation, metasrv.ErrInvalidArgument,
	} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// inSyncOf returns the in-sync set that a writer's report amounts to, and whether it is another one than the group's.
// Followers that are not registered as nodes of the group can't be in it.
func inSyncOf(g *storagepb.GroupRecord, writer uint64, r GroupReport) (wanted []uint64, differs bool) {
	if !r.Leads {
		return nil, false
	}
	wanted = append(wanted, writer)
	for _, f := range r.Followers {
		id := f.GetPeer().GetId()
		if f.GetInSync() && !f.GetIsLearner() && memberOf(g, id) != nil && !slices.Contains(wanted, id) {
			wanted = append(wanted, id)
		}
	}
	for _, m := range g.Members {
		differs = differs || m.InSync != slices.Contains(wanted, m.NodeId)
	}
	return wanted, differs
}

// logClaim tells, once for each epoch, of a node that says it is the writer and is not the one that was elected.
func (s *Session) logClaim(b beat, status *metasrvpb.GroupStatus) {
	if !b.group.Leads || status.GetWriter().GetId() == uint64(s.stream.id) || s.warnedEpoch == status.GetEpoch()+1 {
		return
	}
	s.warnedEpoch = status.GetEpoch() + 1
	s.log.Warn("node says that it is the writer of its group, which it was not elected to be: it is told to be read-only",
		"group", status.GetName(), "claimed_epoch", b.group.Epoch, "epoch", status.GetEpoch(), "writer_node_id", status.GetWriter().GetId())
}

// pushGroup tells the node of its group where that has changed.
func (s *Session) pushGroup(ctx context.Context) (*metasrvpb.HeartbeatResponse, error) {
	if !s.cfg.Tracker.groupNews(s.stream) {
		return nil, nil
	}
	status, err := s.group(ctx, s.last, false)
	if err != nil || status == nil {
		return nil, err
	}
	resp := s.answer(s.last)
	resp.Group = status
	return resp, nil
}
