package server

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

const (
	// procedurePeriod is how often procedures are looked at while there are any, idlePeriod how often else: the reports that
	// they wait for tell nobody that they have come.
	procedurePeriod = 25 * time.Millisecond
	idlePeriod      = 100 * time.Millisecond
	// maxProposals bounds the steps that are proposed at once.
	maxProposals = 64
	// firstPause is the pause after a step that was refused, which doubles up to lastPause.
	firstPause = 100 * time.Millisecond
	lastPause  = 10 * time.Second
)

// driver brings procedures on, in one term. What it remembers is lost with the term: the records have all that matters.
type driver struct {
	*duties
	t   *term
	log *slog.Logger

	withheld map[uint64]withheld
	paused   map[uint64]pause
	moves    map[uint64]*moveQueue
	// chosen counts the replicas of procedures that were planned in this round, by node.
	chosen   placement
	rebuilds rebuilds
	// decoded has the tables of the last round.
	decoded router.Decoded
}

// withheld is the region that a procedure keeps out of the grants to the node of its leader.
type withheld struct {
	node   metasrv.NodeID
	region metasrv.RegionID
	// until is when the last grant has ended.
	until time.Time
}

// pause is how long a procedure is left alone after a refusal.
type pause struct {
	until time.Time
	next  time.Duration
}

// runProcedures brings procedures on until ctx ends. Regions that are kept out of grants then stay so, as long as this term's
// tracker is asked: the next metasrv leader may carry out what was proposed.
func (d *duties) runProcedures(ctx context.Context, t *term, log *slog.Logger) {
	r := &driver{duties: d, t: t, log: log, withheld: map[uint64]withheld{}, paused: map[uint64]pause{}, moves: map[uint64]*moveQueue{}}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		wait := idlePeriod
		any := false
		d.node.Glance(func(v state.View) { any = procedure.AnyRunning(v) })
		if any || len(r.withheld) > 0 || r.repairAfter() > 0 && !time.Now().Before(r.rebuilds.next) {
			if any {
				wait = procedurePeriod
			}
			moved, err := r.round(ctx)
			switch {
			case err != nil && ctx.Err() == nil:
				log.Error("procedures could not be looked at", "error", err)
			case moved:
				wait = 0
			}
		}
		timer.Reset(wait)
	}
}

// round plans the next step of each procedure on one state, and proposes those that there are. It reports whether one was
// done.
func (d *driver) round(ctx context.Context) (moved bool, err error) {
	view := d.node.View()
	if quarantined(view) != nil {
		d.rebuilds.next = time.Now().Add(repairPeriod)
		return false, nil // the regions may be far ahead of the state
	}
	var records []*storagepb.ProcedureRecord
	running := map[uint64]bool{}
	for r, err := range procedure.Running(view) {
		if err != nil {
			return false, err
		}
		records, running[r.Id] = append(records, r), true
	}
	d.forget(running)
	seen := d.look(view)
	defer d.decoded.Keep(func(id metasrv.TableID) bool { _, used := seen.tables[id]; return used })
	d.chosen = placement{}
	stopped, _, err := halted(view)
	if err != nil {
		return false, err
	}
	var work []proposal
	automatic := 0
	for _, r := range records {
		if r.Spec.Automatic {
			automatic++
		}
		if d.paused[r.Id].until.After(time.Now()) || stopped.kind != "" && !mayGoOn(r) {
			continue
		}
		p, err := d.plan(ctx, seen, r, records)
		if err != nil {
			return false, err
		}
		work = append(work, p...)
	}
	missing, err := d.planRepairs(ctx, seen, automatic)
	if err != nil {
		return false, err
	}
	return d.proposeAll(ctx, append(work, missing...)), nil
}

// proposal is a command that brings a procedure on.
type proposal struct {
	record  *storagepb.ProcedureRecord
	kind    storagepb.CommandKind
	command proto.Message
	view    procedure.View
}

// plan returns what is next to do for a procedure.
func (d *driver) plan(
	ctx context.Context, seen *sight, r *storagepb.ProcedureRecord, all []*storagepb.ProcedureRecord,
) ([]proposal, error) {
	if r.Spec.RegionId == 0 {
		return d.planMoves(ctx, seen, r, all)
	}
	region, err := seen.region(metasrv.RegionID(r.Spec.RegionId))
	if err != nil {
		return nil, err
	}
	v := seen.procedure(region, d.leaseOver(r, region))
	if decision := procedure.Plan(r, v); decision.Step != nil {
		return []proposal{stepOf(r, decision.Step, v)}, nil
	}
	return nil, nil
}

func stepOf(r *storagepb.ProcedureRecord, step *storagepb.StepProcedure, v procedure.View) proposal {
	step.WallTimeMs = wallTime()
	return proposal{record: r, kind: storagepb.CommandKind_COMMAND_KIND_STEP_PROCEDURE, command: step, view: v}
}

