package router_test

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

func address(id metasrv.NodeID) string { return fmt.Sprintf("node%d:4001", id) }

func TestPeersStandOnce(t *testing.T) {
	c := newCluster(t)
	b := router.NewBuilder(address)
	one := b.Add(c.public("one", 2, 2, 3))
	two := b.Add(c.public("two", 1, 3, 1))

	peers := []*metasrvpb.Peer{{Id: 2, Addr: "node2:4001"}, {Id: 3, Addr: "node3:4001"}, {Id: 1, Addr: "node1:4001"}}
	if diff := cmp.Diff(peers, b.Peers(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	region := func(table metasrv.TableID, number uint32, leader, follower, leaderReplica uint64) *metasrvpb.RegionRoute {
		id := metasrv.NewRegionID(table, number)
		return &metasrvpb.RegionRoute{
			Region:          &metasrvpb.Region{Id: uint64(id), Name: id.String(), PartitionNumber: number},
			LeaderPeerIndex: leader, FollowerPeerIndexes: []uint64{follower}, LeaderEpoch: 1, ConfVersion: 2,
			LeaderReplicaId: leaderReplica, FollowerReplicaIds: []uint64{leaderReplica + 1},
		}
	}
	for got, want := range map[*metasrvpb.TableRoute][]*metasrvpb.RegionRoute{
		one: {region(1024, 0, 0, 1, 1), region(1024, 1, 1, 0, 3)},
		two: {region(1025, 0, 1, 2, 5)},
	} {
		if diff := cmp.Diff(want, got.RegionRoutes, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
		if got.RouteVersion != 2 || got.Table.State != public || got.Table.SchemaVersion != 1 || got.CreationToken != 0 {
			t.Errorf("route = %v", got)
		}
	}
}

func TestRegionWithoutLeader(t *testing.T) {
	c := newCluster(t)
	r := c.public("t", 1, 1, 2)
	r.Route.Regions[0].LeaderReplicaId = 0
	got := router.NewBuilder(address).Add(r).RegionRoutes[0]
	if got.LeaderPeerIndex != math.MaxUint64 || len(got.FollowerPeerIndexes) != 2 {
		t.Errorf("region without a leader = %v", got)
	}
}

// A follower that left the in-sync set lacks rows that were acknowledged since: nobody is sent there to read.
func TestFollowersInSyncAreRead(t *testing.T) {
	c := newCluster(t)
	r := c.public("t", 1, 1, 2)
	region := r.Route.Regions[0]
	region.Replicas = append(region.Replicas, &storagepb.ReplicaRecord{ReplicaId: 9, NodeId: 3, InSync: true})
	replicas := region.Replicas
	replicas[1].InSync = false
	got := router.NewBuilder(address).Add(r).RegionRoutes[0]
	if len(got.FollowerReplicaIds) != 1 || got.FollowerReplicaIds[0] != replicas[2].ReplicaId {
		t.Errorf("route to a region whose replica %d is not in sync: %v", replicas[1].ReplicaId, got)
	}
	r.Table.State = metasrvpb.TableState_TABLE_STATE_CREATING
	if got := router.NewBuilder(address).Add(r).RegionRoutes[0]; len(got.FollowerReplicaIds) != 2 {
		t.Errorf("a creation, in which no replica is in sync yet, tells of %d followers, want 2", len(got.FollowerReplicaIds))
	}
}

func TestRangePartitionsInCompatForm(t *testing.T) {
	c := newCluster(t)
	cmd := c.plan("t", 3, 1)
	bound := func(v *metasrvpb.Value) *metasrvpb.RangeBound {
		return &metasrvpb.RangeBound{Values: []*metasrvpb.Value{v}}
	}
	cmd.PartitionRule = &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: &metasrvpb.RangeRule{
		Columns: []string{"host"},
		Bounds: []*metasrvpb.RangeBound{
			bound(&metasrvpb.Value{Kind: &metasrvpb.Value_StringValue{StringValue: "hz"}}),
			bound(&metasrvpb.Value{Kind: &metasrvpb.Value_StringValue{StringValue: "sh"}}),
			bound(&metasrvpb.Value{Kind: &metasrvpb.Value_MaxValue{MaxValue: true}}),
		},
	}}}
	route := router.NewBuilder(address).Add(c.must(createTable, cmd))
	for i, want := range []string{`{"Value":{"String":"hz"}}`, `{"Value":{"String":"sh"}}`, `"MaxValue"`} {
		p := route.RegionRoutes[i].Region.Partition
		if len(p.GetColumnList()) != 1 || string(p.ColumnList[0]) != "host" || len(p.ValueList) != 1 || string(p.ValueList[0]) != want {
			t.Errorf("partition %d = %v, want host < %s", i, p, want)
		}
	}
}

func TestOpaquePartitionsAreReturnedAsSent(t *testing.T) {
	c := newCluster(t)
	cmd := c.plan("t", 1, 1)
	sent := &metasrvpb.Partition{ColumnList: [][]byte{[]byte("k1")}, ValueList: [][]byte{{0xff, 0}}}
	cmd.Regions = []*storagepb.PlannedRegion{{Partition: sent, Replicas: cmd.Regions[0].Replicas}}
	cmd.PartitionRule, cmd.Schema, cmd.Commit = nil, nil, true
	route := router.NewBuilder(address).Add(c.must(createTable, cmd))
	if diff := cmp.Diff(sent, route.RegionRoutes[0].Region.Partition, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestCreationTellsTokenAndTimeLeft(t *testing.T) {
	c := newCluster(t)
	r := c.create("t", 1, 1)
	c.Advance(400 * time.Millisecond)
	got := router.NewBuilder(address).AddCreation(r, c.Now())
	if got.CreationToken != r.Table.CreationToken || got.CreationDeadlineMs != 600 {
		t.Errorf("token %d, %d ms left, want %d and 600", got.CreationToken, got.CreationDeadlineMs, r.Table.CreationToken)
	}
	if got := router.NewBuilder(address).AddCreation(r, 5000); got.CreationDeadlineMs != 0 {
		t.Errorf("%d ms left after the deadline", got.CreationDeadlineMs)
	}
}
