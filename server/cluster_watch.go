package server

import (
	"iter"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// WatchNodes streams the registrations of nodes.
func (s clusterService) WatchNodes(req *metasrvpb.WatchNodesRequest, stream grpc.ServerStreamingServer[metasrvpb.WatchNodesResponse]) error {
	if err := refuseWatch(req.GetStartRevision(), req.GetChangesOnly()); err != nil {
		return err
	}
	if _, known := metasrvpb.NodeRole_name[int32(req.GetRole())]; !known {
		return metasrv.InvalidArgument("role", "%d is unknown", req.GetRole())
	}
	t := topic[metasrvpb.WatchNodesResponse, *metasrvpb.NodeEvent]{
		ranges: []keyRange{prefixRange(heartbeat.NodePrefix)},
		changed: func(_ state.View, r state.Revision) ([]*metasrvpb.NodeEvent, error) {
			return nodeEvents(r, req.GetRole())
		},
		size: func(e *metasrvpb.NodeEvent) int { return proto.Size(e) },
		message: func(_ state.View, h *metasrvpb.ResponseHeader, events []*metasrvpb.NodeEvent, resume uint64) *metasrvpb.WatchNodesResponse {
			return &metasrvpb.WatchNodesResponse{Header: h, Events: events, Revision: resume}
		},
	}
	if !req.GetChangesOnly() {
		t.present = func(view state.View) iter.Seq2[*metasrvpb.NodeEvent, error] { return presentNodes(view, req.GetRole()) }
	}
	return serveWatch(s.services, stream, req.GetHeader(), req.GetStartRevision(), t)
}

func hasRole(record *storagepb.NodeRecord, role metasrvpb.NodeRole) bool {
	return role == metasrvpb.NodeRole_NODE_ROLE_UNSPECIFIED || heartbeat.RoleOf(record) == role
}

func presentNodes(view state.View, role metasrvpb.NodeRole) iter.Seq2[*metasrvpb.NodeEvent, error] {
	return func(yield func(*metasrvpb.NodeEvent, error) bool) {
		records, err := heartbeat.Nodes(view)
		if err != nil {
			yield(nil, err)
			return
		}
		for _, record := range records {
			if !hasRole(record, role) {
				continue
			}
			if !yield(&metasrvpb.NodeEvent{Revision: view.Revision(), Change: registered(record)}, nil) {
				return
			}
		}
	}
}

// nodeEvents returns what a revision changed of the nodes of a role. A node keeps its role as long as it is registered.
func nodeEvents(r state.Revision, role metasrvpb.NodeRole) ([]*metasrvpb.NodeEvent, error) {
	var events []*metasrvpb.NodeEvent
	for i := range r.Changes {
		before, after, ok, err := heartbeat.Changed(&r.Changes[i])
		switch {
		case err != nil:
			return nil, err
		case !ok:
		case after != nil && hasRole(after, role):
			events = append(events, &metasrvpb.NodeEvent{Revision: r.Number, Change: registered(after)})
		case after == nil && hasRole(before, role):
			events = append(events, &metasrvpb.NodeEvent{Revision: r.Number, Change: &metasrvpb.NodeEvent_Removed{Removed: nodeOf(before)}})
		}
	}
	return events, nil
}

func registered(record *storagepb.NodeRecord) *metasrvpb.NodeEvent_Registered {
	return &metasrvpb.NodeEvent_Registered{Registered: nodeOf(record)}
}

// nodeOf returns what a registration says of a node.
func nodeOf(record *storagepb.NodeRecord) *metasrvpb.Node {
	return &metasrvpb.Node{
		Peer: record.GetPeer(), Info: record.GetInfo(), Incarnation: record.GetIncarnation(), Legacy: record.GetLegacy(),
	}
}
