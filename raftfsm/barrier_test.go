package raftfsm

import (
	"context"
	"errors"
	"net"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// answerTerms makes a member hear the given terms from the others, for an address without a term nothing.
func answerTerms(n *Node, terms map[string]uint64) {
	n.rounds.wg.Wait() // members that the last proof did not wait for are still being asked
	n.voterLinks.close()
	n.peers.close()
	n.peers = &peerClient{
		timeout: 200 * time.Millisecond,
		idle:    make(map[string][]net.Conn),
		dial: func(_ context.Context, addr string) (net.Conn, error) {
			term, answers := terms[addr]
			if !answers {
				return nil, errors.New("unreachable")
			}
			near, far := net.Pipe()
			n.wg.Go(func() {
				defer context.AfterFunc(n.ctx, func() { _ = far.Close() })()
				defer func() { _ = far.Close() }()
				servePeer(n.ctx, far, func(context.Context, *peerpb.Request) *peerpb.Response {
					return &peerpb.Response{Term: &peerpb.TermResponse{Term: term}}
				})
			})
			return near, nil
		},
	}
}

// Rule 3: what raft remembers of earlier messages proves nothing. A metasrv leader that was paused still believes
// to lead; only the present terms of the voters tell.
func TestBarrierAsksForThePresentTerm(t *testing.T) {
	c := newCluster(t, 3, unrefreshed)
	at, leader := c.leader()
	l, _ := leader.Leadership()
	b, d := c.servers[(at+1)%3].RaftAddr, c.servers[(at+2)%3].RaftAddr
	for _, test := range []struct {
		name  string
		terms map[string]uint64
		want  error
	}{
		{"all in the term", map[string]uint64{b: l.Term, d: l.Term}, nil},
		{"one in the term, one silent", map[string]uint64{b: l.Term}, nil},
		{"one that hasn't heard of the term yet", map[string]uint64{d: l.Term - 1}, nil},
		{"both in a newer term", map[string]uint64{b: l.Term + 1, d: l.Term + 1}, metasrv.ErrNotLeader},
		{"one in a newer term, one silent", map[string]uint64{b: l.Term + 1}, metasrv.ErrNotLeader},
		{"both silent", nil, metasrv.ErrNotReady},
	} {
		t.Run(test.name, func(t *testing.T) {
			answerTerms(leader, test.terms)
			_, err := leader.Barrier(within(t, 5*time.Second))
			if !errors.Is(err, test.want) {
				t.Errorf("barrier: %v, want %v", err, test.want)
			}
		})
	}
}

// Rule 2: until LeaderEstablished of the term is applied nothing is served.
func TestBarrierWaitsForTheTakeOver(t *testing.T) {
	c := newCluster(t, 1)
	_, n := c.leader()
	l := n.leading.Swap(nil) // as between the election and the take-over
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := n.Barrier(ctx); !errors.Is(err, metasrv.ErrNotReady) {
		t.Errorf("barrier before the take-over: %v, want ErrNotReady", err)
	}
	if _, err := put(ctx, n, "x", "1"); !errors.Is(err, metasrv.ErrNotReady) {
		t.Errorf("write before the take-over: %v, want ErrNotReady", err)
	}
	n.leading.Store(l)
	n.notifyLeading()
	if _, err := n.Barrier(t.Context()); err != nil {
		t.Errorf("barrier after the take-over: %v", err)
	}
}

// A barrier sees every write that was acknowledged before it, with many of both under way.
func TestBarrierSeesAcknowledgedWrites(t *testing.T) {
	c := newCluster(t, 3)
	_, leader := c.leader()
	ctx := within(t, time.Minute)
	done := make(chan error, 16)
	for w := range 16 {
		go func() {
			for i := range 30 {
				k := key(w*100 + i)
				if _, err := put(ctx, leader, k, "v"); err != nil {
					done <- err
					return
				}
				view, err := leader.Barrier(ctx)
				if err != nil || get(view, k) != "v" {
					done <- errors.Join(err, errors.New(k+" is not in the view of a barrier behind its write"))
					return
				}
			}
			done <- nil
		}()
	}
	for range 16 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestRoundsAreShared(t *testing.T) {
	var rs rounds
	begun, release := make(chan struct{}), make(chan struct{})
	proofs := 0
	prove := func(*round) {
		proofs++
		begun <- struct{}{}
		<-release
	}
	first := rs.join(prove)
	<-begun
	second, third := rs.join(prove), rs.join(prove)
	if second == first || second != third {
		t.Error("a request that came after the round had begun must wait for the next, with all that do")
	}
	release <- struct{}{}
	<-begun
	release <- struct{}{}
	<-third.done
	rs.wg.Wait()
	if proofs != 2 {
		t.Errorf("%d proofs for three requests, want 2", proofs)
	}
}

// Rule 4 across terms of one member: what was planned in an earlier term is refused in the next.
func TestPlanOfAnEarlierTermIsRefused(t *testing.T) {
	c := newCluster(t, 1)
	_, n := c.leader()
	l, _ := n.Leadership()
	c.stop(0)
	n = c.start(0)
	c.leader()
	now, _ := n.Leadership()
	if now.Term <= l.Term {
		t.Fatalf("term %d after a restart in term %d", now.Term, l.Term)
	}
	p := putProposal("x", "1")
	for term, want := range map[uint64]error{l.Term: metasrv.ErrStaleTerm, now.Term: nil} {
		p.PlannedTerm = term
		if _, err := n.Propose(t.Context(), p); !errors.Is(err, want) {
			t.Errorf("planned in term %d, proposed in %d: %v, want %v", term, now.Term, err, want)
		}
	}
}

// Rule 5: leader time goes on from where the cluster was, whatever the wall clock says.
func TestLeaderTimeContinues(t *testing.T) {
	c := newCluster(t, 1)
	_, n := c.leader()
	l, _ := n.Leadership()
	eventually(t, "leader time passes", func() bool { return l.Now() > 30 })
	if _, err := put(t.Context(), n, "x", "1"); err != nil {
		t.Fatal(err)
	}
	before := n.fsm.current.Load().view.Position().Now
	if before < 30 || before > state.LeaderTime(time.Hour.Milliseconds()) {
		t.Errorf("the state's leader time is %d ms", before)
	}
	c.stop(0)
	n = c.start(0)
	c.leader()
	l, _ = n.Leadership()
	if l.Now() < before {
		t.Errorf("leader time went back from %d to %d", before, l.Now())
	}
}
