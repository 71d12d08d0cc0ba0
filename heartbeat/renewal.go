package heartbeat

import (
	"context"
	"time"

	"github.com/metasrv/metasrv"
)

// A node whose record changed, because it registered anew, is judged table by table, which reads each table's route. Where that
// befalls many nodes at once, as when all of them were started again, one pass over the state for all of them costs less.

const (
	// renewFrom is how many nodes must wait to be judged in full for a pass.
	renewFrom = 16
	// renewLines is how many replicas a node reports at least that counts among them.
	renewLines = 64
)

// unexpected says whether everything of a node is to be judged that reports many replicas, and nothing is known of what to
// expect. h.mu is held.
func (h *heard) unexpected() bool {
	return h.everything && h.expected == nil && len(h.reports) >= renewLines
}

// renew gives expectations to the nodes that need them, where the stream's node is one of many. It is called behind reach.
func (d *Dispatcher) renew(ctx context.Context, s *stream, turns *Turns) error {
	if !d.tracker.manyUnexpected(s.node) {
		return nil
	}
	if err := turns.Take(ctx); err != nil {
		return err
	}
	defer turns.Give()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.tracker.manyUnexpected(s.node) { // the pass of another node was for this one too
		return nil
	}
	// What is marked from here on may not be in the view. What was marked before is, and needs no judgement of its own.
	marked := d.tracker.takeMarked()
	view := d.viewer.View()
	expected, base, err := d.tracker.expectations(d.rules, view)
	if err == nil {
		d.bases = append(d.bases, base)
	}
	for h, was := range marked {
		h.renew(expected, base, was)
	}
	return err
}

// manyUnexpected says whether a node is unexpected, and so many others are that a pass pays.
func (t *Tracker) manyUnexpected(node *heard) bool {
	node.mu.Lock()
	unexpected := node.unexpected()
	node.mu.Unlock()
	if !unexpected {
		return false
	}
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := 0
	for _, h := range t.nodes {
		h.mu.Lock()
		if h.unexpected() {
			n++
		}
		h.mu.Unlock()
		if n >= renewFrom {
			return true
		}
	}
	return false
}

// marked are nodes that need expectations, with the marks that were taken from them.
type marked map[*heard]markedNode

type markedNode struct {
	id    metasrv.NodeID
	dirty map[metasrv.TableID]struct{}
}

// takeMarked takes the marks of tables from the nodes that need expectations: everything is to be judged of them.
func (t *Tracker) takeMarked() marked {
	t.mu.RLock()
	defer t.mu.RUnlock()
	taken := marked{}
	for id, h := range t.nodes {
		h.mu.Lock()
		if h.unexpected() {
			taken[h] = markedNode{id, h.dirty}
			h.dirty = nil
		}
		h.mu.Unlock()
	}
	return taken
}

// renew has a node judged by what the state expects of it, or gets its marks back: where that is not known, or it was judged
// meanwhile.
func (h *heard) renew(expected map[metasrv.NodeID]*expectation, b *base, was markedNode) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if b == nil || !h.unexpected() {
		for table := range was.dirty {
			h.addDirty(table)
		}
		return
	}
	e := expected[was.id]
	if e == nil {
		e = &expectation{base: b} // it should report nothing
	}
	h.expect(e)
}

// expire gives up the states that expectations were made from a while ago. d.mu is held.
func (d *Dispatcher) expire(now time.Time) {
	kept := d.bases[:0]
	for _, b := range d.bases {
		if !b.expire(now) {
			kept = append(kept, b)
		}
	}
	clear(d.bases[len(kept):])
	d.bases = kept
}
