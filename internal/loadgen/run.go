package loadgen

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
)

// Op is one operation of one client. n is its number among those of all clients, from 0, warm-up included. An error
// is counted and the client goes on, unless ctx has ended.
type Op func(ctx context.Context, n uint64) error

// Config says how much load there is, and for how long. Duration or Count is needed; what is reached first ends the run.
type Config struct {
	// Clients is how many operations are under way at once, at least 1.
	Clients int
	// Duration is how long operations are measured.
	Duration time.Duration
	// Count is how many operations are started, those of the warm-up included.
	Count uint64
	// Warmup is how long operations are done before they are measured.
	Warmup time.Duration
	// Rate is how many operations all clients together start in a second; 0 means as many as they can. With a rate,
	// latency is counted from the time at which an operation was due: a server that stalls delays those behind too.
	Rate float64
	// Reason names the kind of an error; the report counts by it.
	Reason func(error) string
	// Progress is told about once a second how the run goes. It may be nil.
	Progress func(Progress)
}

// Progress is what a run has done so far, and what it did since it last told.
type Progress struct {
	Elapsed         time.Duration
	WarmingUp       bool
	Operations      uint64
	Errors          uint64
	SincePerSecond  float64
	LastAcknowledge time.Duration // how long ago an operation succeeded
}

// garbagePercent is by how much the heap may grow until garbage is collected: to some hundred MB.
const garbagePercent = 1000

// progressPeriod is the time between two reports of progress.
const progressPeriod = time.Second

// Run has cfg.Clients clients work and returns what was measured. operation makes the operation of a client, which is
// called by one goroutine. Where ctx ends early, the result is that of the time until then, and no error.
func Run(ctx context.Context, cfg Config, operation func(client int) Op) (*Result, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	// The load has a small heap, through which Go would go again and again.
	defer debug.SetGCPercent(debug.SetGCPercent(garbagePercent))
	r := &run{Config: cfg, began: time.Now()}
	r.measureFrom = r.began.Add(cfg.Warmup)
	if cfg.Duration > 0 {
		r.end = r.measureFrom.Add(cfg.Duration)
	}
	r.lastSuccess.Store(int64(cfg.Warmup))
	r.clients = make([]client, cfg.Clients)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	watch.Go(func() { r.tell(ctx) })
	var work sync.WaitGroup
	for i := range r.clients {
		work.Go(func() { r.clients[i].loop(ctx, r, operation(i)) })
	}
	work.Wait()
	cancel()
	watch.Wait()
	return r.result(), nil
}

func (c *Config) validate() error {
	switch {
	case c.Clients < 1:
		return fmt.Errorf("%d clients do nothing", c.Clients)
	case c.Duration <= 0 && c.Count == 0:
		return errors.New("neither a duration nor a count ends the run")
	case c.Rate < 0:
		return fmt.Errorf("a rate of %v is negative", c.Rate)
	}
	return nil
}

// run is one call of Run.
type run struct {
	Config
	began, measureFrom, end time.Time
	clients                 []client
	// next is the number of the next operation.
	next atomic.Uint64
	// lastSuccess is when an operation last succeeded, in nanoseconds from began.
	lastSuccess atomic.Int64
}

// client is one client's own record, so that clients share nothing but two counters.
type client struct {
	latency Histogram
	errors  map[string]uint64
	// longestPause is the longest time without any client's success that this client's success ended.
	longestPause time.Duration
	lastEnd      time.Time

	done, failed atomic.Uint64 // for progress; warm-up included
	_            [64]byte      // the next client's counters are not in the same cache line
}

func (c *client) loop(ctx context.Context, r *run, op Op) {
	for ctx.Err() == nil {
		n := r.next.Add(1) - 1
		if r.Count > 0 && n >= r.Count {
			return
		}
		start := time.Now()
		if r.Rate > 0 {
			due := r.began.Add(time.Duration(float64(n) / r.Rate * float64(time.Second)))
			if !sleepUntil(ctx, due) {
				return
			}
			start = due
		}
		if !r.end.IsZero() && !start.Before(r.end) {
			return
		}
		err := op(ctx, n)
		if err != nil && ctx.Err() != nil {
			return // it may have failed for that
		}
		c.record(r, start, time.Now(), err)
	}
}

// record counts an operation, if it began and ended in the time that is measured.
func (c *client) record(r *run, start, end time.Time, err error) {
	c.done.Add(1)
	if err != nil {
		c.failed.Add(1)
	} else {
		now := int64(end.Sub(r.began))
		before := r.lastSuccess.Swap(now)
		if !start.Before(r.measureFrom) {
			c.longestPause = max(c.longestPause, time.Duration(now-before))
		}
	}
	if start.Before(r.measureFrom) || !r.end.IsZero() && end.After(r.end) && err == nil {
		return
	}
	c.lastEnd = end
	if err == nil {
		c.latency.Add(end.Sub(start))
		return
	}
	if c.errors == nil {
		c.errors = map[string]uint64{}
	}
	c.errors[r.reason(err)]++
}

func (c *Config) reason(err error) string {
	if c.Reason == nil {
		return err.Error()
	}
	return c.Reason(err)
}

// tell reports progress until ctx ends.
func (r *run) tell(ctx context.Context) {
	if r.Progress == nil {
		return
	}
	ticker := time.NewTicker(progressPeriod)
	defer ticker.Stop()
	last, at := uint64(0), r.began
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			p := Progress{Elapsed: now.Sub(r.began), WarmingUp: now.Before(r.measureFrom)}
			for i := range r.clients {
				p.Operations += r.clients[i].done.Load()
				p.Errors += r.clients[i].failed.Load()
			}
			p.SincePerSecond = float64(p.Operations-last) / now.Sub(at).Seconds()
			p.LastAcknowledge = now.Sub(r.began) - time.Duration(r.lastSuccess.Load())
			last, at = p.Operations, now
			r.Progress(p)
		}
	}
}

// sleepUntil returns false where ctx ended first.
func sleepUntil(ctx context.Context, t time.Time) bool {
	d := time.Until(t)
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
