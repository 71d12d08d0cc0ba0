package machine

import (
	"context"
	"slices"
	"sync"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Feed remembers the latest revisions for those who watch. Watchers pull, so a slow one costs nothing: it falls
// off the ring and is told so.
type Feed struct {
	mu sync.Mutex
	// ring holds the latest revisions without a gap, oldest first.
	ring []state.Revision
	// last is the newest revision of the state.
	last    uint64
	bytes   int
	changed chan struct{}
	limit   int
}

// NewFeed returns a feed that remembers up to limit bytes of changes, of a state at the given revision.
func NewFeed(revision uint64, limit int) *Feed {
	return &Feed{last: revision, changed: make(chan struct{}), limit: limit}
}

// Publish adds the next revisions.
func (f *Feed) Publish(revisions []state.Revision) {
	if len(revisions) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, r := range revisions {
		f.ring = append(f.ring, r)
		f.bytes += size(r)
		f.last = r.Number
	}
	f.trim()
	f.wake()
}

// trim drops a quarter of the ring at once when it is over its limit, so that it is copied rarely.
func (f *Feed) trim() {
	if f.bytes <= f.limit {
		return
	}
	drop := 0
	for f.bytes > f.limit*3/4 && drop < len(f.ring)-1 {
		f.bytes -= size(f.ring[drop])
		drop++
	}
	f.ring = slices.Clone(f.ring[drop:])
}

// Reset forgets everything: the state was replaced by one at the given revision.
func (f *Feed) Reset(revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring, f.bytes, f.last = nil, 0, revision
	f.wake()
}

func (f *Feed) wake() {
	close(f.changed)
	f.changed = make(chan struct{})
}

// Read returns the whole revisions from the given one on, at least one; it waits until there is one.
func (f *Feed) Read(ctx context.Context, from uint64) ([]state.Revision, error) {
	for {
		f.mu.Lock()
		oldest := f.last + 1 - uint64(len(f.ring))
		changed := f.changed
		if from < oldest {
			f.mu.Unlock()
			return nil, metasrv.ErrCompacted.With("changes are remembered from revision %d on, %d was asked for", oldest, from)
		}
		if from <= f.last {
			found := slices.Clip(f.ring[from-oldest:])
			f.mu.Unlock()
			return found, nil
		}
		f.mu.Unlock()
		//purity:allow readers of the feed wait here; appliers never do
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func size(r state.Revision) int {
	n := 32
	for _, c := range r.Changes {
		n += len(c.Key) + len(c.Value) + len(c.Prev) + 64
	}
	return n
}
