package heartbeat

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// member is what a node says of itself that is in a group.
func member(nonce uint64, storage, group string) *metasrvpb.NodeInfo {
	i := info(nonce)
	i.KeepsLeases, i.StorageUuid, i.Group = true, storage, group
	return i
}

func join(t testing.TB, n *memory.Node, id uint64, storage, group string) *storagepb.NodeRecord {
	t.Helper()
	record, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(id), Info: member(id, storage, group)})
	if err != nil {
		t.Fatal(err)
	}
	return record
}

func change(t testing.TB, n state.Proposer, cmd *storagepb.ChangeGroup) (*storagepb.GroupRecord, error) {
	t.Helper()
	out, err := n.Propose(t.Context(), state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_GROUP, Payload: cmd})
	if err != nil {
		return nil, err
	}
	result := &storagepb.ChangeGroupResult{}
	if err := out.Decode(result); err != nil {
		t.Fatal(err)
	}
	return result.Group, nil
}

func electing(version, node uint64) *storagepb.ChangeGroup {
	return &storagepb.ChangeGroup{Name: "g", Version: version, Change: &storagepb.ChangeGroup_Elect{Elect: &storagepb.ElectWriter{NodeId: node}}}
}

func handing(version, node uint64) *storagepb.ChangeGroup {
	return &storagepb.ChangeGroup{Name: "g", Version: version, Change: &storagepb.ChangeGroup_HandOver{HandOver: &storagepb.HandOverGroup{NodeId: node}}}
}

func syncing(version, incarnation uint64, nodes ...uint64) *storagepb.ChangeGroup {
	return &storagepb.ChangeGroup{Name: "g", Version: version, Change: &storagepb.ChangeGroup_SetInSync{
		SetInSync: &storagepb.SetGroupInSync{NodeIds: nodes, Incarnation: incarnation},
	}}
}

// shape is what a group looks like: epoch, version, writer, successor, members with * for those in sync.
func shape(t testing.TB, v state.View) string {
	t.Helper()
	g, err := Group(v, "g")
	if err != nil {
		return "none"
	}
	s := fmt.Sprintf("e%d v%d w%d s%d:", g.Epoch, g.Version, g.WriterNodeId, g.SuccessorNodeId)
	for _, m := range g.Members {
		s += fmt.Sprintf(" %d", m.NodeId)
		if m.InSync {
			s += "*"
		}
	}
	return s
}

func TestGroupChanges(t *testing.T) {
	n := memory.New(NewApplier())
	step := func(want string, err, wantErr error) {
		t.Helper()
		if got := shape(t, n.View()); got != want || !errors.Is(err, wantErr) {
			t.Fatalf("%s, %v; want %s, %v", got, err, want, wantErr)
		}
	}
	do := func(cmd *storagepb.ChangeGroup, want string, wantErr error) {
		t.Helper()
		_, err := change(t, n, cmd)
		step(want, err, wantErr)
	}
	first := join(t, n, 1, "s1", "g")
	join(t, n, 1, "s1", "g") // the same again
	step("e0 v1 w0 s0: 1", nil, nil)
	join(t, n, 2, "s2", "g")
	join(t, n, 3, "s3", "g")
	step("e0 v3 w0 s0: 1 2 3", nil, nil)

	do(electing(2, 1), "e0 v3 w0 s0: 1 2 3", metasrv.ErrGroupChanged)
	do(electing(3, 9), "e0 v3 w0 s0: 1 2 3", metasrv.ErrNodeNotInGroup)
	do(electing(3, 1), "e1 v4 w1 s0: 1* 2 3", nil)
	do(electing(3, 1), "e1 v4 w1 s0: 1* 2 3", metasrv.ErrGroupChanged)
	do(electing(4, 2), "e1 v4 w1 s0: 1* 2 3", metasrv.ErrNodeNotInSync)
	do(handing(4, 2), "e1 v4 w1 s0: 1* 2 3", metasrv.ErrNodeNotInSync)

	i := first.Incarnation
	do(syncing(4, i+1, 1, 2), "e1 v4 w1 s0: 1* 2 3", metasrv.ErrStaleIncarnation)
	do(syncing(4, i, 2), "e1 v4 w1 s0: 1* 2 3", metasrv.ErrInvalidArgument)
	do(syncing(4, i, 1, 9), "e1 v4 w1 s0: 1* 2 3", metasrv.ErrNodeNotInGroup)
	do(syncing(4, i, 1, 2, 3), "e1 v5 w1 s0: 1* 2* 3*", nil)
	do(syncing(5, i, 1, 2, 3), "e1 v5 w1 s0: 1* 2* 3*", nil)

	// Rule 21: what comes back with other storage is in sync no longer.
	join(t, n, 3, "other", "g")
	step("e1 v6 w1 s0: 1* 2* 3", nil, nil)

	do(handing(6, 2), "e1 v7 w1 s2: 1* 2* 3", nil)
	do(handing(7, 2), "e1 v7 w1 s2: 1* 2* 3", nil)
	do(syncing(7, i, 1), "e1 v7 w1 s2: 1* 2* 3", metasrv.ErrGroupChanged)
	do(electing(7, 2), "e2 v8 w2 s0: 1* 2* 3", nil)
	failed := electing(8, 1)
	failed.GetElect().Failed = true
	do(failed, "e3 v9 w1 s0: 1* 2 3", nil)
	unclean := electing(9, 3)
	unclean.GetElect().Unclean = true
	do(unclean, "e4 v10 w3 s0: 1 2 3*", nil)

	// A node that goes elsewhere is a member no longer; the group's epochs go on.
	join(t, n, 3, "other", "h")
	step("e4 v11 w3 s0: 1 2", nil, nil)
	join(t, n, 1, "s1", "")
	join(t, n, 2, "s2", "")
	step("e4 v13 w3 s0:", nil, nil)
	if h, err := Group(n.View(), "h"); err != nil || len(h.Members) != 1 {
		t.Errorf("group h is %v, %v", h, err)
	}
}

