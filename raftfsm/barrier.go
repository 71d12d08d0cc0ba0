package raftfsm

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Barrier returns a state that contains every command acknowledged before the call. On another member than the
// metasrv leader it returns ErrNotLeader.
//
// It takes the commit index, then proves that no newer leader existed when the call came in, then waits until the
// state has reached that index. The proof: a majority of voters, asked after the call came in, is in no newer term
// than this leader; a newer leader would have moved a majority to its term. raft.VerifyLeader is no such proof, for
// it counts answers to messages sent before.
//
// Since LeaderEstablished of the term is applied, every later entry of the log up to the commit index reaches the
// state (commands and configurations; no-ops stand at the beginning of a term only), so the wait ends.
func (n *Node) Barrier(ctx context.Context) (state.View, error) {
	if err := n.awaitLeadership(ctx); err != nil {
		return nil, err
	}
	r := n.rounds.join(func(r *round) { n.prove(r) })
	select {
	case <-r.done:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if r.err != nil {
		return nil, r.err
	}
	a, err := n.fsm.current.wait(ctx, func(p *machine.Position) bool { return p.Index >= r.index })
	if err != nil {
		return nil, err
	}
	return a.view, nil
}

// round is one proof of leadership, shared by all who were waiting when it began.
type round struct {
	done chan struct{}
	// index and err are set when done is closed.
	index uint64
	err   error
}

// rounds runs one proof at a time. Who comes while one is under way joins the next.
type rounds struct {
	mu      sync.Mutex
	running bool
	next    *round
	wg      sync.WaitGroup
}

// join returns a round that begins after the call.
func (rs *rounds) join(prove func(*round)) *round {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	if rs.next == nil {
		rs.next = &round{done: make(chan struct{})}
	}
	r := rs.next
	if !rs.running {
		rs.running = true
		rs.wg.Go(func() { rs.run(prove) })
	}
	return r
}

func (rs *rounds) run(prove func(*round)) {
	for {
		rs.mu.Lock()
		r := rs.next
		rs.next = nil
		rs.running = r != nil
		rs.mu.Unlock()
		if r == nil {
			return
		}
		prove(r)
		close(r.done)
	}
}

// prove fills in a round.
func (n *Node) prove(r *round) {
	l, ok := n.Leadership()
	if !ok {
		r.err = metasrv.ErrNotLeader.With("member %s is not the metasrv leader", n.cfg.MemberID)
		return
	}
	r.index = n.raft.CommitIndex()
	r.err = n.proveTerm(n.ctx, l.Term)
}

// proveTerm returns nil if a majority of the voters, asked now, is in no newer term.
func (n *Node) proveTerm(ctx context.Context, term uint64) error {
	voters := n.voters()
	need := len(voters)/2 + 1
	if n.raft.State() != raft.Leader || n.raft.CurrentTerm() != term {
		return metasrv.ErrNotLeader.With("member %s is no longer the metasrv leader of term %d", n.cfg.MemberID, term)
	}
	if need == 1 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.PeerTimeout)
	defer cancel()
	terms := make(chan uint64, len(voters))
	asked := 0
	for _, v := range voters {
		if string(v.ID) == n.cfg.MemberID {
			continue
		}
		asked++
		n.rounds.wg.Go(func() { terms <- n.askTerm(ctx, v) })
	}
	for agreed := 1; asked > 0; asked-- {
		switch t := <-terms; {
		case t == 0: // no answer
		case t > term:
			return metasrv.ErrNotLeader.With("member %s was the metasrv leader of term %d, it is now term %d", n.cfg.MemberID, term, t)
		default:
			if agreed++; agreed >= need {
				return nil
			}
		}
	}
	return metasrv.ErrNotReady.With("member %s reaches no majority of the members", n.cfg.MemberID)
}

// askTerm returns the term of another member, 0 if it doesn't answer.
func (n *Node) askTerm(ctx context.Context, server raft.Server) uint64 {
	response, err := n.peers.ask(ctx, string(server.Address), &peerpb.Request{
		Request: &peerpb.Request_Term{Term: &peerpb.TermRequest{}},
	})
	if err != nil {
		return 0
	}
	return response.GetTerm().GetTerm()
}

// voters returns the members that vote.
func (n *Node) voters() []raft.Server {
	var voters []raft.Server
	for _, s := range n.configuration().Servers {
		if s.Suffrage == raft.Voter {
			voters = append(voters, s)
		}
	}
	return voters
}
