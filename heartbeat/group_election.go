package heartbeat

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Elections are those of the writers of groups in one term. It is made for one goroutine.
type Elections struct {
	tracker  *Tracker
	proposer state.Proposer
	log      *slog.Logger
	groups   map[string]*election
	paused   string
	// planned, if set, is called between a plan and the mark that it rests on: for tests.
	planned func()
}

// election is what is kept of a group between two looks at it.
type election struct {
	since   time.Time
	problem string
	// withheld has the writers that get no lease until the outcome of a proposal is known that was made at a version.
	withheld []metasrv.NodeID
	version  uint64
}

// NewElections returns the elections of the tracker's term, which rest on what it has heard.
func NewElections(t *Tracker, proposer state.Proposer, log *slog.Logger) *Elections {
	return &Elections{tracker: t, proposer: proposer, log: log, groups: make(map[string]*election)}
}

// Hold looks at all groups of a state, which must be this member's present one, and elects writers where they are needed. An
// error means that the state can't be read; what could not be elected is tried again the next time. paused says why nobody is
// to be elected in place of a writer that has failed, if so.
func (e *Elections) Hold(ctx context.Context, view state.View, paused string) error {
	e.paused = paused
	for g, err := range Groups(view) {
		if err == nil {
			err = e.step(ctx, view, g)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// step elects a writer of one group where it needs one.
func (e *Elections) step(ctx context.Context, view state.View, g *storagepb.GroupRecord) error {
	kept := e.groups[g.Name]
	if kept == nil {
		kept = &election{since: time.Now()}
		e.groups[g.Name] = kept
	}
	if g.Version > kept.version {
		e.release(kept) // what was proposed at an earlier version was carried out, or can't be any more
	}
	plan, err := e.plan(view, g, kept)
	if err != nil {
		return err
	}
	if plan.Problem != kept.problem {
		kept.problem = plan.Problem
		if plan.Problem != "" {
			e.log.Error("group can't be written", "group", g.Name, "epoch", g.Epoch, "reason", plan.Problem)
		}
	}
	if plan.Elect == 0 {
		return nil
	}
	if g.WriterNodeId != 0 {
		// The office is taken away first, and the expiry looked at then (rule 17): a beat may have come in between.
		if e.planned != nil {
			e.planned()
		}
		writer := metasrv.NodeID(g.WriterNodeId)
		e.tracker.WithholdWriter(writer)
		kept.withheld, kept.version = append(kept.withheld, writer), g.Version
		if plan, err = e.plan(view, g, kept); err != nil || plan.Elect == 0 {
			e.release(kept)
			return err
		}
	}
	e.elect(ctx, g, kept, plan)
	return nil
}

func (e *Elections) plan(view state.View, g *storagepb.GroupRecord, kept *election) (GroupPlan, error) {
	now := time.Now()
	seen, err := e.tracker.GroupView(view, g, now)
	seen.Known, seen.Paused = now.Sub(kept.since), e.paused
	return seen.Plan(e.tracker.Config()), err
}

// elect proposes what was planned. While nobody knows the outcome, the former writer gets no lease.
func (e *Elections) elect(ctx context.Context, g *storagepb.GroupRecord, kept *election, plan GroupPlan) {
	_, err := e.proposer.Propose(ctx, state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_GROUP,
		Payload: &storagepb.ChangeGroup{Name: g.Name, Version: g.Version, Change: &storagepb.ChangeGroup_Elect{Elect: &storagepb.ElectWriter{
			NodeId: uint64(plan.Elect), Incarnation: uint64(plan.Incarnation), Failed: plan.Failed,
		}}},
		PlannedTerm: e.tracker.term,
	})
	if !errors.Is(err, metasrv.ErrOutcomeUnknown) {
		e.release(kept)
	}
	switch {
	case err == nil:
		e.log.Info("writer of group elected", "group", g.Name, "node_id", uint64(plan.Elect), "epoch", g.Epoch+1, "reason", plan.Reason)
	case ctx.Err() != nil, errors.Is(err, metasrv.ErrGroupChanged), errors.Is(err, metasrv.ErrStaleIncarnation):
		// It is planned anew.
	default:
		e.log.Warn("writer of group could not be elected yet", "group", g.Name, "node_id", uint64(plan.Elect), "error", err)
	}
}

func (e *Elections) release(kept *election) {
	for _, node := range kept.withheld {
		e.tracker.ReleaseWriter(node)
	}
	kept.withheld = nil
}
