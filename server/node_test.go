package server

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// testNode is a member over the state machine in memory, whose leadership the test decides.
type testNode struct {
	*memory.Node
	Membership // of the real one only
	self       *storagepb.MemberRecord
	duties     func(context.Context, raftfsm.Leadership) error

	mu         sync.Mutex
	leader     *storagepb.MemberRecord
	leadership *raftfsm.Leadership
	term       uint64
	endTerm    func()
	failed     chan struct{}
	err        error
	// age is what Age returns, 0 for unknown.
	age time.Duration
	// diskOut is why nothing can be written, nil where it can.
	diskOut error
	// proposed is that of hook.
	proposed func(context.Context, state.Proposal)
	// shortage is why a majority takes nothing, nil where it does.
	shortage error
	// onBarrier, if set, is called by Barrier and ReadBarrier first.
	onBarrier atomic.Pointer[func()]
	// onPropose, if set, is called by Propose first.
	onPropose atomic.Pointer[func(storagepb.CommandKind)]
}

const (
	testMember = "m1"
	// otherAddr is where the other member serves clients; nobody dials it.
	otherAddr = "10.0.0.2:3002"
)

func newTestNode(s *Server) *testNode {
	return &testNode{
		Node:   memory.New(Appliers()...),
		self:   &storagepb.MemberRecord{Id: testMember, GrpcAddr: s.GRPCAddr(), HttpAddr: s.HTTPAddr(), RaftAddr: s.RaftAddr(), Version: "test"},
		duties: s.duties.run,
		failed: make(chan struct{}),
	}
}

// lead makes the node the metasrv leader of a new term.
func (n *testNode) lead(t *testing.T) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.term++
	n.SetTerm(n.term)
	n.leader = n.self
	if _, err := n.Node.Propose(t.Context(), state.Proposal{
		Kind:    storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED,
		Payload: &storagepb.LeaderEstablished{Term: n.term, Member: n.self, ProposedClusterId: memory.ClusterID},
	}); err != nil {
		t.Fatal(err)
	}
	l := raftfsm.Leadership{Term: n.term, Now: n.Now}
	n.leadership = &l
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := n.duties(ctx, l); err != nil {
			t.Errorf("duties of term %d: %v", l.Term, err)
		}
	}()
	n.endTerm = func() {
		cancel()
		<-done
	}
}

// follow makes the node a follower of another member, or of none where leader is nil.
func (n *testNode) follow(leader *storagepb.MemberRecord) {
	n.mu.Lock()
	end := n.endTerm
	n.leader, n.leadership, n.endTerm = leader, nil, nil
	n.mu.Unlock()
	if end != nil {
		end()
	}
}

func otherMember() *storagepb.MemberRecord {
	return &storagepb.MemberRecord{Id: "m2", GrpcAddr: otherAddr}
}

func (n *testNode) Propose(ctx context.Context, p state.Proposal) (state.Result, error) {
	if _, ok := n.Leadership(); !ok {
		return state.Result{}, metasrv.ErrNotLeader.With("the test node does not lead")
	}
	if f := n.onPropose.Load(); f != nil {
		(*f)(p.Kind)
	}
	r, err := n.Node.Propose(ctx, p)
	n.mu.Lock()
	hook := n.proposed
	n.mu.Unlock()
	if err == nil && hook != nil {
		hook(ctx, p)
	}
	return r, err
}

// hook has f called with all that is executed from now on, before its proposer hears of it.
func (n *testNode) hook(f func(context.Context, state.Proposal)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.proposed = f
}

func (n *testNode) Barrier(ctx context.Context) (state.View, error) {
	if f := n.onBarrier.Load(); f != nil {
		(*f)()
	}
	if _, ok := n.Leadership(); !ok {
		return nil, metasrv.ErrNotLeader.With("the test node does not lead")
	}
	return n.Node.Barrier(ctx)
}

// ReadBarrier is answered where the metasrv leader is known: by it.
func (n *testNode) ReadBarrier(ctx context.Context) (state.View, error) {
	if f := n.onBarrier.Load(); f != nil {
		(*f)()
	}
	if _, ok := n.Leader(); !ok {
		return nil, metasrv.ErrNotLeader.With("the test node knows no metasrv leader")
	}
	return n.Node.Barrier(ctx)
}

func (n *testNode) Age() (time.Duration, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.age, n.age > 0
}

func (n *testNode) setAge(age time.Duration) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.age = age
}

func (n *testNode) WaitRevision(ctx context.Context, revision uint64) (state.View, error) {
	for {
		view := n.View()
		if view.Revision() >= revision {
			return view, nil
		}
		if _, err := n.Read(ctx, view.Revision()+1); err != nil {
			return nil, err
		}
	}
}

func (n *testNode) Leader() (*storagepb.MemberRecord, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.leader, n.leader != nil
}

func (n *testNode) Leadership() (raftfsm.Leadership, bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.leadership == nil {
		return raftfsm.Leadership{}, false
	}
	return *n.leadership, true
}

func (n *testNode) Members() []raftfsm.Member {
	leader, _ := n.Leader()
	return []raftfsm.Member{
		{Record: otherMember(), Voter: true, Leader: leader.GetId() == "m2"},
		{Record: n.self, Voter: true, Leader: leader.GetId() == testMember},
	}
}

func (n *testNode) Status() raftfsm.Status {
	view := n.View()
	n.mu.Lock()
	defer n.mu.Unlock()
	return raftfsm.Status{Term: n.term, Revision: view.Revision(), State: "Follower", ClusterID: machine.ClusterID(view), CaughtUp: true,
		DiskOut: n.diskOut != nil, DiskFull: n.diskOut, Quarantined: machine.Quarantined(view) != nil}
}

func (n *testNode) Hashes() raftfsm.Hashes {
	view := n.View().(*machine.View)
	return raftfsm.Hashes{Index: view.Position().Index, Hash: view.Hash(), Earlier: map[uint64]uint64{256: 7, 128: 8}, Build: "test/1"}
}

func (n *testNode) Snapshot() snapshot.Snapshot {
	view := n.View().(*machine.View)
	return snapshot.Snapshot{
		Meta:  &storagepb.ImageMeta{Version: snapshot.Version, Revision: view.Revision(), Keys: uint64(view.Len())},
		Pairs: view.Ascend("", ""),
	}
}

func (n *testNode) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.err = err
	close(n.failed)
}

func (n *testNode) Done() <-chan struct{} { return n.failed }

func (n *testNode) Err() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.err
}

func (n *testNode) Close(context.Context) error {
	n.follow(nil)
	return nil
}

func (n *testNode) Shortage() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.shortage
}

func (n *testNode) Glance(use func(state.View)) { use(n.View()) }
func (n *testNode) WhileMapped(func())          {}
