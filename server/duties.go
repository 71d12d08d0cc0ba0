package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

const (
	// abortPeriod is how often creations are looked at; a deadline is late by so much at the most.
	abortPeriod = 200 * time.Millisecond
	// dutyRetry is the pause before a duty that could not be done is tried again.
	dutyRetry = 100 * time.Millisecond
)

// term is one term of this member as the metasrv leader, with what is known during it only.
type term struct {
	// ctx ends with the term, with ErrNotLeader as its cause.
	ctx        context.Context
	leadership raftfsm.Leadership
	tracker    *heartbeat.Tracker
	dispatcher *heartbeat.Dispatcher
	// settings are those that count at present.
	settings atomic.Pointer[settings]
	// failover is what its duty found at its last look, nil before the first.
	failover atomic.Pointer[failoverLook]

	// waits has what procedures that move several replicas wait for, by id, for people.
	waits sync.Map

	mu    sync.Mutex
	ended bool
	beats sync.WaitGroup
}

// join counts in a beat that is handled, which must call leave; false where the term is over.
func (t *term) join() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return false
	}
	t.beats.Add(1)
	return true
}

func (t *term) leave() { t.beats.Done() }

// end waits for the beats that joined.
func (t *term) end() {
	t.mu.Lock()
	t.ended = true
	t.mu.Unlock()
	t.beats.Wait()
}

// duties is what the metasrv leader does besides answering.
type duties struct {
	*services
	metrics *failoverMetrics
}

// run does the duties of one term until ctx ends. Clients are answered as by a leader from the moment on that
// the term is set. An error means that the member can't lead.
func (d *duties) run(ctx context.Context, l raftfsm.Leadership) error {
	log := d.log.With("term", l.Term, "member", d.memberID)
	ctx, cancel := withCause(ctx, metasrv.ErrNotLeader.With("member %s is no longer the metasrv leader of term %d", d.memberID, l.Term))
	defer cancel()
	if err := d.createDefaults(ctx, l, log); err != nil {
		return nil //nolint:nilerr // the term ended before its first duty was done
	}
	set, err := d.flags.settings(d.node.View())
	if err != nil {
		return err
	}
	tracker, err := heartbeat.NewTracker(d.flags.tracking(set), l.Term, time.Now())
	if err != nil {
		return err
	}
	tracker.CountIn(&d.beats.Counters)
	t := &term{ctx: ctx, leadership: l, tracker: tracker, dispatcher: heartbeat.NewDispatcher(tracker, rules{}, d.node, d.node)}
	t.settings.Store(&set)
	d.term.Store(t)
	d.metrics.terms.Inc()
	defer t.end()
	defer d.term.Store(nil)
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { attend(ctx, t.tracker) })
	work.Go(func() { dispatch(ctx, t, log) })
	work.Go(func() { d.followSettings(ctx, t, log) })
	work.Go(func() { d.expireHolders(ctx, t, log) })
	work.Go(func() { d.runFailover(ctx, t, log) })
	work.Go(func() { d.runProcedures(ctx, t, log) })
	work.Go(func() { d.electWriters(ctx, t, log) })
	work.Go(func() { d.followWriters(ctx, t, log) })
	d.abortCreations(ctx, t, log)
	return nil
}

// attend tells the tracker that the process runs, until ctx ends.
func attend(ctx context.Context, tracker *heartbeat.Tracker) {
	ticker := time.NewTicker(heartbeat.AttentionPeriod)
	defer ticker.Stop()
	for {
		tracker.Attend()
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

// dispatch tells nodes of changes of the state, until ctx ends.
func dispatch(ctx context.Context, t *term, log *slog.Logger) {
	for {
		err := t.dispatcher.Run(ctx)
		if err == nil {
			return
		}
		log.Error("changes of the state could not be dispatched to the nodes", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(dutyRetry):
		}
	}
}

// withCause returns a context that ends with parent, but for its own cause.
func withCause(parent context.Context, cause error) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(parent))
	stop := context.AfterFunc(parent, func() { cancel(cause) })
	return ctx, func() {
		stop()
		cancel(cause)
	}
}

