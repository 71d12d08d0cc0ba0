package server

import (
	"context"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

// StartProcedure checks what it can, chooses what the request leaves open, and creates the procedure. What changes between
// that and a step is found by the step.
func (s clusterService) StartProcedure(ctx context.Context, req *metasrvpb.StartProcedureRequest) (*metasrvpb.StartProcedureResponse, error) {
	t := s.term.Load()
	if t == nil {
		return nil, s.notLeader()
	}
	var result storagepb.ProcedureResult
	b := starter{services: s.services, ctx: ctx, seen: s.lookAt(t, s.node.View())}
	command, err := b.command(req)
	var h *metasrvpb.ResponseHeader
	if err != nil {
		h, err = s.firstResult(ctx, req.GetHeader(), err, &result)
	} else {
		h, err = s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CREATE_PROCEDURE, command, &result)
	}
	if err != nil {
		return nil, err
	}
	shown, err := s.lookAt(t, s.node.View()).show(ctx, s.services, result.GetProcedure())
	return &metasrvpb.StartProcedureResponse{Header: h, Procedure: shown}, err
}

// starter makes the command that a request for a procedure amounts to.
type starter struct {
	*services
	ctx  context.Context
	seen *sight
}

func (b starter) command(req *metasrvpb.StartProcedureRequest) (*storagepb.CreateProcedure, error) {
	spec, target, err := b.spec(req)
	if err != nil {
		return nil, err
	}
	spec.Reason = req.GetReason()
	return b.create(spec, target)
}

// create returns the command that creates a procedure; target is the replica that takes over, 0 where none is known yet.
func (b starter) create(spec *storagepb.ProcedureSpec, target uint64) (*storagepb.CreateProcedure, error) {
	step := procedure.FirstStep(spec.Kind)
	limits := procedure.DefaultLimits(b.seen.term.tracker.Config().Lease)
	total, err := b.seen.toMove(b.ctx, b.services, spec)
	return &storagepb.CreateProcedure{
		Spec: spec, Step: step, StepTimeoutMs: uint64(limits.Of(step).Milliseconds()), //nolint:gosec // never negative
		TargetReplicaId: target, Total: uint32(total), WallTimeMs: wallTime(), //nolint:gosec // a count
	}, err
}

// spec returns what a request asks for, and the replica that takes over where that is one of the region.
func (b starter) spec(req *metasrvpb.StartProcedureRequest) (spec *storagepb.ProcedureSpec, target uint64, err error) {
	switch r := req.GetProcedure().(type) {
	case *metasrvpb.StartProcedureRequest_MigrateRegion:
		spec, err = b.migrate(r.MigrateRegion)
	case *metasrvpb.StartProcedureRequest_TransferRegionLeader:
		return b.transfer(r.TransferRegionLeader)
	case *metasrvpb.StartProcedureRequest_AddRegionReplica:
		spec, err = b.add(r.AddRegionReplica)
	case *metasrvpb.StartProcedureRequest_RemoveRegionReplica:
		spec, err = b.remove(r.RemoveRegionReplica)
	case *metasrvpb.StartProcedureRequest_DrainNode:
		spec, err = b.drain(r.DrainNode)
	case *metasrvpb.StartProcedureRequest_RemoveNode:
		spec, err = b.removeNode(r.RemoveNode)
	case *metasrvpb.StartProcedureRequest_SetTableReplicas:
		spec, err = b.setReplicas(r.SetTableReplicas)
	default:
		return nil, 0, metasrv.InvalidArgument("procedure", "is missing")
	}
	return spec, 0, err
}

// region returns a region of a PUBLIC table, or ErrRegionNotFound.
func (b starter) region(id uint64) (*storagepb.RegionRecord, error) {
	region, err := b.seen.region(metasrv.RegionID(id))
	if err == nil && region == nil {
		return nil, metasrv.ErrRegionNotFound.With("region %s does not exist, or its table is not public", metasrv.RegionID(id))
	}
	return region, err
}

// movable returns a region of a PUBLIC table that can have another leader and more replicas.
func (b starter) movable(id uint64) (*storagepb.RegionRecord, error) {
	region, err := b.region(id)
	if err != nil {
		return nil, err
	}
	return region, b.seen.movable(region)
}

// replicaOn returns the replica that a region has on a node, nil where it has none.
func replicaOn(region *storagepb.RegionRecord, node uint64) *storagepb.ReplicaRecord {
	for _, r := range region.GetReplicas() {
		if r.NodeId == node {
			return r
		}
	}
	return nil
}

func (b starter) migrate(r *metasrvpb.MigrateRegion) (*storagepb.ProcedureSpec, error) {
	region, err := b.movable(r.GetRegionId())
	if err != nil {
		return nil, err
	}
	from := r.GetFromNodeId()
	if from == 0 {
		from = uint64(leaderNode(region))
	}
	source, err := b.replica(region, from)
	if err != nil {
		return nil, err
	}
	to, err := b.target(region, r.GetToNodeId(), from)
	return &storagepb.ProcedureSpec{
		Kind:     metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION,
		RegionId: region.RegionId, NodeId: from, ReplicaId: source.ReplicaId, TargetNodeId: to,
	}, err
}

// replica returns the replica of a region on a node, or ErrReplicaNotFound.
func (b starter) replica(region *storagepb.RegionRecord, node uint64) (*storagepb.ReplicaRecord, error) {
	if r := replicaOn(region, node); r != nil {
		return r, nil
	}
	return nil, metasrv.ErrReplicaNotFound.With("region %s has no replica on node %d", metasrv.RegionID(region.RegionId), node)
}

