package server

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	// failoverPeriod is how often failed nodes are looked for when none is known to fail sooner.
	failoverPeriod = 100 * time.Millisecond
	// lookTime is how long one look plans, lookPause what lies between looks then: planning takes a core, which others need,
	// raft and heartbeats first of all.
	lookTime  = 50 * time.Millisecond
	lookPause = 10 * time.Millisecond
	// surveyPeriod is how often everything is looked at, although no node has failed.
	surveyPeriod = time.Second
)

// failover gives regions whose leader has failed to other replicas, for one term. It belongs to one goroutine.
type failover struct {
	*duties
	term *term
	log  *slog.Logger
	led  ledTables
	// known are the nodes that have failed and were looked at, failed are all at the last look.
	known  map[metasrv.NodeID]*failedNode
	failed map[metasrv.NodeID]struct{}
	// lookTime is the constant, planned what of it the present look has used.
	lookTime, planned time.Duration
	// halt is that of the last look, survey when the next one is due although no node has failed.
	halt   halt
	survey time.Time
	// waiting are the regions of nodes that are heard, until their leaders can be replaced.
	waiting map[metasrv.RegionID]waitingRegion
}

func newFailover(d *duties, t *term, log *slog.Logger) *failover {
	return &failover{
		duties: d, term: t, log: log, led: ledTables{source: d.node}, known: make(map[metasrv.NodeID]*failedNode),
		lookTime: lookTime,
		waiting:  make(map[metasrv.RegionID]waitingRegion),
	}
}

