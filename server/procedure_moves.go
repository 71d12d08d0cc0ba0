package server

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

const (
	// maxMoves is how many parts of one procedure run at once: each copies a replica.
	maxMoves = 8
	// firstRescan is the pause before all routes are looked through again for what is left, which doubles while nothing
	// becomes less: up to lastRescan, for what failed may succeed as soon as a node is back, and up to rescanCost times what
	// the look took where that is longer.
	firstRescan = 250 * time.Millisecond
	lastRescan  = 2 * time.Second
	rescanCost  = 20
)

// nextRescan returns the pause after a look through all routes that took so long; fewer: it found fewer than the one before.
func nextRescan(last, took time.Duration, fewer bool) time.Duration {
	if fewer {
		return firstRescan
	}
	return min(max(2*last, firstRescan), max(lastRescan, rescanCost*took))
}

// moveQueue is what a procedure that moves several replicas has still to look at.
type moveQueue struct {
	regions []metasrv.RegionID
	// scanned is when all routes were looked through, rescan the pause before the next time, left how many were found.
	scanned time.Time
	rescan  time.Duration
	left    int
	// refused counts the regions that nothing could be done with since something could be. Where that is all of them the rest
	// waits until then, after a pause.
	refused int
	until   time.Time
	pause   time.Duration
}

// tried notes what came of planning some parts: where nothing has come of any region, the pause before the next time doubles.
func (q *moveQueue) tried(now time.Time, planned, refused int) {
	q.refused += refused
	switch {
	case planned > 0:
		q.refused, q.pause = 0, 0
	case refused > 0 && q.refused >= len(q.regions):
		q.pause = min(max(2*q.pause, firstRescan), lastRescan)
		q.until = now.Add(q.pause)
	}
}

// planMoves returns what is next to do for a procedure that moves several replicas: parts to create, or its end.
func (d *driver) planMoves(
	ctx context.Context, seen *sight, r *storagepb.ProcedureRecord, all []*storagepb.ProcedureRecord,
) ([]proposal, error) {
	parts := 0
	for _, part := range all {
		if part.Spec.ParentId == r.Id {
			parts++
		}
	}
	switch {
	case r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK && parts > 0:
		return nil, nil
	case r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK:
		return []proposal{endOf(r, "")}, nil
	case r.Spec.Kind == metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE:
		return d.planRemoval(seen, r)
	case r.Spec.Kind == metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS:
		if route, err := seen.route(metasrv.TableID(r.Spec.TableId)); err != nil || route == nil {
			p := endOf(r, "the table was dropped")
			p.command.(*storagepb.StepProcedure).State = metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED
			return []proposal{p}, err
		}
	}
	q, done, err := d.queue(seen, r, parts)
	if err != nil {
		return nil, err
	}
	if done {
		return []proposal{endOf(r, "")}, nil
	}
	return d.begin(ctx, seen, r, q, parts)
}

// endOf returns the end of a procedure that moves several replicas.
func endOf(r *storagepb.ProcedureRecord, why string) proposal {
	ended := metasrvpb.ProcedureState_PROCEDURE_STATE_DONE
	switch {
	case r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING:
	case r.Cancelled:
		ended = metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED
	default:
		ended = metasrvpb.ProcedureState_PROCEDURE_STATE_FAILED
	}
	return stepOf(r, &storagepb.StepProcedure{Id: r.Id, Version: r.Version, State: ended, Step: r.Step, Error: why}, procedure.View{})
}

func (d *driver) queueOf(id uint64) *moveQueue {
	q := d.moves[id]
	if q == nil {
		q = &moveQueue{}
		d.moves[id] = q
	}
	return q
}

// queue returns what is left to look at, after a new look at all routes if nothing was; done: there is nothing left.
func (d *driver) queue(seen *sight, r *storagepb.ProcedureRecord, parts int) (q *moveQueue, done bool, err error) {
	q = d.queueOf(r.Id)
	if len(q.regions) > 0 || parts > 0 || seen.now.Sub(q.scanned) < q.rescan {
		return q, false, nil
	}
	began := time.Now()
	regions, waits, err := seen.unfinished(r.Spec)
	if err != nil {
		return q, false, err
	}
	q.regions = regions
	q.looked(began, len(regions))
	if waits {
		d.t.waits.Store(r.Id, "a table that is being created has a replica there")
	}
	return q, len(regions) == 0 && !waits, nil
}

