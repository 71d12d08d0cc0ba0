package server

import (
	"testing"
	"time"

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
