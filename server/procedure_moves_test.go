package server

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func drain(node uint64) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_DrainNode{DrainNode: &metasrvpb.DrainNode{NodeId: node}}}
}

func removeNode(node uint64, force, lose bool) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_RemoveNode{
		RemoveNode: &metasrvpb.RemoveNode{NodeId: node, Force: force, AcceptDataLoss: lose},
	}}
}

func setReplicas(table string, n uint32) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_SetTableReplicas{
		SetTableReplicas: &metasrvpb.SetTableReplicas{TableName: tableName(table), Replicas: n},
	}}
}

func (c *simCluster) node(id uint64) *metasrvpb.Node {
	c.t.Helper()
	resp, err := c.m.cluster().GetNode(timeout(c.t), &metasrvpb.GetNodeRequest{NodeId: id})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.GetNode()
}

// contains reports whether a text has all parts.
func contains(text string, parts ...string) bool {
	for _, part := range parts {
		if !strings.Contains(text, part) {
			return false
		}
	}
	return true
}

// parts returns the parts of a procedure, also those that have ended.
func (c *simCluster) parts(id uint64) []*metasrvpb.Procedure {
	c.t.Helper()
	resp, err := c.m.cluster().ListProcedures(timeout(c.t), &metasrvpb.ListProceduresRequest{ParentId: id, Ended: true})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.GetProcedures()
}

// A drained node has nothing, gets nothing, and may be removed; its id is never given again.
func TestDrainAndRemoveNode(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 3)
	regions := slices.Concat(c.createTable("a", 3, 2), c.createTable("b", 3, 1), c.createTable("c", 3, 2))
	_, err := c.run(removeNode(1, false, false))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NODE_NOT_DRAINED"})

	p := c.mustRun(drain(1))
	if got := c.ended(p.GetProcedureId()); got.GetState() != done || got.GetProgressPermille() != 1000 {
		t.Fatalf("the drain ended as %v", got)
	}
	for _, region := range regions {
		if got := c.look(region); slices.Contains(got.inSync, 1) || got.leader == 1 || len(got.others) > 0 {
			t.Errorf("region %d is %+v", region, got)
		}
	}
	for _, part := range c.parts(p.GetProcedureId()) {
		if part.GetState() != done {
			t.Errorf("a part ended as %v", part)
		}
	}
	if n := c.node(1); n.GetDrain() != metasrvpb.NodeDrain_NODE_DRAIN_DRAINED || n.GetReplicas() != 0 {
		t.Errorf("the node is %v", n)
	}
	c.createTable("d", 3, 2)
	_, err = c.run(add(regions[0], 1))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NODE_DRAINING"})
	if n := c.node(1); n.GetReplicas() != 0 {
		t.Errorf("a drained node got %d replicas", n.GetReplicas())
	}

	if got := c.ended(c.mustRun(removeNode(1, false, false)).GetProcedureId()); got.GetState() != done {
		t.Fatalf("the removal ended as %v", got)
	}
	_, err = m.cluster().GetNode(timeout(t), &metasrvpb.GetNodeRequest{NodeId: 1})
	wantRefusal(t, err, refusal{Code: codes.NotFound, Reason: "NODE_NOT_FOUND"})
	for _, incarnation := range []uint64{0, 1} { // of a new process, and of the one that was there
		stream, err := metasrvpb.NewHeartbeatClient(m.conn).Heartbeat(timeout(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.Send(&metasrvpb.HeartbeatRequest{
			Peer: &metasrvpb.Peer{Id: 1, Addr: "127.0.0.1:1"}, Node: &metasrvpb.NodeInfo{RegistrationNonce: 99}, Sequence: 1, Incarnation: incarnation,
		}); err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NODE_REMOVED"})
	}
}

// The drain of a node goes on under another metasrv leader, and can be taken back; then the node gets replicas again.
func TestDrainUnderAnotherLeaderAndUndrain(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 2)
	regions := c.createTable("a", 3, 1)
	from := c.look(regions[0]).leader
	to := others(2, from)[0]
	c.nodes[to].change(func(n *simNode) { n.slow = true })
	p := c.mustRun(drain(from))
	eventually(t, "a part runs", func() bool { return len(c.parts(p.GetProcedureId())) > 0 })
	m.node.follow(otherMember())
	m.lead(t)
	if n := c.node(from); n.GetDrain() != metasrvpb.NodeDrain_NODE_DRAIN_DRAINING {
		t.Errorf("the node is %v", n)
	}
	if _, err := m.cluster().UndrainNode(timeout(t), &metasrvpb.UndrainNodeRequest{NodeId: from}); err != nil {
		t.Fatal(err)
	}
	if got := c.ended(p.GetProcedureId()); got.GetState() != metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED {
		t.Errorf("the drain ended as %v", got)
	}
	for _, part := range c.parts(p.GetProcedureId()) {
		if part.GetState() != metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED {
			t.Errorf("a part ended as %v", part)
		}
	}
	if n := c.node(from); n.GetDrain() != metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED {
		t.Errorf("the node is %v", n)
	}
	c.nodes[to].change(func(n *simNode) { n.slow = false })
	p = c.mustRun(drain(from))
	m.node.follow(otherMember())
	m.lead(t)
	if got := c.ended(p.GetProcedureId()); got.GetState() != done {
		t.Errorf("the second drain ended as %v", got)
	}
	if _, err := m.cluster().UndrainNode(timeout(t), &metasrvpb.UndrainNodeRequest{NodeId: from}); err != nil {
		t.Fatal(err)
	}
	if n := c.node(from); n.GetDrain() != metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED {
		t.Errorf("after the second drain, the node is %v", n)
	}
}

