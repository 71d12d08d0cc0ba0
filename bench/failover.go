package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"
)

// attemptLimit bounds one write of the failover measurement: a write that etcd took while it had no leader waits for
// seconds.
const attemptLimit = 250 * time.Millisecond

// failovers kills the leader of a cluster again and again while one client writes, and returns how long each time
// passed from the kill to the next acknowledged write.
func failovers(ctx context.Context, c *cluster, runs int) ([]time.Duration, error) {
	put, end, err := c.writer(c)
	if err != nil {
		return nil, err
	}
	defer end()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	w := &steadyWriter{put: put, acknowledged: make(chan time.Time, 1)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	var took []time.Duration
	for range runs {
		d, err := w.failover(ctx, c)
		if err != nil {
			return took, err
		}
		took = append(took, d)
	}
	return took, nil
}

// steadyWriter writes one key again and again.
type steadyWriter struct {
	put   func(context.Context) error
	count atomic.Uint64
	// waiting: the time of the next acknowledgement is wanted.
	waiting      atomic.Bool
	acknowledged chan time.Time
}

func (w *steadyWriter) run(ctx context.Context) {
	for ctx.Err() == nil {
		attempt, cancel := context.WithTimeout(ctx, attemptLimit)
		err := w.put(attempt)
		cancel()
		if err != nil {
			sleep(ctx, time.Millisecond)
			continue
		}
		w.count.Add(1)
		if w.waiting.CompareAndSwap(true, false) {
			w.acknowledged <- time.Now()
		}
	}
}

// failover kills the leader once, and starts it again.
func (w *steadyWriter) failover(ctx context.Context, c *cluster) (time.Duration, error) {
	const steady = 100 // writes before the kill
	limit := time.Now().Add(electionLimit)
	for begin := w.count.Load(); w.count.Load() < begin+steady; {
		if time.Now().After(limit) || !sleep(ctx, 10*time.Millisecond) {
			return 0, fmt.Errorf("%s: writes don't go on", c.name())
		}
	}
	// Not always at the same time of the members' timers.
	sleep(ctx, rand.N(500*time.Millisecond))
	i, err := c.awaitLeader(ctx)
	if err != nil {
		return 0, err
	}
	killed := time.Now()
	c.processes[i].kill()
	w.waiting.Store(true)
	var took time.Duration
	select {
	case at := <-w.acknowledged:
		took = at.Sub(killed)
	case <-time.After(electionLimit):
		return 0, fmt.Errorf("%s: no write was acknowledged for %s after its leader was killed", c.name(), electionLimit)
	}
	if err := c.startMember(i); err != nil {
		return 0, err
	}
	sleep(ctx, settleTime)
	return took, nil
}

// settleTime is what a member has to start and catch up.
const settleTime = 2 * time.Second

func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// medianAndWorst returns those of several durations.
func medianAndWorst(all []time.Duration) (median, worst time.Duration) {
	sorted := slices.Sorted(slices.Values(all))
	return sorted[len(sorted)/2], sorted[len(sorted)-1]
}
