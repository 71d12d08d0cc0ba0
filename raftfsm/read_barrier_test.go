package raftfsm

import (
	"bufio"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metasrv/metasrv"
	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
)

// unrefreshed keeps members from asking for barriers on their own.
func unrefreshed(c *cluster) { c.timing.Fresh = 0 }

// refused reports whether a barrier was refused because the metasrv leader is not known or can't prove that it is one:
// on a busy machine it may also step down by itself.
func refused(err error) bool {
	return errors.Is(err, metasrv.ErrNotReady) || errors.Is(err, metasrv.ErrNotLeader)
}

// calm keeps members from electing while links are cut or slow.
func (c *cluster) calm() {
	c.t.Helper()
	c.leader()
	for _, n := range c.nodes {
		r := n.raft.ReloadableConfig()
		r.HeartbeatTimeout, r.ElectionTimeout = time.Minute, time.Minute
		if err := n.raft.ReloadConfig(r); err != nil {
			c.t.Fatal(err)
		}
	}
}

// followers returns the members that follow.
func (c *cluster) followers() []*Node {
	at, _ := c.leader()
	var nodes []*Node
	for i, n := range c.nodes {
		if i != at && n != nil {
			nodes = append(nodes, n)
		}
	}
	return nodes
}

// A barrier on any member sees every write that was acknowledged before it, with many of both under way, also where the
// leadership changes meanwhile.
func TestReadBarrierSeesAcknowledgedWrites(t *testing.T) {
	c := newCluster(t, 3)
	ctx := within(t, time.Minute)
	var wg sync.WaitGroup
	for w, n := range append(c.followers(), c.followers()...) {
		wg.Go(func() {
			for i := range 50 {
				k := key(w*100 + i)
				retry(ctx, t, func() error { return c.putAnywhere(ctx, k) })
				retry(ctx, t, func() error {
					view, err := n.ReadBarrier(ctx)
					if err == nil && get(view, k) != "v" {
						t.Errorf("%s is not in the view of a barrier behind its write", k)
					}
					return err
				})
			}
		})
	}
	wg.Wait()
}

// What members do every second or two takes no view: the machine would copy each page that it then writes to.
func TestLooksThatRepeatTakeNoView(t *testing.T) {
	c := newCluster(t, 3, unrefreshed)
	ctx := within(t, time.Minute)
	for _, n := range c.followers() {
		n.fsm.current.wanted.Store(false)
		retry(ctx, t, func() error { return n.confirm(ctx) })
		if _, known := n.Age(); !known {
			t.Error("a member that has asked the metasrv leader doesn't know how old its state is")
		}
		n.answerHistory(&peerpb.HistoryRequest{MemberId: "x"})
		if n.fsm.current.wanted.Load() {
			t.Error("a look that repeats took a view")
		}
	}
}