// Rule 28: whom nobody could take over from is never elected.
func TestOnlyNodesThatKeepLeasesAreElected(t *testing.T) {
	n := memory.New(NewApplier())
	i := member(1, "s", "g")
	i.KeepsLeases = false
	j := member(2, "", "g")
	for id, info := range map[uint64]*metasrvpb.NodeInfo{1: i, 2: j} {
		if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(id), Info: info}); err != nil {
			t.Fatal(err)
		}
		if _, err := change(t, n, electing(id, id)); !errors.Is(err, metasrv.ErrNodeKeepsNoLease) && !errors.Is(err, metasrv.ErrGroupChanged) {
			t.Errorf("node %d: %v", id, err)
		}
	}
	if _, err := change(t, n, electing(2, 1)); !errors.Is(err, metasrv.ErrNodeKeepsNoLease) {
		t.Error(err)
	}
	if _, err := change(t, n, electing(2, 2)); !errors.Is(err, metasrv.ErrNodeKeepsNoLease) {
		t.Error(err)
	}
	// A node of the early public protocol leaves the group that its id was in.
	if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(1), Legacy: true}); err != nil {
		t.Fatal(err)
	}
	if got := shape(t, n.View()); got != "e0 v3 w0 s0: 2" {
		t.Error(got)
	}
}

func TestGroupNames(t *testing.T) {
	n := memory.New(NewApplier())
	for _, name := range []string{"a\nb", string(make([]byte, 200))} {
		if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(1), Info: member(1, "s", name)}); !errors.Is(err, metasrv.ErrInvalidArgument) {
			t.Errorf("%q: %v", name, err)
		}
	}
	frontend := member(1, "s", "g")
	frontend.Role = metasrvpb.NodeRole_NODE_ROLE_FRONTEND
	if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(1), Info: frontend}); !errors.Is(err, metasrv.ErrInvalidArgument) {
		t.Error(err)
	}
	if AnyGroup(n.View()) {
		t.Error("a group was made by nodes that were refused")
	}
}

// Members of an older build end at a group, so nobody is recorded to be in one before all know it.
func TestGroupsNeedTheirVersion(t *testing.T) {
	c := newCluster(t)
	c.Node = memory.NewAt(1, NewApplier(), c.confirmer, c.regions)
	c.lead(t, 1)
	s := c.session(t)
	req := firstBeat(1, 1)
	req.Node = member(1, "s", "g")
	resp := mustBeat(t, s, req)
	if resp.GetGroup() != nil || AnyGroup(c.Node.View()) {
		t.Errorf("answered %v", resp)
	}
	if _, err := change(t, c.Node, electing(1, 1)); !errors.Is(err, metasrv.ErrClusterVersion) {
		t.Error(err)
	}
}

// groupNode is a node of group g as metasrv sees it.
type groupNode struct {
	t        testing.TB
	s        *Session
	id       uint64
	nonce    uint64
	sequence uint64
}

func (c *cluster) groupNode(t testing.TB, id uint64) *groupNode {
	n := &groupNode{t: t, s: c.session(t), id: id, nonce: id}
	n.beat(0, 0, false)
	return n
}

