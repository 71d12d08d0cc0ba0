package server

import (
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// region returns the first region of a table, its leader and its first follower.
func (c *keeperCluster) region(id metasrv.TableID) (region *metasrvpb.RegionInfo, leader, follower *metasrvpb.Replica) {
	region = c.regions(id)[0]
	for _, r := range region.GetReplicas() {
		if r.GetRole() == metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER {
			follower = r
		}
	}
	return region, leaderOf(region), follower
}

func (c *keeperCluster) inSync(id metasrv.TableID, replica uint64) bool {
	for _, r := range c.regions(id)[0].GetReplicas() {
		if r.GetReplicaId() == replica {
			return r.GetInSync()
		}
	}
	return false
}

// propose changes a region as it is shown, without regard to leases.
func (c *keeperCluster) propose(region *metasrvpb.RegionInfo, change *storagepb.RegionChange) {
	c.t.Helper()
	change.RegionId, change.LeaderEpoch, change.ConfVersion = region.GetRegionId(), region.GetLeaderEpoch(), region.GetConfVersion()
	if _, err := c.node.Propose(c.t.Context(), state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS, Payload: &storagepb.ChangeRegions{Changes: []*storagepb.RegionChange{change}},
	}); err != nil {
		c.t.Fatal(err)
	}
}

// lose makes a node report a replica no more, nor find it when it is told to open it.
func (k *keeper) lose(replica uint64) {
	k.change(func(k *keeper) {
		delete(k.replicas, replica)
		k.hidden[replica], k.ignores[replica] = true, true
	})
}

// Rule 21: what a node doesn't have leaves the in-sync set, and leads no more.
func TestAbsentReplicas(t *testing.T) {
	c := startKeepers(t, 3)
	id := c.table("t", replicasOf(3))
	_, leader, follower := c.region(id)
	c.nodes[follower.GetPeer().GetId()].lose(follower.GetReplicaId())
	eventually(t, "the follower leaves the in-sync set", func() bool { return !c.inSync(id, follower.GetReplicaId()) })
	c.eventuallyServed(id)
	if _, now, _ := c.region(id); now.GetReplicaId() != leader.GetReplicaId() {
		t.Errorf("replica %d leads, before %d did", now.GetReplicaId(), leader.GetReplicaId())
	}
	if problems := c.problems(); !strings.Contains(problems, "is not in sync") {
		t.Errorf("problems:\n%s", problems)
	}

	node := c.nodes[leader.GetPeer().GetId()]
	node.mu.Lock()
	leased := node.leased
	node.mu.Unlock()
	node.lose(leader.GetReplicaId())
	eventually(t, "another one leads", func() bool { _, now, _ := c.region(id); return now.GetReplicaId() != leader.GetReplicaId() })
	if early := time.Until(leased); early > 0 {
		t.Errorf("another one leads %s before the lease ended under which it did", early)
	}
	c.eventuallyServed(id)
	if c.inSync(id, leader.GetReplicaId()) {
		t.Error("the replica that led is still in sync")
	}

	_, last, _ := c.region(id)
	c.nodes[last.GetPeer().GetId()].lose(last.GetReplicaId())
	eventually(t, "the last one is listed", func() bool { return strings.Contains(c.problems(), "restore it from a backup") })
	if _, now, _ := c.region(id); now.GetReplicaId() != last.GetReplicaId() || !c.inSync(id, last.GetReplicaId()) {
		t.Error("the last replica that was in sync was given up")
	}
}

// A node comes back with an empty disk: nothing that was on the other one leads, or is waited for.
func TestOtherStorage(t *testing.T) {
	c := startKeepers(t, 3)
	id := c.table("t", replicasOf(3))
	wipe := func(node uint64) {
		c.nodes[node].restart(func(i *metasrvpb.NodeInfo) { i.StorageUuid += "'" })
		c.nodes[node].change(func(k *keeper) { clear(k.replicas) })
	}
	_, leader, follower := c.region(id)
	wipe(follower.GetPeer().GetId())
	eventually(t, "the lost follower leaves the in-sync set", func() bool { return !c.inSync(id, follower.GetReplicaId()) })
	wipe(leader.GetPeer().GetId())
	eventually(t, "another one leads", func() bool { _, now, _ := c.region(id); return now.GetReplicaId() != leader.GetReplicaId() })
	c.eventuallyServed(id)
	if c.inSync(id, leader.GetReplicaId()) {
		t.Error("the lost replica is still in sync")
	}
}