// createDefaults makes sure that the settings of the cluster, the default catalog and schema exist. It tries until it is done or ctx ends.
func (d *duties) createDefaults(ctx context.Context, l raftfsm.Leadership, log *slog.Logger) error {
	for {
		err := d.createMissing(ctx, l)
		if err == nil || ctx.Err() != nil {
			return err
		}
		log.Warn("settings, default catalog and schema could not be created yet", "error", err)
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(dutyRetry):
		}
	}
}

func (d *duties) createMissing(ctx context.Context, l raftfsm.Leadership) error {
	if err := d.recordSettings(ctx, l.Term); err != nil {
		return err
	}
	view := d.node.View()
	if _, err := catalog.GetCatalog(view, metasrv.DefaultCatalog); errors.Is(err, metasrv.ErrCatalogNotFound) {
		if err := d.propose(ctx, l, storagepb.CommandKind_COMMAND_KIND_CREATE_CATALOG, &storagepb.CreateCatalog{
			Name: metasrv.DefaultCatalog, IfNotExists: true, WallTimeMs: wallTime(),
		}); err != nil {
			return fmt.Errorf("create catalog %s: %w", metasrv.DefaultCatalog, err)
		}
	}
	if _, err := catalog.GetSchema(view, metasrv.DefaultCatalog, metasrv.DefaultSchema); err == nil {
		return nil
	}
	if err := d.propose(ctx, l, storagepb.CommandKind_COMMAND_KIND_CREATE_SCHEMA, &storagepb.CreateSchema{
		CatalogName: metasrv.DefaultCatalog, SchemaName: metasrv.DefaultSchema, IfNotExists: true, WallTimeMs: wallTime(),
	}); err != nil {
		return fmt.Errorf("create schema %s: %w", metasrv.DefaultSchema, err)
	}
	return nil
}

// propose executes a command of a duty, which is refused in any later term.
func (d *duties) propose(ctx context.Context, l raftfsm.Leadership, kind storagepb.CommandKind, command proto.Message) error {
	_, err := d.node.Propose(ctx, state.Proposal{Kind: kind, Payload: command, PlannedTerm: l.Term})
	return err
}

// abortCreations gives up the creations that nobody will commit, until ctx ends.
func (d *duties) abortCreations(ctx context.Context, t *term, log *slog.Logger) {
	ticker := time.NewTicker(abortPeriod)
	defer ticker.Stop()
	var creations router.Creations
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		pending := false
		d.node.Glance(func(v state.View) { pending = catalog.AnyPending(v) })
		if !pending {
			continue
		}
		view := d.node.View()
		if quarantined(view) != nil {
			continue // the creation may have been committed in what the state has lost
		}
		aborts, err := creations.PlanAborts(view, t.leadership.Now(), func(id metasrv.NodeID, i metasrv.Incarnation) (bool, string) {
			return t.gone(view, id, i)
		})
		if err != nil {
			log.Error("creations could not be looked at", "error", err)
			continue
		}
		for _, a := range aborts {
			d.abort(ctx, t, a, log)
		}
	}
}

func (d *duties) abort(ctx context.Context, t *term, a router.Abort, log *slog.Logger) {
	err := d.propose(ctx, t.leadership, storagepb.CommandKind_COMMAND_KIND_ABORT_TABLE, a.Command())
	switch {
	case err == nil:
		log.Info("creation aborted", "table_id", uint64(a.Table), "table", a.Name.String(), "reason", a.Reason)
	case errors.Is(err, metasrv.ErrCreationEnded), errors.Is(err, metasrv.ErrTableNotFound), ctx.Err() != nil:
		// Its frontend, or the end of the term, was faster.
	default:
		log.Warn("creation could not be aborted yet", "table_id", uint64(a.Table), "table", a.Name.String(), "error", err)
	}
}

// gone reports whether an incarnation of a node will not come back, and why.
func (t *term) gone(view state.View, id metasrv.NodeID, incarnation metasrv.Incarnation) (bool, string) {
	status, err := t.tracker.Node(view, id, time.Now())
	switch {
	case errors.Is(err, metasrv.ErrNodeNotFound):
		return true, "is not registered any more"
	case err != nil:
		return false, ""
	case metasrv.Incarnation(status.Record.GetIncarnation()) != incarnation:
		return true, "has registered anew"
	case status.State == metasrvpb.NodeState_NODE_STATE_DOWN:
		return true, "is down"
	}
	return false, ""
}