// runFailover does what failover is for until ctx ends.
func (d *duties) runFailover(ctx context.Context, t *term, log *slog.Logger) {
	f := newFailover(d, t, log)
	for {
		wait, err := f.look(ctx)
		if err != nil && ctx.Err() == nil {
			log.Error("regions of failed nodes could not be looked at", "error", err)
			wait = dutyRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// look elects leaders for the regions that failed nodes led, and returns how long there is nothing to do.
func (f *failover) look(ctx context.Context) (time.Duration, error) {
	now := time.Now()
	failed, next := f.term.tracker.Failed(now)
	wait := failoverPeriod
	if !next.IsZero() {
		wait = min(wait, max(0, next.Sub(now)))
	}
	doubtful := len(failed) > 0 || !next.IsZero() && next.Sub(now) <= f.flags.beats.Interval+2*failoverPeriod
	if !doubtful && now.Before(f.survey) {
		return wait, nil // without a view, which has a price
	}
	view := f.node.View()
	if err := f.index(ctx, view, doubtful); err != nil {
		return 0, err
	}
	due := f.due(failed, now)
	if len(due) == 0 && now.Before(f.survey) {
		return wait, nil
	}
	f.survey = now.Add(surveyPeriod)
	if len(f.waiting) > 0 {
		f.survey = now.Add(failoverPeriod)
	}
	p, err := f.plan(ctx, view, now)
	if err != nil {
		return 0, err
	}
	more, err := f.act(ctx, p, due)
	if err != nil {
		return 0, err
	}
	if more {
		wait = min(wait, lookPause)
	}
	if err := f.index(ctx, f.node.View(), doubtful); err != nil {
		return 0, err
	}
	f.publish(failed)
	return wait, nil
}

// index brings what is known of region leaders to a view where somebody may have to be replaced.
func (f *failover) index(ctx context.Context, view state.View, needed bool) error {
	if !needed {
		f.led.forget()
		return nil
	}
	return f.led.advance(ctx, view)
}

// act gives the regions of failed nodes to others, unless there is a reason not to. It ends early, and says so, when it has
// planned for as long as a look may.
func (f *failover) act(ctx context.Context, p *electionPlan, due []metasrv.NodeID) (more bool, err error) {
	halt, err := f.settle(p.view, p.statuses, p.now)
	if err != nil || halt.kind != "" {
		f.letGo(nil)
		return false, err
	}
	f.planned = 0
	for _, node := range due {
		if more = f.planned >= f.lookTime; more {
			break
		}
		if more, err = f.replaceLeaders(ctx, p, node); err != nil {
			return false, err
		}
	}
	return more, f.repair(ctx, p)
}

// leaderNode returns the node of a region's leader, 0 where it has none.
func leaderNode(region *storagepb.RegionRecord) metasrv.NodeID {
	for _, r := range region.GetReplicas() {
		if r.GetReplicaId() == region.GetLeaderReplicaId() {
			return metasrv.NodeID(r.GetNodeId())
		}
	}
	return 0
}

// takeover is an election that takes a region from a node.
type takeover struct {
	node   metasrv.NodeID
	change *storagepb.RegionChange
	// until is when the last grant ends, of a region that is kept out of further ones already; else it is zero.
	until time.Time
}

func (t takeover) region() metasrv.RegionID { return metasrv.RegionID(t.change.GetRegionId()) }

// elect carries out elections, and returns how many were. Rule 17: it keeps each region out of every grant to the node that
// led it, then looks whether what was granted before has ended, then proposes, and lets go when the outcome is applied. A
// node that was granted something meanwhile is back, and keeps its regions.
func (f *failover) elect(ctx context.Context, batch []takeover) (elected int, err error) {
	command := &storagepb.ChangeRegions{}
	for _, t := range batch {
		ends := t.until
		if ends.IsZero() {
			ends = f.term.tracker.Withhold(t.node, t.region())
			defer f.unmark(ctx, t)
		}
		if time.Now().Before(ends) {
			f.metrics.count(outcomeBack)
			continue
		}
		command.Changes = append(command.Changes, t.change)
	}
	if len(command.Changes) == 0 {
		return 0, nil
	}
	result, err := f.changeRegions(ctx, command)
	if err != nil {
		return 0, err
	}
	for i, r := range result.GetResults() {
		change := command.Changes[i]
		if r.GetRefusal() == nil {
			elected++
			f.elected(change)
			continue
		}
		f.metrics.count(outcomeRefused)
		f.log.Warn("a region leader was not replaced", "region_id", change.GetRegionId(), "reason", r.GetRefusal().GetMessage())
	}
	return elected, nil
}

// unmark lets a region be granted again whose outcome is applied. When the term ends it may not be: the election may be in the log
// of the next metasrv leader, while a beat of this one is about to be answered by a state without it. Then the mark ends with
// the tracker.
func (f *failover) unmark(ctx context.Context, t takeover) {
	if ctx.Err() == nil {
		f.term.tracker.Release(t.node, t.region())
	}
}

// elected notes that a region got another leader.
func (f *failover) elected(change *storagepb.RegionChange) {
	if !change.GetElect().GetUnclean() {
		f.metrics.count(outcomeElected)
		return
	}
	f.metrics.count(outcomeUnclean)
	f.log.Error("a region is led by a replica that was not in sync, as its table allows: rows that were acknowledged may be lost",
		"region_id", change.GetRegionId(), "replica_id", change.GetElect().GetReplicaId(), "leader_epoch", change.GetLeaderEpoch()+1)
}

// changeRegions executes a command. It tries until the outcome is known, for until then nobody may be granted the regions
// again: a command that is refused because an earlier one was executed says as much as its result.
func (f *failover) changeRegions(ctx context.Context, command *storagepb.ChangeRegions) (*storagepb.ChangeRegionsResult, error) {
	for {
		out, err := f.node.Propose(ctx, state.Proposal{
			Kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS, Payload: command, PlannedTerm: f.term.leadership.Term,
		})
		if err == nil {
			result := &storagepb.ChangeRegionsResult{}
			return result, out.Decode(result)
		}
		if !errors.Is(err, metasrv.ErrOutcomeUnknown) || ctx.Err() != nil {
			return nil, err
		}
		f.log.Warn("the outcome of elections is not known yet", "error", err)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(dutyRetry):
		}
	}
}
