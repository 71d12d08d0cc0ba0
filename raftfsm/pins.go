package raftfsm

import (
	"cmp"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"
)

// A member that was fed with a snapshot goes on from the log. Where the log was shortened beyond the snapshot meanwhile,
// it needs another snapshot, and so on for ever under load (hashicorp/consul#9609). So each such member pins the log
// until it has caught up.

// pinPatience is how long a pin lasts with no entry taken by its member after the snapshot.
const pinPatience = time.Minute

// pins holds back the shortening of the log, on a metasrv leader.
type pins struct {
	// most is how many bytes of new entries a pin holds at most, for the members must not fill the disk.
	most uint64
	// written returns the bytes of all entries so far.
	written func() uint64
	disk    *disk

	any  atomic.Bool
	mu   sync.Mutex
	held map[raft.ServerID]*pin
}

// pin is what one member needs: the entry at index, to which the next ones connect, and those after it.
type pin struct {
	index uint64
	// written was the number of bytes when the snapshot was taken.
	written uint64
	feeding bool
	since   time.Time
}

func newPins(most uint64, written func() uint64, disk *disk) *pins {
	return &pins{most: cmp.Or(most, DefaultLogRetention().Bytes), written: written, disk: disk, held: make(map[raft.ServerID]*pin)}
}

// feed notes that a member is sent the state at an index.
func (p *pins) feed(id raft.ServerID, index uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.held[id] = &pin{index: index, written: p.bytes(), feeding: true}
	p.any.Store(true)
}

func (p *pins) bytes() uint64 {
	if p.written == nil {
		return 0
	}
	return p.written()
}

// presses reports whether a member that is sent a state has used up so much of what its pin may hold that it must have the
// state soon: a quarter is for the wait until here, one for the rest of the state, and twice as much is written until
// the member has caught up.
func (p *pins) presses(id raft.ServerID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.held[id]
	return held != nil && p.bytes()-held.written > p.most/4
}

// fed notes that a member has the state that it was sent, or has failed to take it: then it needs a later one.
func (p *pins) fed(id raft.ServerID, has bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if held := p.held[id]; held != nil && has {
		held.feeding, held.since = false, time.Now()
		return
	}
	p.drop(id)
}

// acknowledged notes that a member has the log up to an index.
func (p *pins) acknowledged(id raft.ServerID, index, committed uint64) {
	if !p.any.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	held := p.held[id]
	switch {
	case held == nil || held.feeding:
	case index >= committed:
		p.drop(id)
	case index > held.index:
		held.index, held.since = index, time.Now()
	}
}

// drop ends a pin; p.mu is held.
func (p *pins) drop(id raft.ServerID) {
	delete(p.held, id)
	p.any.Store(len(p.held) > 0)
}

// before returns the last index that no member needs. Pins give way where the disk is full, where they hold too much, and
// where their member has fallen silent.
func (p *pins) before() uint64 {
	if p == nil || !p.any.Load() {
		return math.MaxUint64
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	last, written, full := uint64(math.MaxUint64), p.bytes(), p.disk.space() != spaceEnough
	for id, held := range p.held {
		if full || written-held.written > p.most || !held.feeding && time.Since(held.since) > pinPatience {
			p.drop(id)
			continue
		}
		last = min(last, held.index-1)
	}
	return last
}