// A drain waits where no node can take a replica, and says why.
func TestDrainSaysWhyItWaits(t *testing.T) {
	c := newSimCluster(t, startLeader(t, simulated), 2)
	c.createTable("a", 1, 2)
	p := c.mustRun(drain(1))
	eventually(t, "it says why", func() bool {
		return contains(c.procedure(p.GetProcedureId()).GetWaitingFor(), "can't be moved", "no datanode can take a replica beside")
	})
	c.start(3)
	if got := c.ended(p.GetProcedureId()); got.GetState() != done {
		t.Errorf("the drain ended as %v", got)
	}
}

func mortal(c *Config) {
	simulated(c)
	c.SuspectAfter, c.DownAfter = 500*time.Millisecond, time.Second
}

// A node that died is removed with force: its replicas leave their regions. Where it has the last in-sync replica of one, that
// takes more than force; then the table can still be dropped.
func TestRemoveDeadNode(t *testing.T) {
	m := startLeader(t, mortal)
	c := newSimCluster(t, m, 2)
	both, alone := c.createTable("a", 3, 2), c.createTable("b", 3, 1)
	c.createTable("c", 3, 2)
	dead := c.look(alone[0]).leader
	left := others(2, dead)[0]
	_, err := c.run(removeNode(dead, true, false))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NODE_NOT_DRAINED"})
	c.nodes[dead].stop()
	eventually(t, "the node is down", func() bool { return c.node(dead).GetState() == metasrvpb.NodeState_NODE_STATE_DOWN })
	if _, err := m.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("c")}); err != nil {
		t.Fatal(err)
	}
	_, err = c.run(removeNode(dead, false, false))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NODE_NOT_DRAINED"})
	_, err = c.run(removeNode(dead, true, false))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "LAST_REPLICA"})
	if got := c.ended(c.mustRun(removeNode(dead, true, true)).GetProcedureId()); got.GetState() != done {
		t.Fatalf("the removal ended as %v", got)
	}
	for _, region := range both {
		if got := c.look(region); got.leader != left || !slices.Equal(got.inSync, []uint64{left}) || len(got.others) > 0 {
			t.Errorf("region %d is %+v", region, got)
		}
	}
	if got := c.region(alone[0]); !contains(got.GetProblem(), "was removed", "no replica that was in sync is left") {
		t.Errorf("the region that lost its only replica has the problem %q", got.GetProblem())
	}
	if _, err := m.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("b")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "both tables are forgotten", func() bool {
		resp, err := m.cluster().ListRegions(timeout(t), &metasrvpb.ListRegionsRequest{})
		return err == nil && len(resp.GetRegions()) == len(both)
	})
}

