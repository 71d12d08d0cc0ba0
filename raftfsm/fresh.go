package raftfsm

import (
	"context"
	"sync/atomic"
	"time"
)

// freshness knows up to when the state is complete.
type freshness struct {
	complete atomic.Pointer[time.Time]
}

// prove notes that the state contains every command that was acknowledged before a moment.
func (f *freshness) prove(moment time.Time) {
	for {
		old := f.complete.Load()
		if old != nil && !moment.After(*old) || f.complete.CompareAndSwap(old, &moment) {
			return
		}
	}
}

// age returns how long ago the state was complete, false where that is not known. The wall clock has its say because
// the monotonic one stands still while the machine is suspended.
func (f *freshness) age(now time.Time) (time.Duration, bool) {
	complete := f.complete.Load()
	if complete == nil {
		return 0, false
	}
	return max(now.Sub(*complete), now.Round(0).Sub(complete.Round(0))), true
}

// Age returns an upper bound for how far a state that View returns after the call may be behind: it contains every
// command that was acknowledged longer ago than that before the call. False: that is not known, for this member
// has reached no metasrv leader since it started.
func (n *Node) Age() (time.Duration, bool) { return n.fresh.age(time.Now()) }

// refresh finds out now and then how current the state is, so that the age of stale reads stays small where nothing
// else asks.
func (n *Node) refresh(ctx context.Context) {
	interval := n.cfg.Timing.Fresh
	if interval == 0 {
		return
	}
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if age, known := n.Age(); !known || age >= interval/2 {
			bounded, cancel := context.WithTimeout(ctx, interval)
			_ = n.confirm(bounded) // it notes the moment; without an answer the age grows
			cancel()
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
