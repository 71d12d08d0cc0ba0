package heartbeat

import (
	"context"
	"errors"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// agree compares the node's report with the state where either has changed, grants a lease, and confirms what the node has
// dropped. ok is false where that must wait for a later beat; the beat itself has been taken.
//
// All is decided behind a barrier that began after the report arrived. Of leases see DESIGN.md. Of what a node is to drop
// (rule 25), the barrier answers the races between reports and changes of the state:
//   - A node has a replica only after the create that named it was committed. The barrier's state holds every
//     such create, so a replica that is unknown there was removed, and is not one that is still unheard of.
//   - The report may be older than the state that judges it. Of a table that is CREATING nothing is asked and
//     nothing confirmed, so a report from before the create harms nothing. If the table has been given up
//     since, such a report confirms a replica that is being created at this moment. Then the table's records
//     go, and the next report shows a replica that no record names: it is dropped as unknown. The same holds
//     for a replica that a frontend creates late.
//   - A report that still shows a replica which is gone by now makes the node drop it twice, which does no
//     harm: the instruction names the replica id, and no other replica ever has it.
//   - An instruction is repeated with each answer without another barrier, until the report or the state's record of the
//     table changes. What is to be dropped stays so for ever, for no replica id is used twice. Other instructions name
//     epoch and configuration, and a node refuses those that are older than its own.
//   - A confirmation is proposed for this term only, and names the incarnation that reported. A leader that
//     was deposed confirms nothing.
func (s *Session) agree(ctx context.Context, b beat) (d decision, ok bool, err error) {
	// An answer that waits longer than to the next beat would make the node doubt its stream.
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Tracker.cfg.Interval, errLate)
	defer cancel()
	d, err = s.decide(ctx, b)
	if err == nil {
		err = s.confirm(ctx, d.gone)
		ok = true
	}
	switch {
	case err == nil:
		return d, true, nil
	case ctx.Err() != nil && !errors.Is(context.Cause(ctx), errLate), endsStream(err):
		return decision{}, false, err
	}
	// The next beat brings the same to decide.
	s.log.Warn("agreement on replicas is put off", "error", err, "granted", d.granted)
	return d, ok, nil
}

var errLate = errors.New("no decision before the next beat is due")

// endsStream reports whether an error means that the stream is of no more use.
func endsStream(err error) bool {
	for _, final := range []error{metasrv.ErrNotLeader, metasrv.ErrStaleTerm, metasrv.ErrStaleIncarnation, metasrv.ErrStreamReplaced} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}

// decide decides behind a barrier.
func (s *Session) decide(ctx context.Context, b beat) (decision, error) {
	lease := s.cfg.Tracker.lease()
	view, err := s.cfg.Barrier.Barrier(ctx)
	if err != nil {
		return decision{}, err
	}
	if err := s.cfg.Dispatcher.reach(ctx, view); err != nil {
		return decision{}, err
	}
	if err := s.cfg.Dispatcher.renew(ctx, s.stream, s.cfg.Turns); err != nil {
		return decision{}, err
	}
	d := decision{lease: lease}
	for {
		if err := s.cfg.Turns.Take(ctx); err != nil {
			return decision{}, err
		}
		d, err = s.cfg.Tracker.decide(s.stream, s.cfg.Dispatcher.rules, s.cfg.Viewer, view, b, d)
		s.cfg.Turns.Give()
		if err != nil || !d.unfinished {
			return d, err
		}
	}
}

// confirm proposes that replicas are gone.
func (s *Session) confirm(ctx context.Context, gone []*storagepb.DroppedReplica) error {
	if len(gone) == 0 {
		return nil
	}
	_, err := s.cfg.Proposer.Propose(ctx, state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CONFIRM_DROPPED,
		Payload: &storagepb.ConfirmDropped{
			NodeId: uint64(s.stream.id), Incarnation: uint64(s.stream.incarnation), Replicas: gone,
		},
		PlannedTerm: s.cfg.Tracker.term,
	})
	return err
}

// answer puts a decision into the answer to a beat.
func (s *Session) answer(b beat) *metasrvpb.HeartbeatResponse {
	resp := &metasrvpb.HeartbeatResponse{
		Sequence:            b.sequence,
		Incarnation:         s.record.Incarnation,
		HeartbeatIntervalMs: uint64(s.cfg.Tracker.cfg.Interval.Milliseconds()), //nolint:gosec // validated
	}
	if b.digested {
		resp.Digest = &b.digest
		resp.FullReportWanted = !b.agreed
	}
	return resp
}

func (s *Session) addDecision(resp *metasrvpb.HeartbeatResponse, d decision) {
	if !d.granted {
		return
	}
	if d.presumed {
		resp.Digest, resp.FullReportWanted = &s.last.said, d.full
	}
	resp.LeaseMs = uint64(d.lease / time.Millisecond) //nolint:gosec // validated
	resp.Ungranted = d.ungranted
}

// judged says whether the node's reports are compared with the state.
func (s *Session) judged() bool {
	return s.stream != nil && !s.stream.legacy && RoleOf(s.record) == metasrvpb.NodeRole_NODE_ROLE_DATANODE
}

func (s *Session) keepsLeases() bool { return s.judged() && keepsLeases(s.record) }

// keepsLeases says whether a node serves regions under leases of their own. Who is in a group doesn't: its writer has one
// lease for all that the group holds.
func keepsLeases(record *storagepb.NodeRecord) bool {
	return namesLeases(record) && record.GetInfo().GetGroup() == ""
}

// canWrite says whether a node can be the writer of its group.
func canWrite(record *storagepb.NodeRecord) bool {
	return namesLeases(record) && record.GetInfo().GetGroup() != "" && !record.GetLegacy()
}

// namesLeases says whether a node writes only under leases. It must name its storage: only one process at a time has
// that, so a restarted one needs not wait for the leases of the one before.
func namesLeases(record *storagepb.NodeRecord) bool {
	return record.GetInfo().GetKeepsLeases() && record.GetInfo().GetStorageUuid() != ""
}

// Wake returns a channel that has a token when Push may have something to tell. Before the first beat it is nil; ask again
// after each.
func (s *Session) Wake() <-chan struct{} {
	if s.stream == nil {
		return nil
	}
	return s.stream.wake
}

// Push answers the last request once more where the state has changed since, so that the node hears of it before its next
// beat: instructions that have come up, and a lease that covers more. It counts from the same request, so it ends when the
// first one does. nil: there is nothing to tell. Errors are those of HandleBeat.
func (s *Session) Push(ctx context.Context) (*metasrvpb.HeartbeatResponse, error) {
	if s.inGroup() {
		return s.pushGroup(ctx)
	}
	if !s.keepsLeases() || !s.cfg.Tracker.unjudged(s.stream) {
		return nil, nil
	}
	if s.last.unlisted && s.cfg.Tracker.dirty(s.stream) {
		// To be judged, it takes the list.
		return s.answer(s.last), nil
	}
	if !s.last.agreed {
		return nil, nil
	}
	d, ok, err := s.agree(ctx, s.last)
	if err != nil || !ok || !d.changed {
		return nil, err
	}
	resp := s.answer(s.last)
	s.addDecision(resp, d)
	resp.Payload = d.news
	return resp, nil
}