func TestSetReplicas(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 3)
	regions := c.createTable("a", 3, 1)
	for _, n := range []uint32{3, 2, 1} {
		if got := c.ended(c.mustRun(setReplicas("a", n)).GetProcedureId()); got.GetState() != done {
			t.Fatalf("%d replicas: %v", n, got)
		}
		for _, region := range regions {
			if got := c.look(region); len(got.inSync) != int(n) || len(got.others) > 0 {
				t.Errorf("with %d replicas, region %d is %+v", n, region, got)
			}
		}
	}
	_, err := c.run(setReplicas("a", 0))
	wantRefusal(t, err, invalid("replicas"))
	_, err = c.run(setReplicas("nope", 2))
	wantRefusal(t, err, refusal{Code: codes.NotFound, Reason: "TABLE_NOT_FOUND"})

	// More than there are nodes: it waits, and when it is cancelled the table wants what it wanted before.
	p := c.mustRun(setReplicas("a", 5))
	eventually(t, "it waits", func() bool { return contains(c.procedure(p.GetProcedureId()).GetWaitingFor(), "can't be moved") })
	if err := c.cancel(p.GetProcedureId()); err != nil {
		t.Fatal(err)
	}
	c.ended(p.GetProcedureId())
	if got := c.region(regions[0]); contains(got.GetProblem(), "of 5") {
		t.Errorf("the region's problem is %q", got.GetProblem())
	}
}

// Of two nodes that are down neither is taken for the one that still has the rows: nothing is given up but on a person's word,
// and then the record says where the rows were.
func TestRemovalKeepsTheLastCopy(t *testing.T) {
	m := startLeader(t, mortal)
	c := newSimCluster(t, m, 3)
	region := c.createTable("a", 1, 2)[0]
	was := c.look(region)
	follower := others(3, append(others(3, was.inSync...), was.leader)...)[0]
	for _, node := range was.inSync {
		c.nodes[node].stop()
	}
	for _, node := range was.inSync {
		eventually(t, "the node is down", func() bool { return c.node(node).GetState() == metasrvpb.NodeState_NODE_STATE_DOWN })
	}
	for _, node := range was.inSync {
		_, err := c.run(removeNode(node, true, false))
		wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "LAST_REPLICA"})
	}
	_, err := c.run(remove(region, follower))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "LAST_REPLICA"})
	if got := c.ended(c.mustRun(removeNode(follower, true, true)).GetProcedureId()); got.GetState() != done {
		t.Fatalf("the removal ended as %v", got)
	}
	if got := c.look(region); !slices.Equal(got.inSync, was.inSync) {
		t.Errorf("the region is %+v, was %+v", got, was)
	}
}

// A removal that waits for failover says what keeps that from acting.
func TestRemovalSaysWhyItWaits(t *testing.T) {
	m := startLeader(t, mortal)
	c := newSimCluster(t, m, 2)
	region := c.createTable("a", 1, 2)[0]
	dead := c.look(region).leader
	c.configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_BeginMaintenance{
		BeginMaintenance: &storagepb.MaintenanceMode{Reason: "new switches"},
	}})
	c.nodes[dead].stop()
	eventually(t, "the node is down", func() bool { return c.node(dead).GetState() == metasrvpb.NodeState_NODE_STATE_DOWN })
	p := c.mustRun(removeNode(dead, true, false))
	eventually(t, "it says why", func() bool {
		return contains(c.procedure(p.GetProcedureId()).GetWaitingFor(), "1 regions get other leaders first", "maintenance mode is on", "new switches")
	})
	c.configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_EndMaintenance{EndMaintenance: &storagepb.EndMaintenance{}}})
	if got := c.ended(p.GetProcedureId()); got.GetState() != done {
		t.Errorf("the removal ended as %v", got)
	}
}

