package server

import (
	"fmt"
	"strings"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

// namedRegions is how many regions a message names.
const namedRegions = 5

func (b starter) drain(r *metasrvpb.DrainNode) (*storagepb.ProcedureSpec, error) {
	id := metasrv.NodeID(r.GetNodeId())
	record, err := heartbeat.Node(b.seen.View, id)
	switch {
	case err != nil:
		return nil, err
	case heartbeat.RoleOf(record) != metasrvpb.NodeRole_NODE_ROLE_DATANODE:
		return nil, metasrv.InvalidArgument("node_id", "node %d is a frontend, which has no replicas", id)
	}
	return &storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: uint64(id)}, b.seen.drainable(id)
}

// removeNode checks that nothing is lost with a node that nobody accepts to lose.
func (b starter) removeNode(r *metasrvpb.RemoveNode) (*storagepb.ProcedureSpec, error) {
	id := metasrv.NodeID(r.GetNodeId())
	record, err := heartbeat.Node(b.seen.View, id)
	if err != nil {
		return nil, err
	}
	spec := &storagepb.ProcedureSpec{
		Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE, NodeId: uint64(id), Force: r.GetForce(), AcceptDataLoss: r.GetAcceptDataLoss(),
	}
	count, err := b.seen.toMove(b.ctx, b.services, spec)
	if err != nil {
		return nil, err
	}
	node := b.seen.node(id)
	switch {
	case count == 0 && (node.Down || record.GetDrain() == metasrvpb.NodeDrain_NODE_DRAIN_DRAINED):
		return spec, nil
	case !node.Down && count == 0:
		return nil, metasrv.ErrNodeNotDrained.With("node %d is there and may get replicas: stop it, or drain it first with: metactl node drain %d", id, id)
	case !node.Down:
		return nil, metasrv.ErrNodeNotDrained.With("node %d is not down and has %d replicas: drain it first with: metactl node drain %d", id, count, id)
	case !r.GetForce():
		return nil, metasrv.ErrNodeNotDrained.With("node %d is down and has %d replicas: wait until they are rebuilt elsewhere, or remove it with --force", id, count)
	case r.GetAcceptDataLoss():
		return spec, nil
	}
	last, total, err := b.seen.lastOn(id)
	if err == nil && total > 0 {
		err = metasrv.ErrLastReplica.With("node %d has the last in-sync replica of %d regions (%s): bring its disk back under the same id; "+
			"to give up what only it has: --accept-data-loss", id, total, strings.Join(last, ", "))
	}
	return spec, err
}

// lastOn returns how many regions have their only in-sync replica on a node, and the first of them.
func (s *sight) lastOn(node metasrv.NodeID) (first []string, total int, err error) {
	_, err = router.OnNode(s.View, node, func(_ *storagepb.RouteRecord, region *storagepb.RegionRecord) bool {
		if r := replicaOn(region, uint64(node)); s.last(region, r) {
			total++
			switch {
			case len(first) < namedRegions:
				first = append(first, metasrv.RegionID(region.RegionId).String())
			case len(first) == namedRegions:
				first = append(first, "…")
			}
		}
		return true
	})
	return first, total, err
}

// last reports whether a replica may be the only one left with all rows of its region.
func (s *sight) last(region *storagepb.RegionRecord, r *storagepb.ReplicaRecord) bool {
	return r.InSync && !s.lost(r) && s.usable(region, r) == 0
}

// usable returns how many replicas of a region are in sync, not lost, and on nodes that are not down, but for one.
func (s *sight) usable(region *storagepb.RegionRecord, but *storagepb.ReplicaRecord) int {
	n := 0
	for _, r := range region.Replicas {
		node := s.node(metasrv.NodeID(r.NodeId))
		if r != but && r.InSync && !s.lost(r) && node.Registered && !node.Down {
			n++
		}
	}
	return n
}

// planRemoval returns what is next to do for the removal of a node: replicas that leave their regions, or its end. Regions
// that the node led get their leaders by failover; those whose last replica with all rows it has keep that in the record, for it
// is all that says where their rows were.
func (d *driver) planRemoval(seen *sight, r *storagepb.ProcedureRecord) ([]proposal, error) {
	id := metasrv.NodeID(r.Spec.NodeId)
	if n := seen.node(id); r.Spec.Force && n.Registered && n.Live {
		return []proposal{givenUp(r, fmt.Sprintf("node %d is back: drain it instead, with: metactl node drain %d", id, id))}, nil
	}
	q := d.queueOf(r.Id)
	if seen.now.Sub(q.scanned) < q.rescan {
		return nil, nil
	}
	began := time.Now()
	command := &storagepb.ChangeRegions{}
	led, lost := 0, 0
	creating, err := router.OnNode(seen.View, id, func(_ *storagepb.RouteRecord, region *storagepb.RegionRecord) bool {
		replica := replicaOn(region, r.Spec.NodeId)
		switch {
		case replica.ReplicaId != region.LeaderReplicaId && !seen.last(region, replica):
			command.Changes = append(command.Changes, &storagepb.RegionChange{
				RegionId: region.RegionId, LeaderEpoch: region.LeaderEpoch, ConfVersion: region.ConfVersion,
				Change: &storagepb.RegionChange_RemoveReplica{RemoveReplica: &storagepb.RemoveReplica{ReplicaId: replica.ReplicaId}},
			})
		case seen.usable(region, replica) > 0:
			led++
		default:
			lost++
		}
		return len(command.Changes) < router.MaxRegionChanges
	})
	if err != nil {
		return nil, err
	}
	q.looked(began, led+lost)
	switch {
	case len(command.Changes) > 0:
		q.rescan = firstRescan
		return []proposal{{record: r, kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS, command: command}}, nil
	case lost > 0 && !r.Spec.AcceptDataLoss:
		return []proposal{givenUp(r, fmt.Sprintf("node %d has the last in-sync replica of %d regions: give --accept-data-loss to remove it all the same", id, lost))}, nil
	case led > 0 || creating:
		why := fmt.Sprintf("%d regions get other leaders first", led)
		if paused := d.pausedWhy(seen.View); paused != "" {
			why += ", but " + paused
		}
		d.t.waits.Store(r.Id, why)
		return nil, nil
	}
	return []proposal{endOf(r, "")}, nil
}

// givenUp has a procedure take back what it did.
func givenUp(r *storagepb.ProcedureRecord, why string) proposal {
	p := endOf(r, why)
	step := p.command.(*storagepb.StepProcedure)
	step.State, step.Step = metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK, metasrvpb.ProcedureStep_PROCEDURE_STEP_UNDO
	return p
}