func (n *groupNode) request(epoch, version uint64, leads bool, inSync ...uint64) *metasrvpb.HeartbeatRequest {
	n.sequence++
	req := &metasrvpb.HeartbeatRequest{
		Peer: peer(n.id), Sequence: n.sequence, FullReport: true, Digest: proto.Uint64(0), IsLeader: leads,
		Group: &metasrvpb.GroupReport{Epoch: epoch, Version: version},
	}
	if n.sequence == 1 {
		req.Node = member(n.nonce, fmt.Sprintf("s%d", n.id), "g")
	}
	for _, id := range inSync {
		req.ReplicaStats = append(req.ReplicaStats, &metasrvpb.ReplicaStat{Peer: peer(id), InSync: true})
	}
	return req
}

func (n *groupNode) beat(epoch, version uint64, leads bool, inSync ...uint64) *metasrvpb.GroupStatus {
	n.t.Helper()
	resp := mustBeat(n.t, n.s, n.request(epoch, version, leads, inSync...))
	if resp.GetLeaseMs() != 0 {
		n.t.Error("a node of a group got a lease of regions")
	}
	return resp.GetGroup()
}

// elected is a cluster with nodes 1, 2 and 3 in group g, whose writer is node 1 in epoch 1, version 4.
func elected(t testing.TB) (*cluster, []*groupNode) {
	c := newCluster(t)
	nodes := []*groupNode{c.groupNode(t, 1), c.groupNode(t, 2), c.groupNode(t, 3)}
	if _, err := change(t, c, electing(3, 1)); err != nil {
		t.Fatal(err)
	}
	return c, nodes
}

func wantGrant(t testing.TB, status *metasrvpb.GroupStatus, granted bool) {
	t.Helper()
	if status == nil || (status.LeaseMs == 3000) != granted || !granted && status.LeaseMs != 0 {
		t.Fatalf("told %v, want granted %t", status, granted)
	}
}

// Rules 17, 18: only the elected writer gets the lease, for the epoch that it has reported, and not while it is taken away.
func TestWriterLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, nodes := elected(t)
		time.Sleep(time.Second)
		before := c.tracker.LeaseEnd(1)
		wantGrant(t, nodes[0].beat(0, 0, false), false)
		wantGrant(t, nodes[0].beat(1, 4, false), false) // knows, and doesn't write yet
		wantGrant(t, nodes[1].beat(1, 4, true), false)  // says so without being elected
		if !c.tracker.LeaseEnd(1).Equal(before) {
			t.Fatal("a lease was recorded")
		}
		status := nodes[0].beat(1, 4, true)
		wantGrant(t, status, true)
		if got := c.tracker.LeaseEnd(1); !got.Equal(time.Now().Add(held)) {
			t.Errorf("the lease ends in %s", time.Until(got))
		}
		if status.GetName() != "g" || status.GetEpoch() != 1 || status.GetVersion() != 4 || status.GetWriter().GetId() != 1 || len(status.GetMembers()) != 3 {
			t.Errorf("told %v", status)
		}
		wantGrant(t, nodes[0].beat(0, 4, true), false) // of another epoch

		granted := time.Now()
		wantGrant(t, nodes[0].beat(1, 4, true), true)
		time.Sleep(time.Second)
		if end := c.tracker.WithholdWriter(1); !end.Equal(granted.Add(held)) {
			t.Errorf("the last lease ends in %s", time.Until(end))
		}
		wantGrant(t, nodes[0].beat(1, 4, true), false)
		if end := c.tracker.LeaseEnd(1); !end.Equal(granted.Add(held)) {
			t.Errorf("a beat moved the end of the lease to %s", time.Until(end))
		}
		c.tracker.ReleaseWriter(1)
		wantGrant(t, nodes[0].beat(1, 4, true), true)
	})
}

// Rule 17: a grant rests on what was committed when the request arrived, and on no state that is older.
func TestWriterGrantRestsOnBarrier(t *testing.T) {
	c, nodes := elected(t)
	nodes[0].beat(1, 4, true)
	wantGrant(t, nodes[0].beat(1, 4, true, 2), true)
	c.barrier = func(ctx context.Context) (state.View, error) {
		if _, err := change(t, c.Node, handing(5, 2)); err != nil {
			t.Error(err)
		}
		return c.Node.Barrier(ctx)
	}
	wantGrant(t, nodes[0].beat(1, 5, true, 2), false)
	c.barrier = func(context.Context) (state.View, error) { return nil, metasrv.ErrNotReady }
	if status := nodes[0].beat(1, 5, true, 2); status != nil {
		t.Errorf("without a barrier told %v", status)
	}
	c.barrier = func(context.Context) (state.View, error) { return nil, metasrv.ErrNotLeader }
	if _, err := nodes[0].s.HandleBeat(t.Context(), nodes[0].request(1, 5, true, 2)); !errors.Is(err, metasrv.ErrNotLeader) {
		t.Errorf("the stream goes on: %v", err)
	}
}

