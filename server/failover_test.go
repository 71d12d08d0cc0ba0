package server

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func replicasOf(n uint32) func(*metasrvpb.CreateRequest) {
	return func(r *metasrvpb.CreateRequest) { r.Replicas = n }
}

// A datanode is killed: not before its lease has ended, all that it led is led by others, who are spread, under leases.
func TestFailover(t *testing.T) {
	c := startKeepers(t, 3)
	id := c.table("t", func(r *metasrvpb.CreateRequest) {
		r.PartitionRule, r.Replicas = hashRule([]string{"host"}, 60), 3
	})
	before := c.ledBy(id)
	if before[1] == 0 {
		t.Fatalf("node 1 leads nothing: %v", before)
	}
	c.nodes[1].kill()
	leased := c.nodes[1].leased
	eventually(t, "others lead what node 1 led", func() bool { return c.ledBy(id)[1] == 0 })
	if early := time.Until(leased); early > 0 {
		t.Errorf("they lead %s before its lease ended", early)
	}
	c.eventuallyServed(id)
	after := c.ledBy(id)
	if after[2]-before[2] < before[1]/3 || after[3]-before[3] < before[1]/3 {
		t.Errorf("led before %v, after %v: want what node 1 led spread", before, after)
	}
	for _, r := range c.regions(id) {
		for _, replica := range r.GetReplicas() {
			if replica.GetPeer().GetId() == 1 && leaderOf(r).GetPeer().GetId() != 1 && r.GetLeaderEpoch() > 1 && replica.GetInSync() {
				t.Errorf("replica %d on the failed node is still in sync", replica.GetReplicaId())
			}
		}
	}
}

func (c *keeperCluster) configure(change *metasrvpb.ConfigureRequest) {
	c.t.Helper()
	if _, err := c.cluster().Configure(timeout(c.t), change); err != nil {
		c.t.Fatal(err)
	}
}

// failoverStatus returns what failover does.
func (c *keeperCluster) failoverStatus() *metasrvpb.FailoverStatus {
	c.t.Helper()
	resp, err := c.cluster().GetConfig(timeout(c.t), &metasrvpb.GetConfigRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.GetFailover()
}

// problems returns what is wrong with regions, as the list of problems shows it.
func (c *keeperCluster) problems() string {
	c.t.Helper()
	resp, err := c.cluster().ListRegions(timeout(c.t), &metasrvpb.ListRegionsRequest{OnlyProblems: true})
	if err != nil {
		c.t.Fatal(err)
	}
	var lines []string
	for _, r := range resp.GetRegions() {
		if r.GetProblem() == "" {
			c.t.Errorf("region %d is listed without a problem", r.GetRegionId())
		}
		lines = append(lines, r.GetProblem())
	}
	return strings.Join(lines, "\n")
}

// stays checks that a node keeps leading what it leads, for long enough that failover would have looked some times.
func (c *keeperCluster) stays(id metasrv.TableID, node uint64) {
	c.t.Helper()
	led := c.ledBy(id)[node]
	for end := time.Now().Add(5 * failoverPeriod); time.Now().Before(end); time.Sleep(failoverPeriod / 4) {
		if now := c.ledBy(id)[node]; now != led {
			c.t.Fatalf("node %d leads %d regions, led %d", node, now, led)
		}
	}
}

func TestMaintenanceMode(t *testing.T) {
	c := startKeepers(t, 3)
	id := c.table("t", replicasOf(3))
	c.configure(&metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_BeginMaintenance{
		BeginMaintenance: &metasrvpb.MaintenanceMode{Reason: "new disks"},
	}})
	node := leaderOf(c.regions(id)[0]).GetPeer().GetId()
	c.nodes[node].kill()
	eventually(t, "the node has failed", func() bool { return slices.Contains(c.failoverStatus().GetFailedNodeIds(), node) })
	c.stays(id, node)
	if problems := c.problems(); !strings.Contains(problems, "another replica could lead it, but maintenance mode is on since") ||
		!strings.Contains(problems, "new disks") {
		t.Errorf("problems:\n%s", problems)
	}
	if s := c.failoverStatus(); s.GetRegionsWithoutLeader() == 0 || !strings.Contains(s.GetPaused(), "new disks") {
		t.Errorf("failover: %v", s)
	}
	status, err := c.cluster().Status(timeout(t), &metasrvpb.StatusRequest{})
	if err != nil || !strings.Contains(status.GetFailoverPaused(), "new disks") {
		t.Errorf("status says %q, %v", status.GetFailoverPaused(), err)
	}
	c.configure(&metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_EndMaintenance{EndMaintenance: &metasrvpb.EndMaintenance{}}})
	c.eventuallyServed(id)
	if s := c.failoverStatus(); s.GetPaused() != "" || c.ledBy(id)[node] != 0 {
		t.Errorf("afterwards failover is %v, led are %v", s, c.ledBy(id))
	}
}

