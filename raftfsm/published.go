package raftfsm

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// published is the state after the last entry, for readers. A view shares the tree with the machine, which from then
// on copies every page before it writes to it: with thousands of random writes a second that is a fifth of the work
// of a member. So a view is taken only where somebody reads. While there are readers every entry publishes one, and
// they find it without waiting; the first reader after a pause takes it itself, and waits for the entry that is
// being executed, a millisecond or two.
type published struct {
	fsm *fsm
	// view is the last one that was taken.
	view atomic.Pointer[applied]
	// pos is where the machine is: at or behind the view.
	pos atomic.Pointer[machine.Position]
	// wanted is set by readers and cleared by the entry that publishes for the next ones.
	wanted atomic.Bool

	waitMu  sync.Mutex
	changed chan struct{}
}

// Load returns the state after the last entry that was executed when it was called. It must not be called with fsm.mu
// held: latest does the same there.
func (p *published) Load() *applied {
	if !p.wanted.Load() {
		p.wanted.Store(true)
	}
	pos := p.pos.Load()
	if a := p.view.Load(); a.index() >= pos.Index {
		return a
	}
	p.fsm.mu.Lock()
	defer p.fsm.mu.Unlock()
	return p.latest()
}

// latest returns the present state. fsm.mu is held.
func (p *published) latest() *applied {
	was := p.view.Load()
	if was.index() == p.index() {
		return was
	}
	a := &applied{view: p.fsm.machine.View(), configuration: was.configuration, configurationIndex: was.configurationIndex}
	p.view.Store(a)
	return a
}

// Get returns the present value of a key, without the price of a view.
func (p *published) Get(key string) ([]byte, bool) {
	p.fsm.mu.Lock()
	defer p.fsm.mu.Unlock()
	return p.fsm.machine.Get(key)
}

// position says which state Load returns, without the price of a view.
func (p *published) position() *machine.Position { return p.pos.Load() }

// index is that of the last entry that was executed.
func (p *published) index() uint64 { return p.pos.Load().Index }

// advance is called after an entry, with fsm.mu held.
func (p *published) advance(pos machine.Position) {
	if p.wanted.Swap(false) {
		was := p.view.Load()
		p.view.Store(&applied{view: p.fsm.machine.View(), configuration: was.configuration, configurationIndex: was.configurationIndex})
	}
	p.moved(&pos)
}

// store replaces the state and the configuration, with fsm.mu held.
func (p *published) store(a *applied) {
	pos := a.view.Position()
	p.view.Store(a)
	p.moved(&pos)
}

func (p *published) moved(pos *machine.Position) {
	p.pos.Store(pos)
	p.waitMu.Lock()
	defer p.waitMu.Unlock()
	if p.changed != nil {
		close(p.changed)
		p.changed = nil
	}
}

// glance runs use on the present state, between two entries, without the price of a view. It must be done in microseconds
// and keep nothing: entries wait for it.
func (p *published) glance(use func(state.View)) {
	p.fsm.mu.Lock()
	defer p.fsm.mu.Unlock()
	use(p.fsm.machine)
}

// wait returns the first state whose position fulfils the condition, or a later one.
func (p *published) wait(ctx context.Context, reached func(*machine.Position) bool) (*applied, error) {
	if err := p.reach(ctx, reached); err != nil {
		return nil, err
	}
	return p.Load(), nil
}

// reach waits until the position fulfils the condition.
func (p *published) reach(ctx context.Context, reached func(*machine.Position) bool) error {
	for {
		if reached(p.position()) {
			return nil
		}
		p.waitMu.Lock()
		if p.changed == nil {
			p.changed = make(chan struct{})
		}
		changed := p.changed
		p.waitMu.Unlock()
		if reached(p.position()) {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