// looked notes a look at all routes that began then, and found so many that are left.
func (q *moveQueue) looked(began time.Time, left int) {
	q.scanned = time.Now()
	q.rescan = nextRescan(q.rescan, q.scanned.Sub(began), left < q.left)
	q.left = left
}

// unfinished returns the regions of which a procedure has something to move, those first whose leadership can be handed over
// at once; waits: there will be more.
func (s *sight) unfinished(spec *storagepb.ProcedureSpec) (regions []metasrv.RegionID, waits bool, err error) {
	if spec.Kind == metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS {
		route, err := s.route(metasrv.TableID(spec.TableId))
		for _, region := range route.GetRegions() {
			if len(region.Replicas) != int(spec.Replicas) {
				regions = append(regions, metasrv.RegionID(region.RegionId))
			}
		}
		return regions, false, err
	}
	led := map[metasrv.RegionID]bool{}
	waits, err = router.OnNode(s.View, metasrv.NodeID(spec.NodeId), func(_ *storagepb.RouteRecord, region *storagepb.RegionRecord) bool {
		id := metasrv.RegionID(region.RegionId)
		regions, led[id] = append(regions, id), uint64(leaderNode(region)) == spec.NodeId
		return true
	})
	slices.SortStableFunc(regions, func(a, b metasrv.RegionID) int {
		if led[a] == led[b] {
			return cmp.Compare(a, b)
		}
		if led[a] {
			return -1
		}
		return 1
	})
	return regions, waits, err
}

// begin returns the parts of a procedure that are created now. Regions that another procedure works on stay in the queue, as
// those do that no node can take.
func (d *driver) begin(
	ctx context.Context, seen *sight, r *storagepb.ProcedureRecord, q *moveQueue, parts int,
) (work []proposal, err error) {
	if seen.now.Before(q.until) {
		return nil, nil
	}
	b := starter{services: d.services, ctx: ctx, seen: seen}
	refused, refusals := "", 0
	defer func() { q.tried(seen.now, len(work), refusals) }()
	for range len(q.regions) {
		if parts+len(work) >= maxMoves || refusals == maxMoves {
			break
		}
		id := q.regions[0]
		q.regions = q.regions[1:]
		if procedure.OfRegion(seen.View, id) != 0 {
			q.regions = append(q.regions, id)
			continue
		}
		region, err := seen.region(id)
		if err != nil {
			return nil, err
		}
		if region == nil {
			continue
		}
		spec, target, err := d.part(ctx, seen, r.Spec, region)
		if err != nil {
			q.regions, refused = append(q.regions, id), err.Error()
			refusals++
			continue
		}
		if spec == nil {
			continue
		}
		spec.ParentId, spec.Reason = r.Id, procedure.Describe(r.Spec)
		command, err := b.create(spec, target)
		if err != nil {
			return nil, err
		}
		if spec.Kind == metasrvpb.ProcedureKind_PROCEDURE_KIND_TRANSFER_LEADER {
			q.regions = append(q.regions, id)
		}
		work = append(work, proposal{record: r, kind: storagepb.CommandKind_COMMAND_KIND_CREATE_PROCEDURE, command: command})
	}
	if refused == "" {
		d.t.waits.Delete(r.Id)
	} else {
		d.t.waits.Store(r.Id, refused)
	}
	return work, nil
}

// part returns what a procedure has done with a region next, and the replica that takes over where that is one of the region;
// nil where nothing is left to do.
func (d *driver) part(
	ctx context.Context, seen *sight, spec *storagepb.ProcedureSpec, region *storagepb.RegionRecord,
) (*storagepb.ProcedureSpec, uint64, error) {
	if spec.Kind == metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS {
		return d.resize(ctx, seen, region, int(spec.Replicas))
	}
	source := replicaOn(region, spec.NodeId)
	if source == nil {
		return nil, 0, nil
	}
	if err := seen.movable(region); err != nil {
		return nil, 0, err
	}
	if source.ReplicaId == region.LeaderReplicaId && !region.Demoting {
		next := seen.successor(region)
		if next != nil && !seen.node(metasrv.NodeID(next.NodeId)).Draining {
			return &storagepb.ProcedureSpec{
				Kind:     metasrvpb.ProcedureKind_PROCEDURE_KIND_TRANSFER_LEADER,
				RegionId: region.RegionId, NodeId: spec.NodeId, ReplicaId: source.ReplicaId, TargetNodeId: next.NodeId,
			}, next.ReplicaId, nil
		}
	}
	to, err := d.choose(ctx, seen, region, spec.NodeId)
	return &storagepb.ProcedureSpec{
		Kind:     metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION,
		RegionId: region.RegionId, NodeId: spec.NodeId, ReplicaId: source.ReplicaId, TargetNodeId: to,
	}, 0, err
}

