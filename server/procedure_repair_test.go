package server

import (
	"fmt"
	"slices"
	"testing"
	"time"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func repairing(c *Config) {
	mortal(c)
	c.RepairAfter = c.DownAfter + 200*time.Millisecond
}

// whole waits until all regions have so many replicas in sync, none of them on a node, and no others.
func (c *simCluster) whole(regions []uint64, replicas int, not uint64) {
	c.t.Helper()
	for _, region := range regions {
		eventually(c.t, fmt.Sprintf("region %d has %d replicas, none on node %d", region, replicas, not), func() bool {
			got := c.look(region)
			return len(got.inSync) == replicas && len(got.others) == 0 && !slices.Contains(got.inSync, not) && got.holding
		})
	}
}

// What a node had that is silent for long is rebuilt elsewhere, and what a node had on another disk on any.
func TestRepair(t *testing.T) {
	m := startLeader(t, repairing)
	c := newSimCluster(t, m, 4)
	regions := c.createTable("a", 3, 3)
	c.nodes[1].stop()
	c.whole(regions, 3, 1)
	c.nodes[2].replaceDisk()
	c.whole(regions, 3, 1)
	for _, region := range regions {
		eventually(t, fmt.Sprintf("node 2 has a replica of region %d again", region), func() bool { return c.has(2, region) })
	}
	c.whole(regions, 3, 1)
	eventually(t, "all repairs have ended", func() bool {
		resp, err := m.cluster().ListProcedures(timeout(t), &metasrvpb.ListProceduresRequest{})
		return err == nil && len(resp.GetProcedures()) == 0
	})
	resp, err := m.cluster().ListProcedures(timeout(t), &metasrvpb.ListProceduresRequest{Ended: true})
	if err != nil {
		t.Fatal(err)
	}
	reasons := map[string]bool{}
	for _, p := range resp.GetProcedures() {
		if p.GetState() != done {
			t.Errorf("a repair ended as %v", p)
		}
		reasons[p.GetReason()] = true
	}
	if !reasons["node 2 came back with other storage"] {
		t.Errorf("the reasons are %v", reasons)
	}
}

// A replica whose files were taken from under its node is made anew.
func TestRepairOfWhatANodeDoesNotHave(t *testing.T) {
	m := startLeader(t, repairing)
	c := newSimCluster(t, m, 2)
	region := c.createTable("a", 1, 2)[0]
	follower := others(2, c.look(region).leader)[0]
	var was uint64
	c.nodes[follower].change(func(n *simNode) {
		was = n.replicas[region].ReplicaId
		delete(n.replicas, region)
	})
	eventually(t, "another replica is in sync", func() bool {
		c.mu.Lock()
		r := c.nodes[follower].replicas[region]
		c.mu.Unlock()
		return r != nil && !r.is(was) && len(c.look(region).inSync) == 2
	})
}

// In maintenance nothing is rebuilt, and what was begun stops where the region is safe; when it ends, that goes on.
func TestMaintenanceStopsRepairs(t *testing.T) {
	m := startLeader(t, repairing)
	c := newSimCluster(t, m, 3)
	regions := c.createTable("a", 3, 2)
	if c.look(regions[0]).leader == 1 {
		c.ended(c.mustRun(transfer(regions[0], 0)).GetProcedureId())
	}
	c.configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_BeginMaintenance{
		BeginMaintenance: &storagepb.MaintenanceMode{Reason: "new switches"},
	}})
	c.nodes[1].stop()
	eventually(t, "the node is down", func() bool { return c.node(1).GetState() == metasrvpb.NodeState_NODE_STATE_DOWN })
	until := time.Now().Add(2 * repairPeriod)
	eventually(t, "two looks have passed", func() bool { return time.Now().After(until) })
	if resp, err := m.cluster().ListProcedures(timeout(t), &metasrvpb.ListProceduresRequest{}); err != nil || len(resp.GetProcedures()) > 0 {
		t.Errorf("in maintenance there are %v, %v", resp.GetProcedures(), err)
	}
	c.configure(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_EndMaintenance{EndMaintenance: &storagepb.EndMaintenance{}}})
	c.whole(regions, 2, 1)
}

func (c *simCluster) configure(command *storagepb.ConfigureCluster) {
	c.t.Helper()
	if _, err := c.m.node.Propose(c.t.Context(), state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, Payload: command,
	}); err != nil {
		c.t.Fatal(err)
	}
}