// leaseOver keeps the region of a procedure that hands its leadership over out of the grants to its leader's node, and
// reports whether the last of them has ended. The mark stays until the outcome is applied here.
func (d *driver) leaseOver(r *storagepb.ProcedureRecord, region *storagepb.RegionRecord) bool {
	held, is := d.withheld[r.Id]
	var leader metasrv.NodeID
	if procedure.HandsOver(r, region) {
		leader = leaderNode(region)
	}
	if is && held.node != leader {
		d.release(r.Id)
		is = false
	}
	switch {
	case leader == 0:
		return false
	case !is:
		held = withheld{node: leader, region: metasrv.RegionID(region.RegionId)}
		held.until = d.t.tracker.Withhold(held.node, held.region)
		d.withheld[r.Id] = held
	}
	return time.Now().After(held.until)
}

func (d *driver) release(id uint64) {
	if held, is := d.withheld[id]; is {
		d.t.tracker.Release(held.node, held.region)
		delete(d.withheld, id)
	}
}

// forget drops what is remembered of procedures that have ended.
func (d *driver) forget(running map[uint64]bool) {
	for id := range d.withheld {
		if !running[id] {
			d.release(id)
		}
	}
	ended := func(id uint64) bool { return !running[id] }
	maps.DeleteFunc(d.paused, func(id uint64, _ pause) bool { return ended(id) })
	maps.DeleteFunc(d.moves, func(id uint64, _ *moveQueue) bool { return ended(id) })
	d.t.waits.Range(func(id, _ any) bool {
		if ended(id.(uint64)) {
			d.t.waits.Delete(id)
		}
		return true
	})
}

// proposeAll proposes steps, many at once, and reports whether one of them was done.
func (d *driver) proposeAll(ctx context.Context, work []proposal) bool {
	errs := make([]error, len(work))
	places := make(chan struct{}, maxProposals)
	var all sync.WaitGroup
	for i, p := range work {
		places <- struct{}{}
		all.Go(func() {
			defer func() { <-places }()
			errs[i] = d.propose(ctx, d.t.leadership, p.kind, p.command)
		})
	}
	all.Wait()
	moved := false
	for i, p := range work {
		moved = d.settle(ctx, p, errs[i]) || moved
	}
	return moved
}

// settle takes what became of a step, and reports whether it was done.
func (d *driver) settle(ctx context.Context, p proposal, err error) bool {
	id := p.record.GetId()
	switch {
	case err == nil:
		delete(d.paused, id)
		d.logStep(p)
		return true
	case ctx.Err() != nil, errors.Is(err, metasrv.ErrRegionChanged), errors.Is(err, metasrv.ErrProcedureChanged), errors.Is(err, metasrv.ErrProcedureEnded),
		errors.Is(err, metasrv.ErrProcedureConflict):
		// Somebody else was faster, or the term is over: what is next is planned on what there is now.
		return false
	}
	if step, is := p.command.(*storagepb.StepProcedure); is && isRefusal(err) {
		note := procedure.Refused(p.record, p.view, err).Step
		note.WallTimeMs = step.WallTimeMs
		if err := d.propose(ctx, d.t.leadership, p.kind, note); err != nil && ctx.Err() == nil {
			d.log.Warn("a procedure's refusal could not be noted", "procedure", id, "error", err)
		}
	}
	d.log.Warn("a procedure's step was refused", "procedure", id, "kind", procedure.Describe(p.record.GetSpec()), "step", stepName(p.record.GetStep()), "error", err)
	next := max(firstPause, d.paused[id].next)
	d.paused[id] = pause{until: time.Now().Add(next), next: min(2*next, lastPause)}
	return false
}

// isRefusal reports whether an error says that the command itself can't be executed, and not that this member can't now.
func isRefusal(err error) bool {
	e, ok := errors.AsType[*metasrv.Error](err)
	if !ok {
		return false
	}
	switch e.Kind {
	case metasrv.KindUnavailable, metasrv.KindResourceExhausted, metasrv.KindInternal, metasrv.KindAborted:
		return false
	}
	return e.Reason != metasrv.ErrNotLeader.Reason && e.Reason != metasrv.ErrStatesDiffer.Reason
}

func (d *driver) logStep(p proposal) {
	if c, is := p.command.(*storagepb.CreateProcedure); is {
		d.log.Info("procedure started", "what", procedure.Describe(c.Spec), "reason", c.Spec.Reason, "region_id", c.Spec.RegionId,
			"node_id", c.Spec.NodeId)
		return
	}
	step, is := p.command.(*storagepb.StepProcedure)
	if !is {
		return
	}
	attrs := []any{
		"procedure", step.Id, "what", procedure.Describe(p.record.Spec), "step", stepName(step.Step),
		"state", stateName(step.State), "region_id", p.record.Spec.RegionId, "node_id", p.record.Spec.NodeId,
	}
	if step.Error != "" {
		d.log.Warn("procedure changed its plan", append(attrs, "reason", step.Error)...)
		return
	}
	d.log.Info("procedure goes on", attrs...)
}