// retry repeats f while there is no metasrv leader that answers.
func retry(ctx context.Context, t *testing.T, f func() error) {
	for {
		err := f()
		switch {
		case err == nil:
			return
		case ctx.Err() != nil, !errors.Is(err, metasrv.ErrNotLeader) && !errors.Is(err, metasrv.ErrNotReady) && !errors.Is(err, metasrv.ErrOutcomeUnknown):
			t.Error(err)
			return
		}
		select {
		case <-time.After(10 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

// putAnywhere writes by whichever member is the metasrv leader.
func (c *cluster) putAnywhere(ctx context.Context, key string) error {
	for _, n := range c.nodes {
		if _, leads := n.Leadership(); leads {
			_, err := put(ctx, n, key, "v")
			return err
		}
	}
	return metasrv.ErrNotLeader
}

// gate lets a test hold the answers that a member gets from the metasrv leader.
type gate struct {
	held  chan struct{}
	asked chan struct{}
}

// hold makes a member's questions to the metasrv leader wait on their way back: the answer was made, but has not
// arrived. It returns the function that lets them through.
func hold(n *Node) (asked <-chan struct{}, release func()) {
	g := &gate{held: make(chan struct{}), asked: make(chan struct{}, 64)}
	dial := n.peers.dial
	n.leaderLink.close()
	n.leaderLink.peers = &peerClient{timeout: n.peers.timeout, dial: func(ctx context.Context, addr string) (net.Conn, error) {
		conn, err := dial(ctx, addr)
		if err != nil {
			return nil, err
		}
		return &gatedConn{Conn: conn, gate: g}, nil
	}}
	return g.asked, func() { close(g.held) }
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if err == nil {
		c.gate.asked <- struct{}{}
		<-c.gate.held
	}
	return n, err
}

// Rule 3 on a member that follows: an answer of the metasrv leader counts only for those who were waiting when it was
// asked for. Who comes later, with the answer still under way, waits for the next; all who do share that.
func TestReadBarrierAsksAfterItsCall(t *testing.T) {
	c := newCluster(t, 3, unrefreshed)
	_, leader := c.leader()
	n := c.followers()[0]
	ctx := within(t, 30*time.Second)
	if _, err := put(ctx, leader, "x", "1"); err != nil {
		t.Fatal(err)
	}
	asked, release := hold(n)
	type answer struct {
		x   string
		err error
	}
	read := func(answers chan<- answer) {
		view, err := n.ReadBarrier(ctx)
		if err != nil {
			answers <- answer{err: err}
			return
		}
		answers <- answer{x: get(view, "x")}
	}
	early, late := make(chan answer, 1), make(chan answer, 8)
	go read(early)
	<-asked
	if _, err := put(ctx, leader, "x", "2"); err != nil {
		t.Fatal(err)
	}
	for range cap(late) {
		go read(late)
	}
	eventually(t, "the late ones wait", func() bool {
		n.asks.mu.Lock()
		defer n.asks.mu.Unlock()
		return n.asks.next != nil
	})
	release()
	if a := <-early; a.err != nil {
		t.Error(a.err)
	}
	for range cap(late) {
		if a := <-late; a.err != nil || a.x != "2" {
			t.Errorf("a barrier after the write of 2 has %s: %v", a.x, a.err)
		}
	}
	if n := len(asked); n > cap(late)-1 {
		t.Errorf("%d exchanges for %d who waited together", n, cap(late))
	}
}

// A member that follows waits until its own state has the index: the answer of the metasrv leader alone is not enough.
func TestReadBarrierWaitsForItsOwnState(t *testing.T) {
	c := newCluster(t, 3, unrefreshed)
	_, leader := c.leader()
	n := c.followers()[0]
	ctx := within(t, 30*time.Second)
	n.fsm.mu.Lock() // its state stands still from here on
	_, err := put(ctx, leader, "x", "1")
	if err != nil {
		n.fsm.mu.Unlock()
		t.Fatal(err)
	}
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	view, err := n.ReadBarrier(short)
	n.fsm.mu.Unlock()
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a barrier on a state that lacks the write returned %v, %v", view, err)
	}
	if view, err = n.ReadBarrier(ctx); err != nil || get(view, "x") != "1" {
		t.Errorf("after that: %v", err)
	}
}

// Rule 2 for the barriers of other members: the metasrv leader answers none before its term is established.
func TestReadBarrierWaitsForTheTakeOver(t *testing.T) {
	c := newCluster(t, 3, unrefreshed, func(c *cluster) { c.timing.PeerTimeout = 100 * time.Millisecond })
	c.calm()
	_, leader := c.leader()
	n := c.followers()[0]
	if _, err := n.ReadBarrier(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	l := leader.leading.Swap(nil) // as between the election and the take-over
	if _, err := n.ReadBarrier(within(t, 10*time.Second)); !refused(err) {
		t.Errorf("barrier before the take-over: %v, want ErrNotReady", err)
	}
	leader.leading.Store(l)
	leader.notifyLeading()
	eventually(t, "barriers after the take-over", func() bool {
		_, err := n.ReadBarrier(within(t, 10*time.Second))
		return err == nil
	})
}

// A metasrv leader that was deposed while it was cut off answers no member: neither itself nor one that still follows it.
func TestDeposedLeaderAnswersNoBarrier(t *testing.T) {
	c := newCluster(t, 3, unrefreshed, func(c *cluster) { c.timing.PeerTimeout = 300 * time.Millisecond })
	c.calm()
	at, leader := c.leader()
	l, _ := leader.Leadership()
	n := c.followers()[0]
	terms := map[string]uint64{}
	for i, s := range c.servers {
		if i != at {
			terms[s.RaftAddr] = l.Term + 1 // as after an election that the leader has not heard of
		}
	}
	answerTerms(leader, terms)
	if _, err := leader.ReadBarrier(within(t, 10*time.Second)); !errors.Is(err, metasrv.ErrNotLeader) {
		t.Errorf("barrier on a deposed leader: %v, want ErrNotLeader", err)
	}
	if _, err := n.ReadBarrier(within(t, 10*time.Second)); !refused(err) {
		t.Errorf("barrier that asks a deposed leader: %v, want ErrNotReady", err)
	}
}

// A member that is cut off from the metasrv leader answers no linearizable read, and says that its state grows old.
func TestCutOffMemberTellsItsAge(t *testing.T) { synctest.Test(t, cutOffMemberTellsItsAge) }

func cutOffMemberTellsItsAge(t *testing.T) {
	c := newCluster(t, 3, func(c *cluster) {
		c.timing.PeerTimeout, c.timing.Fresh = 200*time.Millisecond, 20*time.Millisecond
	})
	c.calm()
	_, leader := c.leader()
	n := c.followers()[0]
	eventually(t, "the age is known", func() bool { _, known := n.Age(); return known })
	c.net.Cut(n.cfg.RaftAddr)
	cut := time.Now()
	if _, err := n.ReadBarrier(within(t, 10*time.Second)); !refused(err) {
		t.Errorf("barrier on a member that is cut off: %v, want ErrNotReady", err)
	}
	if _, err := put(within(t, 30*time.Second), leader, "x", "1"); err != nil {
		t.Fatal(err)
	}
	acknowledged := time.Now()
	eventually(t, "the age tells of the write that is missing", func() bool {
		before := time.Now()
		age, _ := n.Age()
		if get(n.View(), "x") == "1" {
			t.Fatal("the write reached a member that is cut off")
		}
		if before.Add(-age).After(acknowledged) {
			t.Fatalf("%s after the write the member says that it lacks only what is newer than %s", before.Sub(acknowledged), age)
		}
		return age > time.Since(cut) && age > 300*time.Millisecond
	})
	c.net.Heal(n.cfg.RaftAddr)
	eventually(t, "the member is current again", func() bool {
		age, known := n.Age()
		return known && age < time.Since(acknowledged) && get(n.View(), "x") == "1"
	})
}

// A proof that begins with the voters that answered last time must do without them when they stop.
func TestProofAsksOtherVotersWhenOneStops(t *testing.T) {
	c := newCluster(t, 3, unrefreshed)
	c.calm()
	_, leader := c.leader()
	if _, err := leader.Barrier(within(t, 10*time.Second)); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.followers() {
		c.net.Cut(n.cfg.RaftAddr)
		if _, err := leader.Barrier(within(t, 10*time.Second)); err != nil {
			t.Errorf("with member %s cut off: %v", n.cfg.MemberID, err)
		}
		c.net.Heal(n.cfg.RaftAddr)
	}
}

// An answer that comes after its question was given up must not count for the next question.
func TestLateAnswerIsDropped(t *testing.T) {
	near, far := net.Pipe()
	dials := 0
	l := &peerLink{peers: &peerClient{dial: func(context.Context, string) (net.Conn, error) {
		dials++
		if dials > 1 {
			return nil, errors.New("no second connection")
		}
		return near, nil
	}}}
	defer l.close()
	served := make(chan struct{})
	go func() {
		defer close(served)
		r, w := messageReader{r: bufio.NewReader(far)}, messageWriter{}
		_ = r.read(&peerpb.Request{})
		time.Sleep(20 * time.Millisecond) // beyond the deadline of the question
		_ = w.write(far, &peerpb.Response{Barrier: &peerpb.BarrierResponse{Index: 7}})
	}()
	question := &peerpb.Request{Request: &peerpb.Request_Barrier{Barrier: &peerpb.BarrierRequest{}}}
	if _, err := l.ask(t.Context(), "x", 10*time.Millisecond, question); err == nil {
		t.Error("an answer in time, want none")
	}
	if response, err := l.ask(t.Context(), "x", time.Second, question); err == nil {
		t.Errorf("the next question was answered with %v", response)
	}
	<-served
	_ = far.Close()
}
