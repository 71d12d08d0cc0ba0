package raftfsm

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Bounds of a batch, which becomes one entry, and of the batches that wait.
const (
	maxBatchCommands = 4096
	maxBatchBytes    = 1 << 20
	maxQueuedBytes   = 64 << 20
	maxCommandBytes  = 4 << 20
	enqueueTimeout   = 5 * time.Second
)

// batch holds the commands of the requests that share an entry.
type batch struct {
	// entry is the encoding of the commands, see state.Prepared.
	entry    []byte
	commands int
	// done is shared by all who wait for the batch.
	done chan struct{}
	// outcome and err are set when done is closed.
	outcome machine.Outcome
	err     error
}

// proposer puts the commands of concurrent requests into one entry (group commit). One entry is in flight at a
// time: meanwhile the next batch grows, and an idle member adds no delay.
type proposer struct {
	mu    sync.Mutex
	queue []*batch
	// bytes and waiting are the size and the number of the commands in the queue.
	bytes, waiting int
	// usual is the room that a new batch gets.
	usual int
	// closed: nothing is taken any more.
	closed bool
	// wake is told of each new command.
	wake      chan struct{}
	gathering gathering
}

func newProposer() *proposer {
	return &proposer{wake: make(chan struct{}, 1), gathering: gathering{enough: make(chan struct{}, 1)}}
}

// add encodes a command into the batch that is open and returns the batch and the command's place in it.
func (p *proposer) add(proposal *state.Proposal) (*batch, int, error) {
	// A command that another build could not decode would stop every member, again after each restart.
	command, err := state.Prepare(proposal)
	if err != nil {
		return nil, 0, metasrv.ErrInvalidArgument.With("%s: %v", proposal.Kind, err)
	}
	size := command.Size()
	if size > maxCommandBytes {
		return nil, 0, metasrv.InvalidArgument("", "the request has %d bytes, at most %d are allowed", size, maxCommandBytes)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.closed:
		return nil, 0, metasrv.ErrNotReady.With("this member is stopping")
	case p.bytes+size > maxQueuedBytes:
		return nil, 0, metasrv.ErrOverloaded.With("%d bytes of requests wait to be written", p.bytes)
	}
	var open *batch
	if len(p.queue) > 0 {
		open = p.queue[len(p.queue)-1]
	}
	if open == nil || open.commands == maxBatchCommands || len(open.entry)+size > maxBatchBytes {
		open = &batch{entry: make([]byte, 0, max(p.usual, state.EntryHeaderRoom+size)), done: make(chan struct{})}
		p.queue = append(p.queue, open)
	}
	open.entry = command.Append(open.entry)
	open.commands++
	p.waiting++
	p.bytes += size
	p.gathering.arrived(p.waiting, p.bytes)
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return open, open.commands - 1, nil
}

// next takes the oldest batch, nil if none waits. Nothing is added to it any more.
func (p *proposer) next() *batch {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.queue) == 0 {
		return nil
	}
	b := p.queue[0]
	p.queue = p.queue[1:]
	p.waiting -= b.commands
	p.bytes -= len(b.entry) - state.EntryHeaderRoom
	// Room for as much as came last time, and a little more.
	p.usual = min(len(b.entry)*5/4, maxBatchBytes)
	return b
}

// run hands batches to commit until ctx ends, and refuses those that are left then.
func (p *proposer) run(ctx context.Context, commit func(*batch)) {
	for ctx.Err() == nil {
		b := p.next()
		if b == nil {
			select {
			case <-p.wake:
			case <-ctx.Done():
			}
			continue
		}
		began := time.Now()
		commit(b)
		took := time.Since(began)
		close(b.done)
		p.gather(ctx, b.commands, took)
	}
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	for b := p.next(); b != nil; b = p.next() {
		b.err = metasrv.ErrNotReady.With("this member is stopping")
		close(b.done)
	}
}

// Propose executes a command through the log and returns its result.
func (n *Node) Propose(ctx context.Context, proposal state.Proposal) (state.Result, error) {
	if err := n.awaitLeadership(ctx); err != nil {
		return state.Result{}, err
	}
	if err := n.requireSpace(proposal); err != nil {
		return state.Result{}, err
	}
	if err := n.requireRoom(proposal); err != nil {
		return state.Result{}, err
	}
	if err := n.requireAgreement(proposal.Kind); err != nil {
		return state.Result{}, err
	}
	if err := n.checkKnown(&proposal); err != nil {
		return state.Result{}, err
	}
	if broken("once") {
		proposal.ID = nil
	}
	b, place, err := n.proposer.add(&proposal)
	if err != nil {
		return state.Result{}, err
	}
	select {
	case <-b.done:
	case <-ctx.Done():
		return state.Result{}, metasrv.ErrOutcomeUnknown.With("the request ended while it was written: %v", context.Cause(ctx))
	}
	if b.err != nil {
		return state.Result{}, b.err
	}
	return b.outcome.Result(place)
}

// requireRoom returns ErrOverloaded for what clients ask for while the image lags too far behind. Duties go on.
func (n *Node) requireRoom(proposal state.Proposal) error {
	if proposal.PlannedTerm != 0 || !n.flusher.behind.Load() {
		return nil
	}
	return metasrv.ErrOverloaded.With("the disk of member %s takes longer to write the state than it takes to change: "+
		"%d MB of changes wait, try again later", n.cfg.MemberID, n.flusher.dirtyBound()>>20)
}

// commit makes a batch an entry of the log and waits until it is executed.
func (n *Node) commit(b *batch) {
	l, ok := n.Leadership()
	if !ok {
		b.err = metasrv.ErrNotLeader.With("member %s is not the metasrv leader", n.cfg.MemberID)
		return
	}
	future := n.raft.Apply(state.FinishEntry(b.entry, n.fsm.current.position().Version, l.Term, l.Now()), enqueueTimeout)
	err := n.awaitFuture(n.down, future)
	n.transfers.note(err, time.Now())
	if err != nil {
		b.err = proposeError(err)
		return
	}
	result, ok := future.Response().(entryResult)
	switch {
	case !ok:
		b.err = metasrv.ErrOutcomeUnknown.With("raft answered without a result")
	case result.err != nil:
		b.err = result.err
	default:
		b.outcome = result.outcome
	}
}

// proposeError says whether a command that raft did not execute may still be executed.
func proposeError(err error) error {
	switch {
	case errors.Is(err, raft.ErrNotLeader), errors.Is(err, raft.ErrLeadershipTransferInProgress):
		return metasrv.ErrNotLeader.With("%v", err)
	case errors.Is(err, raft.ErrEnqueueTimeout):
		return metasrv.ErrOverloaded.With("raft takes no more entries: %v", err)
	case errors.Is(err, metasrv.ErrDiskFull): // the own log has refused the entry, so nobody else has it
		return err
	}
	// Among them ErrLeadershipLost, ErrRaftShutdown, ErrAbortedByRestore: the entry may be in the log of a
	// majority.
	return metasrv.ErrOutcomeUnknown.With("%v", err)
}
