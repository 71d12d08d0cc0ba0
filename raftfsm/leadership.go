package raftfsm

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Leadership is one term of this member as the metasrv leader.
type Leadership struct {
	Term uint64
	// Now returns the leader time: that of the last entry before the term plus the member's own monotonic time
	// since then. Wall time has no part in it.
	Now func() state.LeaderTime
}

// takeOverPause is the time between two attempts to take over.
const takeOverPause = 100 * time.Millisecond

// establishTimeout bounds the wait for raft's queue, not for the commit.
const establishTimeout = 5 * time.Second

// runLeadership takes over and lets go as raft says.
func (n *Node) runLeadership(ctx context.Context, notify <-chan bool) {
	var end func()
	for {
		select {
		case leader := <-notify:
			if end != nil {
				end()
				end = nil
			}
			if leader {
				end = n.lead(ctx)
			}
		case <-ctx.Done():
			if end != nil {
				end()
			}
			return
		}
	}
}

// lead starts a term as metasrv leader. The returned function ends it and waits until its duties have ended.
func (n *Node) lead(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		l, ok := n.takeOver(ctx)
		if !ok {
			return
		}
		n.leading.Store(&l)
		defer n.leading.Store(nil)
		n.notifyLeading()
		n.log.Info("took over as metasrv leader", "term", l.Term)
		var own sync.WaitGroup
		defer own.Wait()
		own.Go(func() { n.expireSessions(ctx, l) })
		own.Go(func() { n.raiseVersion(ctx, l) })
		if err := n.cfg.Duties(ctx, l); err != nil && ctx.Err() == nil {
			n.fail(err)
		}
		<-ctx.Done()
		n.log.Info("no longer metasrv leader", "term", l.Term)
	}()
	return func() {
		n.leading.Store(nil)
		cancel()
		<-done
	}
}

// takeOver establishes the term. It tries until that succeeds or the term is over: raft goes on to call this member
// leader, so giving up would leave the cluster without one.
func (n *Node) takeOver(ctx context.Context) (Leadership, bool) {
	for {
		l, err := n.establish(ctx)
		if err == nil {
			return l, true
		}
		if ctx.Err() != nil || n.Err() != nil {
			return Leadership{}, false
		}
		n.log.Warn("could not take over as metasrv leader yet", "error", err)
		select {
		case <-time.After(takeOverPause):
		case <-ctx.Done():
			return Leadership{}, false
		}
	}
}

// establish applies the first command of the term. When it returns, everything committed in earlier terms is in
// this member's state.
func (n *Node) establish(ctx context.Context) (Leadership, error) {
	for {
		term := n.raft.CurrentTerm()
		entry := state.Encode(&storagepb.Entry{
			Version: n.fsm.current.position().Version,
			Term:    term,
			Commands: []*storagepb.Command{{
				Kind: storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED,
				Payload: state.Encode(&storagepb.LeaderEstablished{
					Term: term, Member: n.cfg.Member, ProposedClusterId: cmp.Or(n.identity().cluster, randomID()),
				}),
			}},
		})
		future := n.raft.Apply(entry, establishTimeout)
		err := n.awaitFuture(ctx, future)
		n.transfers.note(err, time.Now())
		if err != nil {
			return Leadership{}, err
		}
		result, ok := future.Response().(entryResult)
		switch {
		case !ok:
			return Leadership{}, errors.New("raft answered without a result")
		case result.err != nil:
			return Leadership{}, result.err
		case result.term != term:
			continue // the leadership was lost and won again in between
		}
		base, since := n.fsm.current.position().Now, time.Now()
		if broken("clock") {
			base += state.LeaderTime(time.Hour.Milliseconds()) // as the wall clock of this member may be
		}
		return Leadership{Term: term, Now: func() state.LeaderTime {
			return base + state.LeaderTime(time.Since(since).Milliseconds())
		}}, nil
	}
}

// awaitFuture waits for a future of raft or for ctx, whichever is first.
func (n *Node) awaitFuture(ctx context.Context, future raft.Future) error {
	done := make(chan error, 1)
	n.futures.Go(func() { done <- future.Error() })
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answerLimit bounds the wait for what raft has been asked when the node closes. A metasrv leader that reaches no
// majority gives up within the lease.
const answerLimit = 2 * time.Second

// awaitAnswers returns when raft has answered all that it was asked, so that requests under way get their answers.
// Once raft stops it may leave some for ever.
func (n *Node) awaitAnswers() {
	answered := make(chan struct{})
	go func() {
		n.asking.Wait()
		n.futures.Wait()
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(answerLimit):
	}
}

func randomID() uint64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return binary.BigEndian.Uint64(b[:]) | 1
}

// Leadership returns this member's term as the metasrv leader; false where it isn't, or has not taken over yet.
func (n *Node) Leadership() (Leadership, bool) {
	if l := n.leading.Load(); l != nil {
		return *l, true
	}
	return Leadership{}, false
}

// awaitLeadership returns nil where this member is the metasrv leader. It waits while the member takes over.
func (n *Node) awaitLeadership(ctx context.Context) error {
	if n.leading.Load() != nil {
		return nil
	}
	for {
		n.leadingMu.Lock()
		changed := n.leadingChanged
		n.leadingMu.Unlock()
		if n.leading.Load() != nil {
			return nil
		}
		if n.raft.State() != raft.Leader {
			return metasrv.ErrNotLeader.With("member %s is not the metasrv leader", n.cfg.MemberID)
		}
		if err := n.majoritySpace.full(spaceOut); err != nil { // then that can't be stored either
			return err
		}
		select {
		case <-changed:
		case <-time.After(n.cfg.Timing.LeaderLease): // look again whether raft still calls us leader
		case <-ctx.Done():
			return metasrv.ErrNotReady.With("member %s is taking over as metasrv leader", n.cfg.MemberID)
		}
	}
}

func (n *Node) notifyLeading() {
	n.leadingMu.Lock()
	defer n.leadingMu.Unlock()
	close(n.leadingChanged)
	n.leadingChanged = make(chan struct{})
}