// target returns the node on which a replica is to be added: the one that is named, if that can be, or the best one.
func (b starter) target(region *storagepb.RegionRecord, named, leaves uint64) (uint64, error) {
	if named == 0 {
		return b.seen.choose(b.ctx, b.services, region, leaves, nil)
	}
	id := metasrv.NodeID(named)
	record, err := heartbeat.Node(b.seen.View, id)
	if err != nil {
		return 0, err
	}
	if heartbeat.RoleOf(record) != metasrvpb.NodeRole_NODE_ROLE_DATANODE {
		return 0, metasrv.InvalidArgument("node_id", "node %d is a frontend, which has no replicas", id)
	}
	if have := replicaOn(region, named); have != nil {
		return 0, metasrv.ErrReplicaExists.With("node %d has replica %d of region %s already", id, have.ReplicaId, metasrv.RegionID(region.RegionId))
	}
	switch n := b.seen.node(id); {
	case n.Draining:
		return 0, metasrv.ErrNodeDraining.With("node %d gets no replicas: it is being drained, or was; metactl node undrain %d ends that", id, id)
	case n.Down:
		return 0, metasrv.ErrNoLiveDatanode.With("node %d is down: it has sent no heartbeats for long", id)
	}
	if r, _ := heartbeat.Registration(b.seen.View, id); !r.KeepsLeases {
		return 0, metasrv.ErrNodeKeepsNoLease.With("node %d keeps no leases, so it can't take part in a region whose leader moves", id)
	}
	return named, nil
}

func (b starter) transfer(r *metasrvpb.TransferRegionLeader) (*storagepb.ProcedureSpec, uint64, error) {
	region, err := b.movable(r.GetRegionId())
	if err != nil {
		return nil, 0, err
	}
	target := b.seen.successor(region)
	if r.GetToNodeId() != 0 {
		if target, err = b.replica(region, r.GetToNodeId()); err != nil {
			return nil, 0, err
		}
	}
	id := metasrv.RegionID(region.RegionId)
	switch {
	case target == nil:
		return nil, 0, metasrv.ErrReplicaNotInSync.With("region %s has no other replica that is in sync on a live node", id)
	case target.ReplicaId == region.LeaderReplicaId:
		return nil, 0, metasrv.ErrReplicaLeads.With("region %s is led on node %d already", id, target.NodeId)
	case !target.InSync:
		return nil, 0, metasrv.ErrReplicaNotInSync.With("replica %d of region %s on node %d is not in sync: it may lack rows that were acknowledged",
			target.ReplicaId, id, target.NodeId)
	case b.seen.node(metasrv.NodeID(target.NodeId)).Down:
		return nil, 0, metasrv.ErrNoLiveDatanode.With("node %d is down: it has sent no heartbeats for long", target.NodeId)
	}
	return &storagepb.ProcedureSpec{
		Kind:     metasrvpb.ProcedureKind_PROCEDURE_KIND_TRANSFER_LEADER,
		RegionId: region.RegionId, NodeId: uint64(leaderNode(region)), ReplicaId: region.LeaderReplicaId, TargetNodeId: target.NodeId,
	}, target.ReplicaId, nil
}

func (b starter) add(r *metasrvpb.AddRegionReplica) (*storagepb.ProcedureSpec, error) {
	region, err := b.movable(r.GetRegionId())
	if err != nil {
		return nil, err
	}
	if len(region.Replicas) >= router.MaxReplicas {
		return nil, metasrv.InvalidArgument("region_id", "%s has %d replicas, which is the most", metasrv.RegionID(region.RegionId), len(region.Replicas))
	}
	to, err := b.target(region, r.GetNodeId(), 0)
	return &storagepb.ProcedureSpec{
		Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_ADD_REPLICA, RegionId: region.RegionId, TargetNodeId: to,
	}, err
}

func (b starter) remove(r *metasrvpb.RemoveRegionReplica) (*storagepb.ProcedureSpec, error) {
	region, err := b.region(r.GetRegionId())
	if err != nil {
		return nil, err
	}
	replica, err := b.replica(region, r.GetNodeId())
	if err != nil {
		return nil, err
	}
	if b.seen.last(region, replica) {
		return nil, metasrv.ErrLastReplica.With("replica %d on node %d is the only one of region %s that is in sync, not lost and not on a node that is down; add another one first",
			replica.ReplicaId, replica.NodeId, metasrv.RegionID(region.RegionId))
	}
	return &storagepb.ProcedureSpec{
		Kind:     metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA,
		RegionId: region.RegionId, NodeId: replica.NodeId, ReplicaId: replica.ReplicaId,
	}, nil
}

func (b starter) setReplicas(r *metasrvpb.SetTableReplicas) (*storagepb.ProcedureSpec, error) {
	record, err := router.Find(b.seen.View, catalog.NameOf(r.GetTableName()))
	if err != nil {
		return nil, err
	}
	if r.GetReplicas() == 0 || r.GetReplicas() > router.MaxReplicas {
		return nil, metasrv.InvalidArgument("replicas", "is %d, 1 to %d are allowed", r.GetReplicas(), router.MaxReplicas)
	}
	for _, region := range record.Route.GetRegions() {
		if len(region.Replicas) < int(r.GetReplicas()) {
			if err := b.seen.movable(region); err != nil {
				return nil, err
			}
		}
	}
	return &storagepb.ProcedureSpec{
		Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS, TableId: record.Table.Id, Replicas: r.GetReplicas(),
	}, nil
}