// Rule 5: as of a lease for regions, the length is that from before the barrier.
func TestLengthOfWritersLease(t *testing.T) {
	c, nodes := elected(t)
	nodes[0].beat(1, 4, true)
	c.tracker.SetLease(2*time.Second, 3*time.Second)
	c.barrier = func(ctx context.Context) (state.View, error) {
		view, err := c.Node.Barrier(ctx)
		c.tracker.SetLease(time.Hour, 0)
		return view, err
	}
	if status := nodes[0].beat(1, 4, true); status.GetLeaseMs() != 2000 || time.Until(c.tracker.LeaseEnd(1)) > held {
		t.Errorf("told %v, and recorded a lease of %s", status, time.Until(c.tracker.LeaseEnd(1)))
	}
}

// Rule 19: who took over from a process that asked for a growth gets no lease before it knows the in-sync set.
func TestSuccessorOfAProcessMustKnowTheInSyncSet(t *testing.T) {
	c, nodes := elected(t)
	wantGrant(t, nodes[0].beat(1, 4, true), true)
	wantGrant(t, nodes[0].beat(1, 4, true, 2), true) // asks for node 2, which makes version 5
	wantGrant(t, nodes[0].beat(1, 4, true, 2), true) // this process knows what it has asked for
	again := &groupNode{t: t, s: c.session(t), id: 1, nonce: 77}
	wantGrant(t, again.beat(1, 4, true), false)
	if got := shape(t, c.Node.View()); got != "e1 v5 w1 s0: 1* 2* 3" {
		t.Fatal(got)
	}
	wantGrant(t, again.beat(1, 5, true, 2), true)
}

func TestWriterAsksForTheInSyncSet(t *testing.T) {
	c, nodes := elected(t)
	want := func(shapeWanted string) {
		t.Helper()
		if got := shape(t, c.Node.View()); got != shapeWanted {
			t.Fatalf("%s, want %s", got, shapeWanted)
		}
	}
	nodes[1].beat(1, 4, true, 3) // not the writer
	want("e1 v4 w1 s0: 1* 2 3")
	nodes[0].beat(1, 4, true, 2, 3, 99)
	want("e1 v5 w1 s0: 1* 2* 3*")
	nodes[0].beat(1, 4, true, 2) // what it asks for rests on what it knows
	want("e1 v5 w1 s0: 1* 2* 3*")
	learner := nodes[0].request(1, 5, true, 2, 3)
	learner.ReplicaStats[1].IsLearner = true
	mustBeat(t, nodes[0].s, learner)
	want("e1 v6 w1 s0: 1* 2* 3")
}

// A growth whose outcome nobody knows may yet be carried out: until a command behind it in the log was, nothing is told that
// the writer could take for an answer.
func TestInSyncSetOfUnknownOutcome(t *testing.T) {
	c, nodes := elected(t)
	late := state.Proposal{}
	c.propose = func(p state.Proposal) error {
		late = p
		return metasrv.ErrOutcomeUnknown
	}
	if status := nodes[0].beat(1, 4, true, 2); status != nil {
		t.Fatalf("told %v", status)
	}
	// It wants nothing any more, and that is proposed too.
	if status := nodes[0].beat(1, 4, true); status != nil {
		t.Fatalf("told %v", status)
	}
	// Nor is another stream of the process answered, or another change pushed.
	again := &groupNode{t: t, s: c.session(t), id: 1, nonce: 1}
	if status := again.beat(1, 4, true); status != nil {
		t.Fatalf("told %v", status)
	}
	c.tracker.touch(1, (*heard).markGroup)
	if resp, err := again.s.Push(t.Context()); resp != nil || err != nil {
		t.Fatalf("pushed %v, %v", resp, err)
	}
	c.propose = nil
	late.Payload.(*storagepb.ChangeGroup).GetSetInSync().NodeIds = []uint64{1, 2}
	if _, err := c.Node.Propose(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	status := again.beat(1, 4, true)
	if status.GetVersion() != 5 || !status.GetMembers()[1].GetInSync() {
		t.Errorf("told %v", status)
	}
}

// What has changed is told at once, to all.
func TestGroupIsPushed(t *testing.T) {
	c, nodes := elected(t)
	if err := c.dispatcher.reach(t.Context(), c.Node.View()); err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes {
		resp, err := n.s.Push(t.Context())
		if err != nil || resp.GetGroup().GetWriter().GetId() != 1 || resp.GetSequence() != n.sequence {
			t.Fatalf("pushed %v, %v", resp, err)
		}
		if resp, err := n.s.Push(t.Context()); resp != nil || err != nil {
			t.Errorf("pushed again %v, %v", resp, err)
		}
	}
}
