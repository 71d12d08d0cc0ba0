package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

const (
	// maxMoves is how many parts of one procedure run at once: each copies a replica.
	maxMoves = 8
	// rescanPeriod is the pause before all routes are looked through again for what is left.
	rescanPeriod = time.Second
)

// nodeMoves is what is known, in one term, of procedures that move several replicas.
type nodeMoves struct {
	// queues are the regions that each has still to look at; a queue that is empty is filled by looking through all routes.
	queues map[uint64]*moveQueue
	// reasons say why a move can't be begun, by procedure, for people.
	mu      sync.Mutex
	reasons map[uint64]string
}

type moveQueue struct {
	regions []metasrv.RegionID
	scanned time.Time
	// empty: the last look found nothing at all.
	empty bool
}

// planMoves returns what is next to do for a procedure that moves several replicas: parts to create, or its end.
func (d *driver) planMoves(
	ctx context.Context, seen *sight, r *storagepb.ProcedureRecord, all []*storagepb.ProcedureRecord,
) ([]proposal, error) {
	var parts []*storagepb.ProcedureRecord
	for _, part := range all {
		if part.Spec.ParentId == r.Id {
			parts = append(parts, part)
		}
	}
	if r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK {
		if len(parts) > 0 {
			return nil, nil
		}
		return []proposal{endOf(r)}, nil
	}
	return nil, nil
}

// endOf returns the end of a procedure that moved several replicas.
func endOf(r *storagepb.ProcedureRecord) proposal {
	ended := metasrvpb.ProcedureState_PROCEDURE_STATE_DONE
	switch {
	case r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING:
	case r.Cancelled:
		ended = metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED
	default:
		ended = metasrvpb.ProcedureState_PROCEDURE_STATE_FAILED
	}
	return stepOf(r, &storagepb.StepProcedure{Id: r.Id, Version: r.Version, State: ended, Step: r.Step}, procedure.View{})
}

// toMove returns how many replicas a procedure that moves several has left, 0 for any other.
func (s *sight) toMove(ctx context.Context, svc *services, spec *storagepb.ProcedureSpec) (int, error) {
	switch spec.Kind {
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE:
		count, err := svc.placed.at(ctx, s.View)
		return count[spec.NodeId].replicas, err
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS:
		route, err := s.route(metasrv.TableID(spec.TableId))
		left := 0
		for _, region := range route.GetRegions() {
			left += difference(len(region.Replicas), int(spec.Replicas))
		}
		return left, err
	}
	return 0, nil
}

func difference(a, b int) int { return max(a, b) - min(a, b) }

// movesWaitFor says what a procedure that moves several replicas waits for, for people.
func (s *sight) movesWaitFor(r *storagepb.ProcedureRecord, left int) string {
	running := 0
	for part, err := range procedure.Running(s.View) {
		if err == nil && part.Spec.ParentId == r.Id {
			running++
		}
	}
	return fmt.Sprintf("%d replicas, of which %d are being moved", left, running)
}

func (b starter) drain(r *metasrvpb.DrainNode) (*storagepb.ProcedureSpec, error) {
	id := metasrv.NodeID(r.GetNodeId())
	record, err := heartbeat.Node(b.seen.View, id)
	switch {
	case err != nil:
		return nil, err
	case heartbeat.RoleOf(record) != metasrvpb.NodeRole_NODE_ROLE_DATANODE:
		return nil, metasrv.InvalidArgument("node_id", "node %d is a frontend, which has no replicas", id)
	}
	return &storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: uint64(id)}, nil
}

func (b starter) removeNode(r *metasrvpb.RemoveNode) (*storagepb.ProcedureSpec, error) {
	return nil, errors.ErrUnsupported
}

var _ = router.Wanted
