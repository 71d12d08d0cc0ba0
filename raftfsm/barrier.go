package raftfsm

import (
	"context"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Barrier returns a state that contains every command acknowledged before the call. On another member than the
// metasrv leader it returns ErrNotLeader: the metasrv leader's own decisions rest on it. Reads use ReadBarrier.
//
// It takes the commit index, then proves that no newer leader existed when the call came in, then waits until the
// state has reached that index. Since LeaderEstablished of the term is applied, every later entry of the log up to
// the commit index reaches the state (commands and configurations; no-ops stand at the beginning of a term only), so
// the wait ends.
func (n *Node) Barrier(ctx context.Context) (state.View, error) {
	if err := n.awaitLeadership(ctx); err != nil {
		return nil, err
	}
	return n.behind(ctx, n.rounds.join(n.prove))
}

// confirm does what ReadBarrier does, but returns no state.
func (n *Node) confirm(ctx context.Context) error {
	if n.leading.Load() != nil || n.raft.State() == raft.Leader {
		if err := n.awaitLeadership(ctx); err != nil {
			return err
		}
		return n.await(ctx, n.rounds.join(n.prove))
	}
	return n.await(ctx, n.asks.join(n.askLeader))
}

// ReadBarrier returns what Barrier does, on any member: one that follows asks the metasrv leader for the index and
// waits until its own state has reached it. It asks after the call came in, so it may be paused at any point: the
// index was that of the metasrv leader after the call. ErrNotReady: the metasrv leader could not be asked, or could
// not prove that it still is; ErrNotLeader: the member knows none.
func (n *Node) ReadBarrier(ctx context.Context) (state.View, error) {
	if n.leading.Load() != nil || n.raft.State() == raft.Leader {
		return n.Barrier(ctx)
	}
	if broken("follower") {
		return n.View(), nil
	}
	return n.behind(ctx, n.asks.join(n.askLeader))
}

// behind returns the state once a round has ended and the state has reached its index.
func (n *Node) behind(ctx context.Context, r *round) (state.View, error) {
	if err := n.await(ctx, r); err != nil {
		return nil, err
	}
	return n.View(), nil
}

// await waits until a round has ended and the state has reached its index.
func (n *Node) await(ctx context.Context, r *round) error {
	select {
	case <-r.done:
	case <-ctx.Done():
		return ctx.Err()
	}
	if r.err != nil {
		return r.err
	}
	if err := n.fsm.current.reach(ctx, func(p *machine.Position) bool { return p.Index >= r.index }); err != nil {
		return err
	}
	if !r.reached {
		n.fresh.prove(r.began)
	}
	return nil
}

// round is one exchange that says how far the state must be, shared by all who were waiting when it began.
type round struct {
	done chan struct{}
	// The rest is set when done is closed.
	began time.Time
	index uint64
	// reached: the state had the index when the round ended.
	reached bool
	err     error
}

// rounds runs one exchange at a time. Who comes while one is under way joins the next.
type rounds struct {
	mu      sync.Mutex
	running bool
	next    *round
	wg      sync.WaitGroup
}

// join returns a round that begins after the call.
func (rs *rounds) join(exchange func(*round)) *round {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.next == nil {
		rs.next = &round{done: make(chan struct{})}
	}
	r := rs.next
	if !rs.running {
		rs.running = true
		rs.wg.Go(func() { rs.run(exchange) })
	}
	return r
}

func (rs *rounds) run(exchange func(*round)) {
	for {
		rs.mu.Lock()
		r := rs.next
		rs.next = nil
		rs.running = r != nil
		rs.mu.Unlock()
		if r == nil {
			return
		}
		r.began = time.Now()
		exchange(r)
		close(r.done)
	}
}

// prove fills in a round of the metasrv leader. The index is taken before the proof: what is committed meanwhile
// was not acknowledged before.
func (n *Node) prove(r *round) {
	l, ok := n.Leadership()
	if !ok {
		r.err = metasrv.ErrNotLeader.With("member %s is not the metasrv leader", n.cfg.MemberID)
		return
	}
	r.index = n.raft.CommitIndex()
	if broken("proof") {
		return
	}
	if r.err = n.proveTerm(n.ctx, l.Term); r.err == nil {
		n.reached(r)
	}
}

// askLeader fills in a round of a member that follows.
func (n *Node) askLeader(r *round) {
	addr, id := n.raft.LeaderWithID()
	switch string(id) {
	case "":
		r.err = metasrv.ErrNotLeader.With("there is no metasrv leader at present")
		return
	case n.cfg.MemberID:
		r.err = metasrv.ErrNotReady.With("member %s is taking over as metasrv leader", n.cfg.MemberID)
		return
	}
	response, err := n.leaderLink.ask(n.ctx, string(addr), n.cfg.Timing.PeerTimeout, n.barrierRequest(string(id)))
	if err != nil {
		r.err = metasrv.ErrNotReady.With("member %s can't tell whether its state is current, the metasrv leader %s did not say: %v",
			n.cfg.MemberID, id, err)
		return
	}
	r.index = response.GetBarrier().GetIndex()
	n.reached(r)
}

// reached notes the moment up to which the state is complete, where it has the index of the round already.
func (n *Node) reached(r *round) {
	if n.fsm.current.index() >= r.index {
		r.reached = true
		n.fresh.prove(r.began)
	}
}

// answerBarrier answers a member that follows. It waits while this one takes over: before that its commit index may
// be old.
func (n *Node) answerBarrier(ctx context.Context) *peerpb.Response {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.PeerTimeout)
	defer cancel()
	if err := n.awaitLeadership(ctx); err != nil {
		return &peerpb.Response{Error: err.Error()}
	}
	r := n.rounds.join(n.prove)
	select {
	case <-r.done:
	case <-ctx.Done():
		return &peerpb.Response{Error: "the metasrv leader could not prove in time that it is still that"}
	}
	if r.err != nil {
		return &peerpb.Response{Error: r.err.Error()}
	}
	return &peerpb.Response{Barrier: &peerpb.BarrierResponse{Index: r.index}}
}

func (n *Node) barrierRequest(to string) *peerpb.Request {
	return n.addressed(to, &peerpb.Request{Request: &peerpb.Request_Barrier{Barrier: &peerpb.BarrierRequest{}}})
}