// What could not be moved is looked at again soon, for the node that was missing may be back, but seldom where a look is dear.
func TestRescanPause(t *testing.T) {
	longest := func(took time.Duration) (pause time.Duration) {
		for range 20 {
			pause = nextRescan(pause, took, false)
		}
		return pause
	}
	for took, want := range map[time.Duration]time.Duration{time.Millisecond: lastRescan, time.Second: rescanCost * time.Second} {
		if got := longest(took); got != want {
			t.Errorf("after looks of %s the pause becomes %s, want %s", took, got, want)
		}
	}
	if got := nextRescan(lastRescan, time.Second, true); got != firstRescan {
		t.Errorf("where something was moved the pause is %s, want %s", got, firstRescan)
	}
}

// What no node can take is planned again after a pause that doubles, and at once when something could be planned.
func TestRefusedMovesBackOff(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	q := moveQueue{regions: []metasrv.RegionID{1, 2, 3, 4}}
	for i, c := range []struct {
		planned, refused int
		want             time.Duration
	}{
		{0, 3, 0}, {0, 1, firstRescan}, {0, 4, 2 * firstRescan}, {0, 0, 0}, {1, 2, 0}, {0, 2, 0}, {0, 2, firstRescan}, {0, 4, 2 * firstRescan},
		{0, 4, 4 * firstRescan}, {0, 4, lastRescan}, {0, 4, lastRescan},
	} {
		q.until = time.Time{}
		q.tried(now, c.planned, c.refused)
		if c.want == 0 && !q.until.IsZero() || c.want > 0 && q.until.Sub(now) != c.want {
			t.Errorf("%d: after %d planned and %d refused the pause lasts until %s, want %s", i, c.planned, c.refused, q.until, c.want)
		}
	}
}

// The rounds of the driver don't decode what has not changed, and don't plan again what nobody can take.
func TestWaitingProceduresCostLittle(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 2)
	regions := c.createTable("a", 3, 2)
	id := metasrv.RegionID(regions[0])
	d := &driver{duties: m.duties, t: m.services.term.Load(), log: m.services.log, moves: map[uint64]*moveQueue{}, chosen: placement{}}
	view := m.node.View()
	route := func() *storagepb.RouteRecord {
		t.Helper()
		seen := d.look(view)
		found, err := seen.route(id.Table())
		if err != nil || found == nil {
			t.Fatalf("route: %v, %v", found, err)
		}
		return found
	}
	if first := route(); route() != first {
		t.Error("a route is decoded in each round")
	}

	record := &storagepb.ProcedureRecord{Id: 1 << 40, Spec: &storagepb.ProcedureSpec{
		Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS, TableId: uint64(id.Table()), Replicas: 3,
	}}
	q := d.queueOf(record.Id)
	q.regions = each(regions, func(id uint64) metasrv.RegionID { return metasrv.RegionID(id) })
	begin := func(seen *sight) bool {
		t.Helper()
		d.t.waits.Delete(record.Id)
		work, err := d.begin(t.Context(), seen, record, q, 0)
		if err != nil || len(work) > 0 || len(q.regions) != len(regions) {
			t.Fatalf("planned %v, %v, left %v", work, err, q.regions)
		}
		_, tried := d.t.waits.Load(record.Id)
		return tried
	}
	seen := d.look(view)
	first := begin(seen)
	again := begin(seen)
	seen.now = seen.now.Add(firstRescan)
	if later := begin(seen); !first || again || !later {
		t.Errorf("tried at first: %t, in the next round: %t, after a pause: %t", first, again, later)
	}
}