// resize returns what brings a region nearer to a number of replicas.
func (d *driver) resize(ctx context.Context, seen *sight, region *storagepb.RegionRecord, replicas int) (*storagepb.ProcedureSpec, uint64, error) {
	switch {
	case len(region.Replicas) < replicas:
		if err := seen.movable(region); err != nil {
			return nil, 0, err
		}
		to, err := d.choose(ctx, seen, region, 0)
		return &storagepb.ProcedureSpec{
			Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_ADD_REPLICA, RegionId: region.RegionId, TargetNodeId: to,
		}, 0, err
	case len(region.Replicas) > replicas:
		if least := seen.leastNeeded(region); least != nil {
			return &storagepb.ProcedureSpec{
				Kind:     metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA,
				RegionId: region.RegionId, NodeId: least.NodeId, ReplicaId: least.ReplicaId,
			}, 0, nil
		}
	}
	return nil, 0, nil
}

// choose returns the node for one more replica of a region, and counts it in the choices that follow in this round.
func (d *driver) choose(ctx context.Context, seen *sight, region *storagepb.RegionRecord, leaves uint64) (uint64, error) {
	to, err := seen.choose(ctx, d.services, region, leaves, d.chosen)
	if err == nil {
		n := d.chosen[to]
		n.replicas++
		d.chosen[to] = n
	}
	return to, err
}

// leastNeeded returns the replica of a region that is missed least, never the region leader: one that is lost, on a node that
// is gone, not in sync, on a node that is drained, then the one with the most other replicas of the region in its zone.
func (s *sight) leastNeeded(region *storagepb.RegionRecord) *storagepb.ReplicaRecord {
	var least *storagepb.ReplicaRecord
	need := func(r *storagepb.ReplicaRecord) int {
		node := s.node(metasrv.NodeID(r.NodeId))
		switch {
		case s.lost(r) || !node.Registered:
			return 0
		case node.Down:
			return 1
		case !r.InSync:
			return 2
		case node.Draining:
			return 3
		}
		return 100 - s.inZoneOf(region, r)
	}
	for _, r := range region.Replicas {
		if r.ReplicaId != region.LeaderReplicaId && (least == nil || need(r) <= need(least)) {
			least = r
		}
	}
	return least
}

// inZoneOf returns how many replicas of a region are in the zone of one of them.
func (s *sight) inZoneOf(region *storagepb.RegionRecord, of *storagepb.ReplicaRecord) int {
	n := 0
	for _, r := range region.Replicas {
		if s.zone(r.NodeId) == s.zone(of.NodeId) {
			n++
		}
	}
	return n
}

func (s *sight) zone(node uint64) string {
	status, err := s.term.tracker.Node(s.View, metasrv.NodeID(node), s.now)
	if err != nil {
		return ""
	}
	return status.Record.GetInfo().GetLabels()["zone"]
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
			have, want := len(region.Replicas), int(spec.Replicas)
			left += max(have, want) - min(have, want)
		}
		return left, err
	}
	return 0, nil
}

// movesWaitFor says what a procedure that moves several replicas waits for, for people.
func (s *sight) movesWaitFor(r *storagepb.ProcedureRecord, left int) string {
	running := 0
	for part, err := range procedure.Running(s.View) {
		if err == nil && part.Spec.ParentId == r.Id {
			running++
		}
	}
	text := fmt.Sprintf("%d replicas that are left, %d of them under way", left, running)
	if why, is := s.term.waits.Load(r.Id); is {
		text += fmt.Sprintf("; the next one can't be moved: %s", why)
	}
	return text
}
