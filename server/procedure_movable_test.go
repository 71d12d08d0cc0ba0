package server

import (
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// groupOnTable starts a group of two nodes, of which the first writes, and creates table g on it. It returns the table's regions
// and what has both beat.
func groupOnTable(t *testing.T, m *testMemberServer) (regions []uint64, nodes []*testGroupNode) {
	t.Helper()
	nodes = []*testGroupNode{m.addGroupNode(t, 11, 12), m.addGroupNode(t, 12)}
	eventually(t, "node 11 writes, and both are in sync", func() bool {
		for _, n := range nodes {
			n.beat(t)
		}
		outside := func(member *metasrvpb.GroupMember) bool { return !member.GetInSync() }
		return nodes[0].status.GetLeaseMs() > 0 && !slices.ContainsFunc(nodes[0].status.GetMembers(), outside)
	})
	created, err := m.router().Create(timeout(t), createRequest("g", func(r *metasrvpb.CreateRequest) { r.Group = "g" }))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range created.GetTableRoutes()[0].GetRegionRoutes() {
		regions = append(regions, r.GetRegion().GetId())
	}
	m.commit(t, created, nodes[0].testDatanode, nodes[1].testDatanode)
	return regions, nodes
}

// The regions of a group are the group's: nothing moves, adds or rebuilds their replicas, and its nodes get no others. What is
// asked for in vain is refused.
func TestProceduresLeaveGroupsAlone(t *testing.T) {
	m := startLeader(t, repairing)
	regions, nodes := groupOnTable(t, m)
	c := newSimCluster(t, m, 2)
	lonely := c.createTable("a", 1, 2)[0]
	before := c.look(regions[0])
	for _, req := range []*metasrvpb.StartProcedureRequest{
		drain(11), drain(12), migrate(regions[0], 11, 1), migrate(regions[0], 12, 1), transfer(regions[0], 0), transfer(regions[0], 12),
		add(regions[0], 1), setReplicas("g", 3),
	} {
		_, err := c.run(req)
		if got := refusalOf(err); got.Code != codes.FailedPrecondition || got.Reason != "NODE_KEEPS_NO_LEASE" || !contains(err.Error(), "group") {
			t.Errorf("%v is answered with %v", req, err)
		}
	}
	_, err := c.run(add(lonely, 11))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NODE_KEEPS_NO_LEASE"})
	p := c.mustRun(drain(others(2, c.look(lonely).leader)[0]))
	eventually(t, "no node of the group is chosen", func() bool {
		return contains(c.procedure(p.GetProcedureId()).GetWaitingFor(), "can't be moved", "no datanode can take a replica beside")
	})

	// The node that writes goes on, the other one is silent for long; so are most nodes, but this is nobody else's.
	var cfg Config
	repairing(&cfg)
	silent := time.Now().Add(cfg.RepairAfter + 2*repairPeriod)
	eventually(t, "a repair had its time", func() bool {
		nodes[0].beat(t)
		return time.Now().After(silent)
	})
	if got := c.look(regions[0]); got.leader != before.leader || !slices.Equal(got.inSync, before.inSync) || !slices.Equal(got.others, before.others) {
		t.Errorf("the region is %+v, was %+v", got, before)
	}

	// What the group doesn't bring back is removed by force.
	removal := c.mustRun(removeNode(12, true, false))
	eventually(t, "node 12 is removed", func() bool {
		nodes[0].beat(t)
		return c.procedure(removal.GetProcedureId()).GetState() == done
	})
	for _, region := range regions {
		if got := c.look(region); got.leader != 11 || len(got.inSync)+len(got.others) != 1 {
			t.Errorf("after the removal, region %d is %+v", region, got)
		}
	}
}

// Nodes of groups that are silent keep nothing from being rebuilt: nothing of theirs is.
func TestSilentGroupStopsNoRepair(t *testing.T) {
	m := startLeader(t, repairing)
	for id := uint64(11); id < 16; id++ {
		m.addGroupNode(t, id)
	}
	c := newSimCluster(t, m, 3)
	region := c.createTable("a", 1, 2)[0]
	was := c.look(region)
	dead := others(3, append(others(3, was.inSync...), was.leader)...)[0]
	c.nodes[dead].stop()
	c.whole([]uint64{region}, 2, dead)
}

// A node whose regions nobody can take over is not drained in vain; without regions it is.
func TestDrainOfANodeWithoutLeases(t *testing.T) {
	m := startLeader(t, simulated)
	old := m.addDatanode(t, 11)
	created, err := m.router().Create(timeout(t), createRequest("old"))
	if err != nil {
		t.Fatal(err)
	}
	m.commit(t, created, old)
	c := newSimCluster(t, m, 2)
	_, err = c.run(drain(11))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NODE_KEEPS_NO_LEASE"})
	if !contains(err.Error(), "3 regions", "keeps no leases") {
		t.Errorf("the drain is refused with %v", err)
	}
	_, err = c.run(setReplicas("old", 2))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NODE_KEEPS_NO_LEASE"})
	if _, err := m.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("old")}); err != nil {
		t.Fatal(err)
	}
	if got := c.ended(c.mustRun(drain(11)).GetProcedureId()); got.GetState() != done {
		t.Errorf("the drain ended as %v", got)
	}
}

// A drain starts nothing that can't succeed when the leader of a region comes back as a process that keeps no leases.
func TestDrainWhereLeadersStopKeepingLeases(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 2)
	region := c.createTable("a", 1, 2)[0]
	leader := c.look(region).leader
	c.configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_BeginMaintenance{
		BeginMaintenance: &storagepb.MaintenanceMode{Reason: "nobody else is elected"},
	}})
	p := c.mustRun(drain(others(2, leader)[0]))
	c.nodes[leader].stop()
	c.nodes[leader].change(func(n *simNode) { n.old, n.nonce, n.incarnation = true, n.nonce+1000, 0 })
	c.nodes[leader].run()
	eventually(t, "the node is registered", func() bool { return !c.node(leader).GetKeepsLeases() })
	c.start(3)
	eventually(t, "it says why", func() bool {
		return contains(c.procedure(p.GetProcedureId()).GetWaitingFor(), "can't be moved", "keeps no leases")
	})
	if parts := c.parts(p.GetProcedureId()); len(parts) > 0 {
		t.Errorf("parts were started: %v", parts)
	}
}
