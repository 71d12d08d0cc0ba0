package raftfsm

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// watchdogTicks is how often the watchdog looks within its limit.
const watchdogTicks = 8

// watchdog ends the member when a call to the disk does not return. A metasrv leader whose disk hangs goes on sending
// heartbeats, so the other members would never elect (hashicorp/raft#503, not fixed in v1.7.3). Returning an error
// instead would leave a write behind that may happen later.
//
// It counts its own ticks, not time: a process that was paused in the middle of a call has no slow disk.
type watchdog struct {
	limit time.Duration
	fail  func(error)

	mu    sync.Mutex
	now   uint64
	calls map[*watchedCall]struct{}
}

// watchedCall is one call under way.
type watchedCall struct {
	dog   *watchdog
	what  string
	limit time.Duration
	due   uint64
}

// newWatchdog returns a watchdog that calls fail once a call has taken longer than limit; 0 means never.
func newWatchdog(limit time.Duration, fail func(error)) *watchdog {
	return &watchdog{limit: limit, fail: fail, calls: make(map[*watchedCall]struct{})}
}

// run watches until ctx ends.
func (w *watchdog) run(ctx context.Context) {
	if w.limit <= 0 {
		return
	}
	ticker := time.NewTicker(w.limit / watchdogTicks)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
			w.tick()
		case <-ctx.Done():
			return
		}
	}
}

func (w *watchdog) tick() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now++
	for c := range w.calls {
		if w.now < c.due {
			continue
		}
		w.fail(fmt.Errorf("%s has not returned for %s: the disk hangs. This member ends, so that the others can go on without it; "+
			"check the disk (dmesg, smartctl), then start the member again", c.what, c.limit.Round(100*time.Millisecond)))
	}
}

// begin watches a call until end. extra is what it may take beyond the limit because of its size.
func (w *watchdog) begin(what string, extra time.Duration) *watchedCall {
	if w == nil || w.limit <= 0 {
		return nil
	}
	c := &watchedCall{dog: w, what: what, limit: w.limit + extra}
	w.mu.Lock()
	defer w.mu.Unlock()
	c.due = w.now + 1 + uint64(c.limit/(w.limit/watchdogTicks)) //nolint:gosec // neither is negative
	w.calls[c] = struct{}{}
	return c
}

// end says that the call has returned.
func (c *watchedCall) end() {
	if c == nil {
		return
	}
	c.dog.mu.Lock()
	defer c.dog.mu.Unlock()
	delete(c.dog.calls, c)
}

// unwatched makes a call to the disk that may take as long as it takes: a person waits for it.
func unwatched(_ string, _ int64, call func() error) error { return call() }
