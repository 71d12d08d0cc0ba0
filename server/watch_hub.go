package server

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	// watchQueueBytes is how much waits for one watcher before it has to read the feed for itself.
	watchQueueBytes = 4 << 20
	// watchLagBytes is how much may change in the state while a client that lags takes no message: less than the feed
	// holds, so that the client can go on where it was.
	watchLagBytes = 16 << 20
	// watchStallBytes is the same for a client that was that far behind when it was sent the message.
	watchStallBytes = 4 << 20
	// watchLookBytes is how much changes between two looks at who lags.
	watchLookBytes = 1 << 20
)

// hub hands the changes of the state to those who watch them. It reads each revision once, whoever watches, and a
// watcher costs nothing where its keys don't change.
//
// A watcher is live, then the hub puts what concerns it into its queue; or it lags, then it reads the feed itself, and
// filters, until it has come as far as the hub. It lags at first, and again when its queue is full. So what waits for it
// is bounded, and no watcher holds up another one or the hub. One that lags beyond the feed is cut off.
type hub struct {
	node Node

	mu       sync.Mutex
	watchers map[*watcher]struct{}
	// index has the ranges of all watchers; nil when they have changed.
	index *rangeIndex
	// next is the revision that is dispatched next.
	next uint64
	// done is the last revision that every live watcher has in its queue, if it concerns it.
	done atomic.Uint64
	// changed counts the bytes of all changes dispatched; looked is what it was when those who lag were last looked at.
	changed atomic.Uint64
	looked  uint64
	// marks tell what changed was at revisions that the feed may remember, oldest first.
	marks []mark
}

// mark is what changed was when all up to a revision was dispatched.
type mark struct{ revision, changed uint64 }

func newHub(node Node) *hub {
	revision := node.View().Revision()
	h := &hub{node: node, watchers: make(map[*watcher]struct{}), next: revision + 1, marks: []mark{{revision: revision}}}
	h.done.Store(revision)
	return h
}

// watcher is one who watches.
type watcher struct {
	hub    *hub
	ranges []keyRange
	wake   chan struct{}
	// cut is closed when the watcher is cut off; err then says why.
	cut chan struct{}
	// collected are the changes of the revision that is dispatched; the hub's.
	collected []state.Change
	// sending is 0 while nothing is sent, else 1 + what the hub's changed was when that began.
	sending atomic.Uint64
	// resume is the revision to go on from, as the client knows it: 0 means from the beginning.
	resume atomic.Uint64

	mu     sync.Mutex
	queue  []state.Revision
	queued int
	lags   bool
	// next is the first revision that was not taken.
	next uint64
	err  error
}

// watch adds a watcher of the changes from a revision on. Its owner removes it.
func (h *hub) watch(ranges []keyRange, from uint64) *watcher {
	w := &watcher{
		hub: h, ranges: ranges, next: from, lags: true,
		wake: make(chan struct{}, 1), cut: make(chan struct{}),
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers[w] = struct{}{}
	h.index = nil
	return w
}

func (h *hub) remove(w *watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
	h.index = nil
}

// run dispatches until ctx ends.
func (h *hub) run(ctx context.Context) error {
	for {
		// Only this goroutine moves next.
		revisions, err := h.node.Read(ctx, h.next)
		e, compacted := errors.AsType[*metasrv.Error](err)
		switch {
		case ctx.Err() != nil:
			return nil
		case compacted && errors.Is(err, metasrv.ErrCompacted):
			h.skipTo(e.Revision, err)
		case err != nil:
			return err
		default:
			h.dispatch(revisions)
		}
	}
}

// dispatch puts revisions into the queues of those whom they concern.
func (h *hub) dispatch(revisions []state.Revision) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.index == nil {
		h.index = newRangeIndex(h.watchers)
	}
	for i := range revisions {
		h.dispatchOne(&revisions[i])
	}
	last := revisions[len(revisions)-1].Number
	h.cutThoseBehind(last)
	h.next = last + 1
	h.done.Store(last)
}

// dispatchOne hands over one revision: to each watcher all at once, for it must not see a part of it.
func (h *hub) dispatchOne(r *state.Revision) {
	var concerned []*watcher
	size := 0
	for i := range r.Changes {
		size += r.Changes[i].Size()
		h.index.find(r.Changes[i].Key, func(w *watcher) {
			if w.collected == nil {
				concerned = append(concerned, w)
				// Most revisions have one change: it is shared with the feed.
				w.collected = r.Changes[i : i+1 : i+1]
				return
			}
			w.collected = append(w.collected, r.Changes[i])
		})
	}
	h.changed.Add(uint64(size)) //nolint:gosec // sizes are positive
	for _, w := range concerned {
		w.push(state.Revision{Number: r.Number, Changes: w.collected})
		w.collected = nil
	}
}

// skipTo goes on from a later revision: the state was replaced, or changes came faster than they were dispatched.
func (h *hub) skipTo(revision uint64, why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.mu.Lock()
		if w.next < revision {
			w.end(why)
		}
		w.mu.Unlock()
	}
	h.next = revision
	h.marks = []mark{{revision - 1, h.changed.Load()}}
	h.done.Store(revision - 1)
}

