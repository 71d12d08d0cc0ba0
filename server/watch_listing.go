package server

import (
	"iter"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/raftfsm/state"
)

// shared is what the watches of a topic have in common.
type shared[E any] struct {
	listings listings
	memo     memo[E]
}

// listings lets the watches of a topic that begin at about the same time share one list of the present state: when a
// member restarts, all frontends ask for it at once. Its pages are encoded once, and kept as long as somebody reads
// them.
type listings struct {
	mu      sync.Mutex
	current *listing
}

// listing is one state as a list of encoded pages. It is made page by page, as far as the first reader has come.
type listing struct {
	revision uint64
	began    time.Time
	readers  int // under the mu of listings

	mu      sync.Mutex
	produce func() (page []byte, last bool, err error)
	stop    func()
	pages   [][]byte
	// complete: there is no page behind the last one of pages, or err says why.
	complete bool
	err      error
}

// listingAge is how long after its begin a list is joined: the changes since must still be in the feed when it is read.
const listingAge = time.Second

// join returns the list that others have just begun to read, if it is at a revision or a later one, or begins another
// one. leave must be called once.
func (l *listings) join(least uint64, begin func() *listing) (joined *listing, leave func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	joined = l.current
	if joined == nil || joined.revision < least || time.Since(joined.began) > listingAge {
		joined = begin()
		l.current = joined
	}
	joined.readers++
	return joined, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if joined.readers--; joined.readers > 0 {
			return
		}
		joined.stop()
		if l.current == joined {
			l.current = nil
		}
	}
}

// page returns page i, and whether it is the last one. The pages before it were asked for.
func (l *listing) page(i int) (page []byte, last bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i == len(l.pages) && l.err == nil {
		page, last, err := l.produce()
		if l.complete = last || err != nil; err != nil {
			l.err = err
		} else {
			l.pages = append(l.pages, page)
		}
		if l.complete {
			l.produce = nil // it holds the view
		}
	}
	if i >= len(l.pages) {
		return nil, false, l.err
	}
	return l.pages[i], l.complete && l.err == nil && i == len(l.pages)-1, nil
}

// newListing returns the list of a state. Only its last page has a revision to resume behind.
func newListing[M, E any](t topic[M, E], view state.View) *listing {
	next, stop := iter.Pull2(t.present(view))
	revision := view.Revision()
	var ahead *E
	produce := func() ([]byte, bool, error) {
		var events []E
		for size := 0; ; {
			e, err, ok := next()
			if err != nil {
				return nil, false, err
			}
			if ahead != nil {
				events = append(events, *ahead)
				size += t.size(*ahead)
				ahead = nil
			}
			if !ok {
				page, err := t.encode(view, events, revision)
				return page, true, err
			}
			ahead = &e
			if size >= watchBytes {
				page, err := t.encode(view, events, 0)
				return page, false, err
			}
		}
	}
	return &listing{revision: revision, began: time.Now(), produce: produce, stop: stop}
}

// encode returns a message without its header.
func (t topic[M, E]) encode(view state.View, events []E, revision uint64) ([]byte, error) {
	return proto.Marshal(any(t.message(view, nil, events, revision)).(proto.Message))
}

// memo remembers what the latest revisions changed of a topic, for all who watch it.
type memo[E any] struct {
	mu     sync.Mutex
	latest [256]struct {
		number uint64
		events []E
	}
}

// events returns those of a revision, made by make where it is new. They must not be modified.
func (m *memo[E]) events(view state.View, r state.Revision, make func(state.View, state.Revision) ([]E, error)) ([]E, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	slot := &m.latest[r.Number%uint64(len(m.latest))]
	if slot.number != r.Number || r.Number == 0 {
		events, err := make(view, r)
		if err != nil {
			return nil, err
		}
		slot.number, slot.events = r.Number, events
	}
	return slot.events, nil
}
