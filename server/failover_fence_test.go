package server

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// fenceCluster is a cluster whose own failover is switched off, with a table of one region, and failover to be driven by hand.
type fenceCluster struct {
	*keeperCluster
	f      *failover
	id     metasrv.TableID
	leader *metasrvpb.Replica
	node   *keeper
}

func startFence(t *testing.T) *fenceCluster {
	t.Helper()
	c := &fenceCluster{keeperCluster: startKeepers(t, 3)}
	c.configure(&metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_BeginMaintenance{
		BeginMaintenance: &metasrvpb.MaintenanceMode{Reason: "a test"},
	}})
	c.id = c.table("t", func(r *metasrvpb.CreateRequest) { r.PartitionRule, r.Replicas = hashRule([]string{"host"}, 1), 3 })
	c.f = newFailover(c.duties, c.services.term.Load(), slog.New(slog.DiscardHandler))
	_, c.leader, _ = c.region(c.id)
	c.node = c.nodes[c.leader.GetPeer().GetId()]
	return c
}

// takeover plans the election of another leader, as if the present one had failed.
func (c *fenceCluster) takeover() takeover {
	c.t.Helper()
	r, err := router.Get(c.Server.Node().View(), c.id)
	if err != nil {
		c.t.Fatal(err)
	}
	region := r.Route.GetRegions()[0]
	elect := &storagepb.ElectReplica{FailedReplicaIds: []uint64{region.GetLeaderReplicaId()}}
	for _, replica := range region.GetReplicas() {
		if replica.GetReplicaId() != region.GetLeaderReplicaId() {
			elect.ReplicaId = replica.GetReplicaId()
		}
	}
	return takeover{node: leaderNode(region), change: &storagepb.RegionChange{
		RegionId: region.GetRegionId(), LeaderEpoch: region.GetLeaderEpoch(), ConfVersion: region.GetConfVersion(),
		Change: &storagepb.RegionChange_Elect{Elect: elect},
	}}
}

func (c *fenceCluster) elect() int {
	c.t.Helper()
	n, err := c.f.elect(c.t.Context(), []takeover{c.takeover()})
	if err != nil {
		c.t.Fatal(err)
	}
	return n
}

// A node that got a lease between the look at it and the mark keeps its region: the end of its leases is looked at behind the
// mark.
func TestElectLooksAtTheLeaseBehindTheMark(t *testing.T) {
	c := startFence(t)
	if n := c.elect(); n != 0 {
		t.Errorf("%d regions were taken from a node that has a lease for them", n)
	}
	if n := c.f.term.tracker.Withheld(); n != 0 {
		t.Errorf("%d regions are still withheld", n)
	}
	c.eventuallyServed(c.id)
	c.node.kill()
	eventually(t, "the lease ends", func() bool { return !time.Now().Before(c.f.term.tracker.LeaseEnd(metasrv.NodeID(c.node.id))) })
	if n := c.elect(); n != 1 {
		t.Errorf("%d regions were taken from a node whose leases have ended", n)
	}
}

// A node that comes back while its region is being taken from it gets no lease for that, until the outcome is applied.
func TestElectWithholds(t *testing.T) {
	c := startFence(t)
	c.node.kill()
	eventually(t, "the lease ends", func() bool { return !time.Now().Before(c.f.term.tracker.LeaseEnd(metasrv.NodeID(c.node.id))) })
	reached, goOn := make(chan struct{}), make(chan struct{})
	hook := func(kind storagepb.CommandKind) {
		if kind == storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS {
			c.testMemberServer.node.onPropose.Store(nil)
			close(reached)
			<-goOn
		}
	}
	c.testMemberServer.node.onPropose.Store(&hook)
	elected := make(chan int, 1)
	go func() { elected <- c.elect() }()
	<-reached
	c.node.start()
	leased := func() time.Time {
		c.node.mu.Lock()
		defer c.node.mu.Unlock()
		return c.node.leased
	}
	eventually(t, "the node has a lease, for what it has", func() bool { return time.Now().Before(leased()) })
	for range 3 { // beats
		was := leased()
		eventually(t, "another lease", func() bool { return leased().After(was) })
		if c.node.holds(c.leader.GetReplicaId()) {
			t.Fatal("the node has a lease for a region that is being taken from it")
		}
	}
	close(goOn)
	if n := <-elected; n != 1 {
		t.Fatalf("%d regions got another leader", n)
	}
	c.eventuallyServed(c.id)
	if _, now, _ := c.region(c.id); now.GetReplicaId() == c.leader.GetReplicaId() || c.node.holds(c.leader.GetReplicaId()) {
		t.Errorf("replica %d leads", now.GetReplicaId())
	}
}