// Rule 21: a leader whose disk was set back leads no more; the last replica is listed.
func TestDisksThatAreSetBack(t *testing.T) {
	c := startKeepers(t, 3)
	id, alone := c.table("t", replicasOf(3)), c.table("alone", replicasOf(1))
	setBack := func(id metasrv.TableID) *metasrvpb.Replica {
		t.Helper()
		region, leader, _ := c.region(id)
		node := c.nodes[leader.GetPeer().GetId()]
		node.change(func(k *keeper) {
			r := proto.CloneOf(k.replicas[leader.GetReplicaId()])
			r.LogEpoch, r.LogSequence = region.GetLeaderEpoch(), 100
			k.replicas[leader.GetReplicaId()] = r
		})
		tracker := c.services.term.Load().tracker
		eventually(t, "the position is known", func() bool {
			r, _ := tracker.Region(metasrv.NodeID(node.id), metasrv.RegionID(region.GetRegionId()), metasrv.ReplicaID(leader.GetReplicaId()))
			return r.LogSequence == 100
		})
		node.restart(func(*metasrvpb.NodeInfo) { node.replicas[leader.GetReplicaId()].LogSequence = 99 })
		return leader
	}
	leader := setBack(id)
	eventually(t, "another one leads", func() bool { _, now, _ := c.region(id); return now.GetReplicaId() != leader.GetReplicaId() })
	c.eventuallyServed(id)
	if c.inSync(id, leader.GetReplicaId()) {
		t.Error("the replica that was set back is in sync")
	}
	last := setBack(alone)
	eventually(t, "it is listed", func() bool { return strings.Contains(c.problems(), "its disk was set back to an earlier state") })
	if _, now, _ := c.region(alone); now.GetReplicaId() != last.GetReplicaId() || !c.inSync(alone, last.GetReplicaId()) {
		t.Error("the last replica was given up")
	}
}

// A handover that nobody brings to its end is taken back.
func TestDemotionThatNobodyEnds(t *testing.T) {
	c := startKeepers(t, 2)
	id := c.table("t", replicasOf(2))
	region, leader, _ := c.region(id)
	c.propose(region, &storagepb.RegionChange{Change: &storagepb.RegionChange_BeginDemotion{BeginDemotion: &storagepb.BeginDemotion{}}})
	eventually(t, "it is taken back", func() bool { return c.regions(id)[0].GetLeaderEpoch() > region.GetLeaderEpoch() })
	c.eventuallyServed(id)
	if _, now, _ := c.region(id); now.GetReplicaId() != leader.GetReplicaId() || c.regions(id)[0].GetDemoting() {
		t.Errorf("region %v", c.regions(id)[0])
	}
	if slices.ContainsFunc(c.regions(id), func(r *metasrvpb.RegionInfo) bool { return r.GetProblem() != "" }) {
		t.Errorf("problems:\n%s", c.problems())
	}
}

// Nobody in the set is left: a table that allows to lose rows gets the replica that is there, once the others count as down;
// any other table waits.
func TestUncleanFailover(t *testing.T) {
	c := startKeepers(t, 2, func(c *Config) { c.SuspectAfter, c.DownAfter = testLease+testInterval, 2*testLease })
	one := func(unclean bool) func(*metasrvpb.CreateRequest) {
		return func(r *metasrvpb.CreateRequest) {
			r.PartitionRule, r.Replicas, r.UncleanFailover = hashRule([]string{"host"}, 1), 2, unclean
		}
	}
	tables := map[bool]metasrv.TableID{true: c.table("lossy", one(true)), false: c.table("strict", one(false))}
	for _, id := range tables {
		region, leader, follower := c.region(id)
		if leader.GetPeer().GetId() != 1 { // both are to be led on one node
			c.propose(region, &storagepb.RegionChange{Change: &storagepb.RegionChange_Elect{
				Elect: &storagepb.ElectReplica{ReplicaId: follower.GetReplicaId()},
			}})
			region, leader, _ = c.region(id)
		}
		c.propose(region, &storagepb.RegionChange{Change: &storagepb.RegionChange_SetInSync{
			SetInSync: &storagepb.SetInSync{ReplicaIds: []uint64{leader.GetReplicaId()}},
		}})
	}
	killed := c.nodes[1].kill()
	eventually(t, "the lossy table has another leader", func() bool { return c.ledBy(tables[true])[2] == 1 })
	if took := time.Since(killed); took < 2*testLease-testInterval {
		t.Errorf("it has it after %s, while its node did not count as down", took)
	}
	c.eventuallyServed(tables[true])
	c.stays(tables[false], 1)
	if problems := c.problems(); !strings.Contains(problems, "start node 1 again") {
		t.Errorf("problems:\n%s", problems)
	}
}
