package raftfsm

import (
	"context"
	"time"
)

// gathering makes the next entry of a loaded member wait for the clients of the last one, who were just answered and
// are about to send their next commands. Without it clients split into two halves, one in the log while the other
// waits, and every entry is half as large as it could be, at the same price.
type gathering struct {
	// wanted is the number of waiting commands at which the wait ends, 0 while nobody waits; proposer.mu guards it.
	wanted int
	// enough is told when wanted is reached.
	enough chan struct{}
	// skip is the number of entries before the next wait, pause what it will be if that is in vain.
	skip, pause int
}

// Bounds of a wait. It is never longer than the last entry took.
const (
	// minGather commands in an entry and behind it make a member loaded. Nothing waits below.
	minGather = 16
	// maxGather is the longest, also where the last entry took longer.
	maxGather = 50 * time.Millisecond
	// maxPause is how many entries pass at most until it is tried again, where clients don't come back.
	maxPause = 64
)

// gather waits until all but a few of the clients of the last entry wait again. That one had the given number of
// commands and took the given time, and the wait is no longer.
func (p *proposer) gather(ctx context.Context, last int, took time.Duration) {
	g := &p.gathering
	if g.skip > 0 {
		g.skip--
		return
	}
	p.mu.Lock()
	before := p.waiting
	wanted := before + last - (before+last)/16
	if before+last < minGather || before >= wanted || p.bytes >= maxBatchBytes {
		p.mu.Unlock()
		return
	}
	g.wanted = min(wanted, maxBatchCommands)
	p.mu.Unlock()
	g.wait(ctx, min(took, maxGather))
	g.judge(p.endGather()-before >= last/2)
}

func (g *gathering) wait(ctx context.Context, limit time.Duration) {
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-g.enough:
	case <-timer.C:
	case <-ctx.Done():
	}
}

// endGather ends a wait and returns how many commands there are.
func (p *proposer) endGather() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gathering.wanted = 0
	select {
	case <-p.gathering.enough: // reached when the time was over
	default:
	}
	return p.waiting
}

// judge makes waits rarer while they are in vain.
func (g *gathering) judge(worthwhile bool) {
	if worthwhile {
		g.pause = 0
		return
	}
	g.pause = min(2*g.pause+1, maxPause)
	g.skip = g.pause
}

// arrived is called with proposer.mu held when a command was added.
func (g *gathering) arrived(waiting, bytes int) {
	if g.wanted > 0 && (waiting >= g.wanted || bytes >= maxBatchBytes) {
		g.wanted = 0
		g.enough <- struct{}{}
	}
}
