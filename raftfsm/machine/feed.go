package machine

import (
	"context"
	"slices"
	"sync"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Feed remembers the latest revisions for those who watch. Watchers pull, so a slow one costs nothing: it falls
// off the ring and is told so. What it remembers is bounded by bytes, and handed out without being copied.
type Feed struct {
	mu sync.Mutex
	// ring holds the latest revisions without a gap, oldest first.
	ring []state.Revision
	// last is the newest revision of the state.
	last  uint64
	bytes int
	limit int
	// changed is closed by the next change; nil while nobody waits for it.
	changed chan struct{}
}

// NewFeed returns a feed that remembers up to limit bytes of changes, of a state at the given revision.
func NewFeed(revision uint64, limit int) *Feed { return &Feed{last: revision, limit: limit} }

// Publish adds the next revisions.
func (f *Feed) Publish(revisions []state.Revision) {
	if len(revisions) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := range revisions {
		f.bytes += size(&revisions[i])
	}
	f.ring = append(f.ring, revisions...)
	f.last = revisions[len(revisions)-1].Number
	f.trim()
	f.wake()
}

// trim drops a quarter of the ring at once when it is over its limit, so that it is copied rarely. The newest revision
// stays, however large.
func (f *Feed) trim() {
	if f.bytes <= f.limit {
		return
	}
	drop := 0
	for f.bytes > f.limit*3/4 && drop < len(f.ring)-1 {
		f.bytes -= size(&f.ring[drop])
		drop++
	}
	// With room for what will be dropped next time: to grow it step by step copies it several times.
	kept := f.ring[drop:]
	f.ring = append(make([]state.Revision, 0, len(kept)+drop*5/4), kept...)
}

// Reset forgets everything: the state was replaced by one at the given revision.
func (f *Feed) Reset(revision uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.ring, f.bytes, f.last = nil, 0, revision
	f.wake()
}

func (f *Feed) wake() {
	if f.changed != nil {
		close(f.changed)
		f.changed = nil
	}
}

// Remembered returns the oldest revision that can be read, and the bytes that the feed holds. An empty feed can be read
// from the next revision on.
func (f *Feed) Remembered() (oldest uint64, bytes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.oldest(), f.bytes
}

func (f *Feed) oldest() uint64 { return f.last + 1 - uint64(len(f.ring)) }

// Read returns the whole revisions from the given one on, at least one; it waits until there is one. What it returns
// belongs to the feed.
func (f *Feed) Read(ctx context.Context, from uint64) ([]state.Revision, error) {
	for {
		found, changed, err := f.read(from)
		if err != nil || found != nil {
			return found, err
		}
		//purity:allow readers of the feed wait here; appliers never do
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// read returns what there is from a revision on, or what to wait for.
func (f *Feed) read(from uint64) (found []state.Revision, changed <-chan struct{}, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	oldest := f.oldest()
	switch {
	case from < oldest:
		return nil, nil, metasrv.ErrCompacted.With("changes are remembered from revision %d on, %d was asked for", oldest, from).At(oldest)
	case from <= f.last:
		return slices.Clip(f.ring[from-oldest:]), nil, nil
	case f.changed == nil:
		f.changed = make(chan struct{})
	}
	return nil, f.changed, nil
}

// size returns about the bytes that a revision keeps in memory. Values that are also in the state count too: they may
// be replaced there.
func size(r *state.Revision) int {
	n := 32
	for i := range r.Changes {
		n += r.Changes[i].Size() + 64
	}
	return n
}