// At the end of the term nobody knows whether the election will be carried out: no beat that is still answered gets the region.
func TestElectKeepsTheMarkAtTheEndOfTheTerm(t *testing.T) {
	c := startFence(t)
	c.node.kill()
	eventually(t, "the lease ends", func() bool { return !time.Now().Before(c.f.term.tracker.LeaseEnd(metasrv.NodeID(c.node.id))) })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c.testMemberServer.node.hook(func(_ context.Context, p state.Proposal) {
		if p.Kind == storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS {
			cancel()
		}
	})
	if _, err := c.f.elect(ctx, []takeover{c.takeover()}); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if n := c.f.term.tracker.Withheld(); n != 1 {
		t.Errorf("%d regions are withheld, want the one whose outcome nobody waited for", n)
	}
}

// A replica that its node doesn't report, though not for long enough to be given up, is not elected: the leader that failed would
// leave the in-sync set for one that has no rows.
func TestElectOnlyWhatIsReported(t *testing.T) {
	c := startKeepers(t, 2, func(c *Config) { c.RegionLease = time.Minute })
	id := c.table("t", replicasOf(2))
	_, _, follower := c.region(id)
	node, replica := metasrv.NodeID(follower.GetPeer().GetId()), metasrv.ReplicaID(follower.GetReplicaId())
	f := newFailover(c.duties, c.services.term.Load(), slog.New(slog.DiscardHandler))
	successor := func() (*storagepb.RegionChange, string) {
		view := c.Server.Node().View()
		p, err := f.plan(t.Context(), view, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		r, err := router.Get(view, id)
		if err != nil {
			t.Fatal(err)
		}
		return p.successor(r.Route, r.Route.GetRegions()[0])
	}
	if change, why := successor(); change.GetElect().GetReplicaId() != uint64(replica) {
		t.Errorf("next leads %v, want replica %d: %s", change, replica, why)
	}
	c.nodes[uint64(node)].lose(uint64(replica))
	region := metasrv.RegionID(c.regions(id)[0].GetRegionId())
	eventually(t, "the node no longer reports the replica", func() bool { return !f.term.tracker.Has(node, region, replica) })
	if change, why := successor(); change != nil || why != router.StandstillSilent {
		t.Errorf("next leads %v, want nobody before it is known who has the rows: %s", change, why)
	}
	c.nodes[uint64(node)].change(func(k *keeper) {
		clear(k.hidden)
		clear(k.ignores)
	})
	eventually(t, "the node has it again", func() bool { return f.term.tracker.Has(node, region, replica) })
	if change, why := successor(); change.GetElect().GetReplicaId() != uint64(replica) {
		t.Errorf("next leads %v, want replica %d: %s", change, replica, why)
	}
}

// What was planned on another configuration than the region has by now is not carried out.
func TestElectComparesAndSets(t *testing.T) {
	c := startFence(t)
	stale := c.takeover()
	region, _, follower := c.region(c.id)
	c.node.kill()
	if _, err := c.testMemberServer.node.Propose(t.Context(), state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS,
		Payload: &storagepb.ChangeRegions{Changes: []*storagepb.RegionChange{{
			RegionId: region.GetRegionId(), LeaderEpoch: region.GetLeaderEpoch(), ConfVersion: region.GetConfVersion(),
			Change: &storagepb.RegionChange_SetInSync{SetInSync: &storagepb.SetInSync{
				ReplicaIds: []uint64{c.leader.GetReplicaId(), follower.GetReplicaId()},
			}},
		}}},
	}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the lease ends", func() bool { return !time.Now().Before(c.f.term.tracker.LeaseEnd(metasrv.NodeID(c.node.id))) })
	if n, err := c.f.elect(t.Context(), []takeover{stale}); n != 0 || err != nil {
		t.Errorf("%d regions got another leader, as planned on what is no longer so: %v", n, err)
	}
	if n := c.elect(); n != 1 {
		t.Errorf("%d regions got another leader", n)
	}
}