// More than half of the nodes fall silent: nothing moves, until so many are back that it is no storm any more, or the limit is
// raised.
func TestStorm(t *testing.T) {
	c := startKeepers(t, 5)
	id := c.table("t", func(r *metasrvpb.CreateRequest) { r.PartitionRule, r.Replicas = hashRule([]string{"host"}, 20), 5 })
	for node := uint64(1); node <= 3; node++ {
		c.nodes[node].stop() // all at once: the first has failed while the others are about to
	}
	eventually(t, "the storm is seen", func() bool { return strings.Contains(c.failoverStatus().GetPaused(), "3 of 5 datanodes are silent") })
	eventually(t, "all have failed", func() bool { return len(c.failoverStatus().GetFailedNodeIds()) == 3 })
	led := c.ledBy(id)
	for node := uint64(1); node <= 3; node++ {
		c.stays(id, node)
		if led[node] == 0 {
			t.Errorf("led are %v", led)
		}
	}
	c.nodes[3].kill()
	c.nodes[3].start()
	eventually(t, "others lead what nodes 1 and 2 led", func() bool { led := c.ledBy(id); return led[1]+led[2] == 0 })
	if now := c.ledBy(id)[3]; now < led[3] {
		t.Errorf("node 3 came back and leads %d regions of %d", now, led[3])
	}
	c.eventuallyServed(id)
	// Nodes 1 and 2 still count.
	c.nodes[4].kill()
	eventually(t, "the storm is seen again", func() bool { return strings.Contains(c.failoverStatus().GetPaused(), "3 of 5") })
	c.stays(id, 4)
	c.configure(&metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_MaxFailedPercent{MaxFailedPercent: 60}})
	c.eventuallyServed(id)
}

// A new metasrv leader neither takes those for failed that have not found it yet, nor spares those that never come.
func TestGraceOfANewMetasrvLeader(t *testing.T) {
	c := startKeepers(t, 3, func(c *Config) { c.HeartbeatInterval, c.RegionLease = 400*time.Millisecond, 800*time.Millisecond })
	id := c.table("t", replicasOf(3))
	node := leaderOf(c.regions(id)[0]).GetPeer().GetId()
	c.node.follow(otherMember())
	c.nodes[node].kill()
	began := time.Now()
	c.lead(t)
	eventually(t, "others lead", func() bool { return c.ledBy(id)[node] == 0 })
	if took := time.Since(began); took < 3*400*time.Millisecond {
		t.Errorf("a node was given up %s after the takeover, before it could have been heard thrice", took)
	}
	c.eventuallyServed(id)
}

// A region of which nobody else has all rows waits for its node, and says so.
func TestNobodyElseIsInSync(t *testing.T) {
	c := startKeepers(t, 2)
	id := c.table("t", replicasOf(1))
	c.nodes[1].kill()
	eventually(t, "the node has failed", func() bool { return len(c.failoverStatus().GetFailedNodeIds()) == 1 })
	eventually(t, "its regions are counted", func() bool { return int(c.failoverStatus().GetRegionsWithoutLeader()) == c.ledBy(id)[1] })
	if problems := c.problems(); !strings.Contains(problems, "no other replica is in sync and can be reached: start node 1 again") {
		t.Errorf("problems:\n%s", problems)
	}
	c.nodes[1].start()
	c.eventuallyServed(id)
	eventually(t, "nothing is wrong any more", func() bool { return c.problems() == "" && c.failoverStatus().GetRegionsWithoutLeader() == 0 })
}

// Nodes that keep no leases may serve their regions whatever metasrv thinks.
func TestNodesWithoutLeasesKeepTheirRegions(t *testing.T) {
	c := startKeepers(t, 0)
	for id := uint64(1); id <= 3; id++ {
		c.nodes[id] = startKeeper(t, c.conn, id, func(i *metasrvpb.NodeInfo) { i.KeepsLeases = false })
	}
	created := c.createTable(t, "t", each([]uint64{1, 2, 3}, func(id uint64) *testDatanode {
		return &testDatanode{id: id, incarnation: c.nodes[id].registered()}
	})...)
	id := metasrv.TableID(created.GetTableRoutes()[0].GetTable().GetId())
	node := leaderOf(c.regions(id)[0]).GetPeer().GetId()
	c.nodes[node].kill()
	eventually(t, "the node has failed", func() bool { return slices.Contains(c.failoverStatus().GetFailedNodeIds(), node) })
	c.stays(id, node)
	if problems := c.problems(); !strings.Contains(problems, "keeps no leases: no other node is given the region") {
		t.Errorf("problems:\n%s", problems)
	}
}
