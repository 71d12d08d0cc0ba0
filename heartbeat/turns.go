package heartbeat

import (
	"context"
	"runtime"
)

// Turns bounds how many goroutines work on beats at the same moment. Thousands that become runnable at once, after a pause of
// the process or a change of the metasrv leader, would have raft's goroutines wait behind them for longer than the other
// members wait for raft. Who waits for a turn is not runnable; turns are given in the order in which they were asked for.
//
// In a turn nothing is waited for but the processor and locks that are held for computing only. A nil Turns bounds nothing.
type Turns struct{ taken chan struct{} }

// NewTurns returns turns for as many as work at the same time, at least 1.
func NewTurns(n int) *Turns { return &Turns{taken: make(chan struct{}, max(1, n))} }

// DefaultTurns leaves one processor to all else, where there are several.
func DefaultTurns() int { return max(1, runtime.GOMAXPROCS(0)-1) }

// Take waits for a turn, which Give ends, or returns the error of ctx.
func (t *Turns) Take(ctx context.Context) error {
	if t == nil {
		return nil
	}
	select {
	case t.taken <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// Give ends a turn.
func (t *Turns) Give() {
	if t != nil {
		<-t.taken
	}
}
