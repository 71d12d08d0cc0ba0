package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Dispatcher tells the nodes of one term which tables have changed in the state, so that their reports are judged again.
// It is fed by the changes of the state. At first, and after it missed some, everything is to be judged.
type Dispatcher struct {
	tracker *Tracker
	rules   Rules
	viewer  state.Viewer
	feed    state.Feed

	mu sync.Mutex
	// revision is the one up to which all changes are marked. It is moved with mu held.
	revision atomic.Uint64
	begun    bool
	// bases are the states that nodes were expected to report, the older ones first.
	bases []*base
}

// NewDispatcher returns the dispatcher of a tracker. It does nothing before Run or a beat.
func NewDispatcher(t *Tracker, rules Rules, viewer state.Viewer, feed state.Feed) *Dispatcher {
	return &Dispatcher{tracker: t, rules: rules, viewer: viewer, feed: feed}
}

// Run follows the state until ctx ends, which is no error: so nodes are told of changes at once.
func (d *Dispatcher) Run(ctx context.Context) error {
	if err := d.begin(); err != nil {
		return err
	}
	for {
		revisions, err := d.feed.Read(ctx, d.revision.Load()+1)
		if ctx.Err() != nil {
			return nil
		}
		d.mu.Lock()
		err = d.take(revisions, err)
		d.mu.Unlock()
		if err != nil {
			return err
		}
	}
}

func (d *Dispatcher) begin() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.begun {
		return nil
	}
	return d.markEverything()
}

// reach returns once all changes up to the revision of a view are marked.
func (d *Dispatcher) reach(ctx context.Context, v state.View) error {
	if d.revision.Load() >= v.Revision() && v.Revision() > 0 {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.begun {
		if err := d.markEverything(); err != nil {
			return err
		}
	}
	for d.revision.Load() < v.Revision() {
		revisions, err := d.feed.Read(ctx, d.revision.Load()+1)
		if err := d.take(revisions, err); err != nil {
			return err
		}
	}
	return nil
}

// take marks what revisions changed, given the error of reading them. d.mu is held.
func (d *Dispatcher) take(revisions []state.Revision, err error) error {
	if errors.Is(err, metasrv.ErrCompacted) {
		return d.markEverything()
	}
	if err != nil {
		return err
	}
	d.expire(time.Now())
	view := d.viewer.View()
	for i := range revisions {
		if revisions[i].Number <= d.revision.Load() {
			continue
		}
		if err := d.mark(view, revisions[i].Changes); err != nil {
			return fmt.Errorf("revision %d: %w", revisions[i].Number, err)
		}
		d.revision.Store(revisions[i].Number)
	}
	return nil
}

// mark marks what the changes of one revision concern.
func (d *Dispatcher) mark(view state.View, changes []state.Change) error {
	for i := range changes {
		if strings.HasPrefix(changes[i].Key, GroupPrefix) {
			if err := d.markGroup(&changes[i]); err != nil {
				return err
			}
		}
		id, ok := strings.CutPrefix(changes[i].Key, NodePrefix)
		if !ok {
			continue
		}
		node, err := strconv.ParseUint(id, 16, 64)
		if err != nil {
			return fmt.Errorf("key %s has no node id", changes[i].Key)
		}
		d.tracker.touch(metasrv.NodeID(node), (*heard).markAll)
	}
	return d.rules.Concerns(view, changes, func(table metasrv.TableID, nodes []metasrv.NodeID) {
		for _, node := range nodes {
			d.tracker.touch(node, func(h *heard) { h.markTable(table) })
		}
	})
}

// markGroup has those told of a change of a group that are or were its nodes.
func (d *Dispatcher) markGroup(c *state.Change) error {
	for _, value := range [][]byte{c.Prev, c.Value} {
		g, err := decodeGroup(c.Key, value)
		if err != nil {
			return err
		}
		for _, m := range g.Members {
			d.tracker.touch(metasrv.NodeID(m.NodeId), (*heard).markGroup)
		}
	}
	return nil
}

// markEverything has all judged that the state says and all that was reported. d.mu is held.
func (d *Dispatcher) markEverything() error {
	view := d.viewer.View()
	expected, base, err := d.tracker.expectations(d.rules, view)
	if err != nil {
		return err
	}
	for node := range expected {
		d.tracker.getOrAdd(node)
	}
	d.tracker.expect(expected)
	d.bases = append(d.bases, base)
	d.revision.Store(view.Revision())
	d.begun = true
	return nil
}

// touch changes what is known of a node, whether it was heard or not.
func (t *Tracker) touch(node metasrv.NodeID, change func(*heard)) {
	h := t.getOrAdd(node)
	h.mu.Lock()
	defer h.mu.Unlock()
	change(h)
}

// expect has everything judged of every node that is known.
func (t *Tracker) expect(expected map[metasrv.NodeID]*expectation) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	for node, h := range t.nodes {
		h.mu.Lock()
		h.expect(expected[node])
		h.mu.Unlock()
	}
}