// cutThoseBehind ends the watchers that can't keep up: those that the feed has overtaken, and those whose clients took no
// message while much changed, before the feed overtakes them: they can still go on where they were. Both wait for their
// clients, and would not notice by themselves. last is the revision that the hub has come to.
func (h *hub) cutThoseBehind(last uint64) {
	changed := h.changed.Load()
	if changed-h.looked < watchLookBytes {
		return
	}
	h.looked = changed
	oldest, _ := h.node.Remembered()
	for len(h.marks) > 1 && h.marks[1].revision < oldest {
		h.marks = h.marks[1:]
	}
	h.marks = append(h.marks, mark{last, changed})
	for w := range h.watchers {
		stalled := h.stalled(w, changed)
		w.mu.Lock()
		if w.lags && (stalled || w.next < oldest) {
			w.end(w.errSlow("the member is at revision %d", last))
		}
		w.mu.Unlock()
	}
}

// stalled reports whether the feed may overtake a watcher whose client takes no message. One whose client is slow, but
// takes them, may be far behind.
func (h *hub) stalled(w *watcher, changed uint64) bool {
	began := w.sending.Load()
	if began == 0 {
		return false
	}
	meanwhile := changed - (began - 1)
	return meanwhile > watchLagBytes || meanwhile > watchStallBytes && h.changedSince(w.resume.Load(), changed) > watchLagBytes
}

// changedSince returns about how many bytes changed from a revision on, rather more than less.
func (h *hub) changedSince(revision, changed uint64) uint64 {
	since := h.marks[0].changed
	for _, m := range h.marks {
		if m.revision >= revision {
			break
		}
		since = m.changed
	}
	return changed - since
}

// errSlow is the end of a watch that takes its changes too slowly.
func (w *watcher) errSlow(why string, args ...any) error {
	resume := w.resume.Load()
	how := fmt.Sprintf("go on from revision %d", resume)
	if resume == 0 {
		how = "begin again"
	}
	return metasrv.ErrSlowWatcher.With("the watch was cut off because its client reads too slowly ("+why+"); "+how, args...).At(resume)
}

// push adds a revision, or makes the watcher lag where too much waits for it.
func (w *watcher) push(r state.Revision) {
	size := 0
	for i := range r.Changes {
		size += r.Changes[i].Size()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.lags || w.err != nil || r.Number < w.next:
		return
	case len(w.queue) > 0 && w.queued+size > watchQueueBytes:
		w.lags, w.next = true, w.queue[0].Number
		w.queue, w.queued = nil, 0
	default:
		w.queue = append(w.queue, r)
		w.queued += size
	}
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// end cuts the watcher off. The caller holds its mu.
func (w *watcher) end(why error) {
	if w.err == nil {
		w.err = why
		w.queue, w.queued = nil, 0
		close(w.cut)
	}
}

// taken is what a watcher has to tell.
type taken struct {
	// revisions are those that concern it, with their changes that do.
	revisions []state.Revision
	// upTo is the revision up to which nothing else does.
	upTo uint64
	// idle: there is no more before the watcher is woken.
	idle bool
}

// take returns what there is.
func (w *watcher) take(ctx context.Context) (taken, error) {
	// Read before the queue: what the hub had dispatched by then is in it.
	done := w.hub.done.Load()
	w.mu.Lock()
	if w.err == nil && w.lags {
		next := w.next
		w.mu.Unlock()
		return w.takeFromFeed(ctx, next)
	}
	defer w.mu.Unlock()
	revisions := w.queue
	w.queue, w.queued = nil, 0
	if len(revisions) > 0 {
		done = revisions[len(revisions)-1].Number
	}
	w.next = max(w.next, done+1)
	return taken{revisions: revisions, upTo: w.next - 1, idle: len(revisions) == 0}, w.err
}

// takeFromFeed reads the feed for a watcher that lags, which is live when it has reached the hub.
func (w *watcher) takeFromFeed(ctx context.Context, next uint64) (taken, error) {
	if w.joins(next) {
		return taken{upTo: next - 1}, nil
	}
	read, err := w.hub.node.Read(ctx, next)
	if err != nil {
		return taken{}, err
	}
	var revisions []state.Revision
	size := 0
	for i := range read {
		if r, ok := w.concerning(&read[i]); ok {
			revisions = append(revisions, r)
			for j := range r.Changes {
				size += r.Changes[j].Size()
			}
		}
		next = read[i].Number + 1
		if size > watchBytes {
			break
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.next = next
	return taken{revisions: revisions, upTo: next - 1}, w.err
}

// joins makes the watcher live if it lacks nothing that was dispatched.
func (w *watcher) joins(next uint64) bool {
	w.hub.mu.Lock()
	defer w.hub.mu.Unlock()
	if next < w.hub.next {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.lags = false
	return true
}

// concerning returns those changes of a revision that the watcher watches, and whether there are any.
func (w *watcher) concerning(r *state.Revision) (state.Revision, bool) {
	var changes []state.Change
	for i := range r.Changes {
		for _, watched := range w.ranges {
			if watched.contains(r.Changes[i].Key) {
				changes = append(changes, r.Changes[i])
				break
			}
		}
	}
	return state.Revision{Number: r.Number, Changes: changes}, len(changes) > 0
}

// why returns why the watcher was cut off.
func (w *watcher) why() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}
