package raftfsm

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
)

// quickTimeout is how long the voters that answered last time are waited for before all are asked.
const quickTimeout = 50 * time.Millisecond

// voterLinks are the connections on which a metasrv leader asks the voters for their terms.
type voterLinks struct {
	links map[raft.ServerID]*peerLink
	// order has the voters that answered last first: with as few of them as make a majority a proof is cheapest.
	order []raft.ServerID
}

// proveTerm returns nil if a majority of the voters, asked now, is in no newer term: then no newer leader existed when
// proveTerm was called, for it would have moved a majority to its term. raft.VerifyLeader is no such proof, for it
// counts answers to messages sent before. It is called by one goroutine at a time.
func (n *Node) proveTerm(ctx context.Context, term uint64) error {
	if n.raft.State() != raft.Leader || n.raft.CurrentTerm() != term {
		return metasrv.ErrNotLeader.With("member %s is no longer the metasrv leader of term %d", n.cfg.MemberID, term)
	}
	others, need := othersToAsk(n.voters(), n.cfg.MemberID)
	if need == 0 || n.quickProof(ctx, others, need, term) {
		return nil
	}
	return n.fullProof(ctx, others, need, term)
}

// othersToAsk returns the voters other than this member, and how many of them make a majority of all, with this member
// if it votes: one that is about to be removed doesn't.
func othersToAsk(voters []raft.Server, self string) (others []raft.Server, need int) {
	need = len(voters)/2 + 1
	for _, s := range voters {
		if string(s.ID) == self {
			need--
			continue
		}
		others = append(others, s)
	}
	return others, need
}

// quickProof asks as few voters as are needed, on kept connections. False proves nothing: one of them is slow, gone or
// in a newer term.
func (n *Node) quickProof(ctx context.Context, voters []raft.Server, need int, term uint64) bool {
	asked := n.preferred(voters)[:need]
	deadline := time.Now().Add(min(quickTimeout, n.cfg.Timing.PeerTimeout))
	sent := 0
	for _, v := range asked {
		if n.voterLinks.link(n, v.ID).send(ctx, string(v.Address), deadline, n.termRequest(string(v.ID))) != nil {
			break
		}
		sent++
	}
	// Each answer that is under way is taken from its connection, or it would be taken for that to the next question.
	agreed := 0
	for _, v := range asked[:sent] {
		response, err := n.voterLinks.link(n, v.ID).receive()
		if err == nil && response.GetTerm().GetTerm() > 0 && response.GetTerm().GetTerm() <= term {
			agreed++
		}
	}
	return agreed == need
}

// preferred returns the voters with those first that answered first last time.
func (n *Node) preferred(voters []raft.Server) []raft.Server {
	rank := func(s raft.Server) int {
		if i := slices.Index(n.voterLinks.order, s.ID); i >= 0 {
			return i
		}
		return len(n.voterLinks.order)
	}
	slices.SortStableFunc(voters, func(a, b raft.Server) int { return rank(a) - rank(b) })
	return voters
}

// fullProof asks all other voters at once; need of them must agree.
func (n *Node) fullProof(ctx context.Context, voters []raft.Server, need int, term uint64) error {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.PeerTimeout)
	defer cancel()
	type answer struct {
		id   raft.ServerID
		term uint64
	}
	answers := make(chan answer, len(voters))
	for _, v := range voters {
		n.rounds.wg.Go(func() { answers <- answer{v.ID, n.askTerm(ctx, v)} })
	}
	var order []raft.ServerID
	agreed := 0
	for range voters {
		switch a := <-answers; {
		case a.term == 0: // no answer
		case a.term > term:
			return metasrv.ErrNotLeader.With("member %s was the metasrv leader of term %d, it is now term %d", n.cfg.MemberID, term, a.term)
		default:
			order = append(order, a.id)
			if agreed++; agreed >= need {
				n.voterLinks.order = order
				return nil
			}
		}
	}
	return metasrv.ErrNotReady.With("member %s reaches no majority of the members", n.cfg.MemberID)
}

// askTerm returns the term of another member, 0 if it doesn't answer.
func (n *Node) askTerm(ctx context.Context, server raft.Server) uint64 {
	response, err := n.peers.ask(ctx, string(server.Address), n.termRequest(string(server.ID)))
	if err != nil {
		return 0
	}
	return response.GetTerm().GetTerm()
}

func (n *Node) termRequest(to string) *peerpb.Request {
	return n.addressed(to, &peerpb.Request{Request: &peerpb.Request_Term{Term: &peerpb.TermRequest{}}})
}

func (v *voterLinks) link(n *Node, id raft.ServerID) *peerLink {
	if v.links == nil {
		v.links = make(map[raft.ServerID]*peerLink)
	}
	if v.links[id] == nil {
		v.links[id] = &peerLink{peers: n.peers}
	}
	return v.links[id]
}

func (v *voterLinks) close() {
	for _, l := range v.links {
		l.close()
	}
	v.links = nil
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
