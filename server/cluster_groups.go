package server

import (
	"context"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func (s clusterService) ListGroups(ctx context.Context, req *metasrvpb.ListGroupsRequest) (*metasrvpb.ListGroupsResponse, error) {
	view, err := s.readHeard(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	resp := &metasrvpb.ListGroupsResponse{Header: view.header()}
	for g, err := range heartbeat.Groups(view) {
		if err != nil {
			return nil, err
		}
		info, err := s.groupInfo(view, g)
		if err != nil {
			return nil, err
		}
		resp.Groups = append(resp.Groups, info)
	}
	return resp, nil
}

// groupInfo returns a group as the API shows it: on the metasrv leader with what it has heard.
func (s *services) groupInfo(view state.View, g *storagepb.GroupRecord) (*metasrvpb.GroupInfo, error) {
	t := s.term.Load()
	if t == nil {
		return &metasrvpb.GroupInfo{Status: heartbeat.GroupView{Group: g}.Status(view)}, nil
	}
	now := time.Now()
	seen, err := t.tracker.GroupView(view, g, now)
	if err != nil {
		return nil, err
	}
	seen.Paused = s.pausedWhy(view)
	info := &metasrvpb.GroupInfo{Status: seen.Status(view), Writing: seen.Writing(), Problem: seen.Plan(t.tracker.Config()).Problem}
	if g.SuccessorNodeId != 0 {
		info.Successor = &metasrvpb.Peer{Id: g.SuccessorNodeId, Addr: addresses(view)(metasrv.NodeID(g.SuccessorNodeId))}
	}
	if g.WriterNodeId != 0 {
		info.LeaseLeftMs = leftOf(t.tracker.LeaseEnd(metasrv.NodeID(g.WriterNodeId)), now)
	}
	return info, nil
}

// leftOf returns the time from now to an end in milliseconds, 0 where that has passed.
func leftOf(end, now time.Time) uint64 {
	return uint64(max(0, end.Sub(now).Milliseconds())) //nolint:gosec // not negative
}

// ElectGroupWriter commits who is to write next. The duty does the rest, on whichever member leads.
func (s clusterService) ElectGroupWriter(
	ctx context.Context, req *metasrvpb.ElectGroupWriterRequest,
) (*metasrvpb.ElectGroupWriterResponse, error) {
	t := s.term.Load()
	if t == nil {
		return nil, s.notLeader()
	}
	view, err := s.node.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	g, err := heartbeat.Group(view, req.GetGroup())
	if err != nil {
		return nil, err
	}
	if g.WriterNodeId != req.GetNodeId() || g.SuccessorNodeId != 0 {
		if g, err = s.electGroupWriter(ctx, t, view, g, req); err != nil {
			return nil, err
		}
	}
	view = s.node.View()
	info, err := s.groupInfo(view, g)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.ElectGroupWriterResponse{Header: revision(view), Group: info}, nil
}

func (s clusterService) electGroupWriter(
	ctx context.Context, t *term, view state.View, g *storagepb.GroupRecord, req *metasrvpb.ElectGroupWriterRequest,
) (*storagepb.GroupRecord, error) {
	now := time.Now()
	node := metasrv.NodeID(req.GetNodeId())
	status, err := t.tracker.Node(view, node, now)
	if err != nil {
		return nil, err
	}
	if status.State != metasrvpb.NodeState_NODE_STATE_LIVE {
		return nil, metasrv.ErrNodeNotLive.With("node %d sends no heartbeats: it could not write for group %q", node, g.Name)
	}
	change := &storagepb.ChangeGroup{Name: g.Name, Version: g.Version}
	elect := &storagepb.ChangeGroup_Elect{Elect: &storagepb.ElectWriter{NodeId: req.GetNodeId(), Incarnation: status.Record.GetIncarnation()}}
	switch {
	case g.WriterNodeId == 0:
		change.Change = elect
	case !req.GetLoseWrites():
		change.Change = &storagepb.ChangeGroup_HandOver{HandOver: &storagepb.HandOverGroup{NodeId: req.GetNodeId()}}
	default:
		writer := metasrv.NodeID(g.WriterNodeId)
		// As in an election by the duty: the lease is withheld first, then looked at.
		end := t.tracker.WithholdWriter(writer)
		defer t.tracker.ReleaseWriter(writer)
		if left := end.Sub(now); left > 0 {
			return nil, metasrv.ErrNotGroupWriter.With(
				"the lease of node %d, the writer of group %q, lasts for another %s: stop the node and try again then, or hand over without losing writes",
				writer, g.Name, left.Round(time.Millisecond))
		}
		elect.Elect.Unclean, elect.Elect.Failed = true, true
		change.Change = elect
		// The mark must stay until the outcome is known, however long the caller waits; it ends with the term.
		ctx = t.ctx
	}
	var result storagepb.ChangeGroupResult
	_, err = s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CHANGE_GROUP, change, &result)
	return result.GetGroup(), err
}
