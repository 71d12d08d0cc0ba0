package server

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// Quarantine tells whether the state waits to be confirmed, and what would be dropped then.
func (s maintenanceService) Quarantine(ctx context.Context, _ *metasrvpb.QuarantineRequest) (*metasrvpb.QuarantineResponse, error) {
	view, err := s.node.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	t := s.term.Load()
	if t == nil {
		return nil, s.notLeader()
	}
	resp := &metasrvpb.QuarantineResponse{Header: revision(view)}
	if q := quarantined(view); q != nil {
		resp.Quarantined, resp.Origin, resp.SinceMs = true, q.GetOrigin(), q.GetSinceMs()
	}
	nodes, err := t.tracker.Nodes(view, time.Now())
	if err != nil {
		return nil, err
	}
	for _, n := range nodes {
		if heartbeat.RoleOf(n.Record) != metasrvpb.NodeRole_NODE_ROLE_DATANODE {
			continue
		}
		id := metasrv.NodeID(n.Record.GetPeer().GetId())
		if !n.Heard {
			resp.SilentNodes = append(resp.SilentNodes, uint64(id))
			continue
		}
		drops, _, err := router.ReplicasToDrop(view, id, each(t.tracker.AppendRegions(nil, id), reported))
		if err != nil {
			return nil, err
		}
		for _, d := range drops {
			resp.Unknown = append(resp.Unknown, &metasrvpb.UnknownReplica{
				NodeId: uint64(id), RegionId: d.GetRegionId(), ReplicaId: d.GetReplicaId(), Reason: d.GetReason(),
			})
		}
	}
	return resp, nil
}

// EndQuarantine confirms a restored or recovered state.
func (s maintenanceService) EndQuarantine(ctx context.Context, req *metasrvpb.EndQuarantineRequest) (*metasrvpb.EndQuarantineResponse, error) {
	view, err := s.node.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	cluster := machine.Cluster(view)
	if req.GetClusterId() != cluster.GetClusterId() {
		return nil, metasrv.InvalidArgument("cluster_id", "is %d, this is cluster %d", req.GetClusterId(), cluster.GetClusterId())
	}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_END_QUARANTINE,
		&storagepb.EndQuarantine{ClusterId: cluster.GetClusterId(), Incarnation: cluster.GetIncarnation()}, &emptypb.Empty{})
	if err != nil {
		return nil, err
	}
	if cluster.GetQuarantine() != nil {
		s.log.Warn("the state was confirmed: replicas that it doesn't know are dropped from now on", "cluster_id", cluster.GetClusterId(),
			"origin", cluster.GetQuarantine().GetOrigin())
	}
	return &metasrvpb.EndQuarantineResponse{Header: h}, nil
}

// quarantined returns where the state comes from while nobody has confirmed it, nil where nobody need.
func quarantined(v state.View) *storagepb.Quarantine { return machine.Quarantined(v) }
