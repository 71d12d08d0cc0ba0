package router_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

func (c *cluster) problem(id metasrv.RegionID, paused string, of map[uint64]router.Condition) string {
	r, err := router.Get(c.View(), id.Table())
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	h := router.Health{Paused: paused, Condition: func(replica *storagepb.ReplicaRecord) router.Condition {
		present, ok := registered(c.View(), metasrv.NodeID(replica.NodeId))
		if router.Lost(replica, present, ok) {
			return router.OtherStorage
		}
		return of[replica.NodeId]
	}}
	return h.Problem(r, r.Route.Regions[id.Number()])
}

func TestProblem(t *testing.T) {
	c := clusterFor(t)
	id := metasrv.RegionID(threeReplicas(c, "t").RegionId)
	expect := func(parts ...string) {
		t.Helper()
		got := c.problem(id, "", nil)
		if len(parts) == 0 && got != "" || slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(got, p) }) {
			t.Errorf("%q, want %q in it", got, parts)
		}
	}
	expect()
	c.change(to(c.region(id), &storagepb.BeginDemotion{}))
	expect("handed over")
	c.change(to(c.region(id), &storagepb.ElectReplica{ReplicaId: 2, FailedReplicaIds: []uint64{1}}))
	expect("replica 1 on node 1 is not in sync")
	c.change(to(c.region(id), &storagepb.RemoveReplica{ReplicaId: 1}))
	expect("2 of 3 replicas")
	c.change(to(c.region(id), &storagepb.AddReplica{NodeId: 4, Incarnation: c.incarnation(4)}))
	expect("2 of 3 replicas") // a learner is none yet
	c.change(to(c.region(id), &storagepb.SetInSync{ReplicaIds: []uint64{2, 3, 4}, Incarnation: c.incarnation(2)}))
	expect()
	c.registerStorage(2, 1)
	expect("its leader, replica 2, is lost", "nobody can write", "another replica is about to lead it")
}

// What nobody serves says why, and what would help.
func TestProblemOfFailedNodes(t *testing.T) {
	type nodes = map[uint64]router.Condition
	for name, c := range map[string]struct {
		unclean bool
		nodes   nodes
		paused  string
		want    string
	}{
		"about to be elected": {false, nodes{1: router.Failed}, "", "nothing is heard of node 1, which leads it with replica 1; nobody can write; another replica is about to lead it"},
		"paused":              {false, nodes{1: router.Failed}, "of a storm", "another replica could lead it, but of a storm"},
		"all failed":          {false, nodes{1: router.Failed, 2: router.Down, 3: router.Failed}, "", "start node 1 or 2 or 3 again"},
		"one is left":         {false, nodes{1: router.Absent, 2: router.OtherStorage, 3: router.Down}, "", "start node 3 again"},
		"unclean later":       {true, nodes{1: router.Absent, 2: router.OtherStorage, 3: router.Down}, "", "may lack rows is elected"},
		"none is left":        {false, nodes{1: router.Absent, 2: router.OtherStorage, 3: router.Absent}, "", "restore it from a backup"},
		"removed":             {false, nodes{1: router.Removed, 2: router.OtherStorage, 3: router.Absent}, "", "replica 1, is lost: node 1 was removed; nobody can write; no replica that was in sync is left"},
		"a removed follower":  {false, nodes{2: router.Removed}, "", "replica 2 is lost: node 2 was removed"},
		"keeps no leases":     {false, nodes{1: router.UnleasedSilent}, "", "keeps no leases: no other node is given the region, start that one again"},
		"a group's writer":    {false, nodes{1: router.GroupSilent}, "", "as the writer of its group; nobody can write; the node that the group's nodes get as their next writer leads it then"},
		"set back":            {false, nodes{1: router.SetBack}, "", "its disk was set back to an earlier state, put the newer one back; nobody can write; another replica is about to lead it"},
		"the last, set back":  {false, nodes{1: router.SetBack, 2: router.OtherStorage, 3: router.Absent}, "", "no replica that was in sync is left"},
		"a halted group":      {false, nodes{1: router.GroupSilent}, "of a storm", "the group gets no other writer, because of a storm"},
		"a follower":          {false, nodes{2: router.Failed}, "", "nothing is heard of node 2, whose replica 2 is in sync"},
		"absent follower":     {false, nodes{2: router.Absent}, "", "node 2 doesn't have replica 2, which is in sync"},
	} {
		cl := clusterFor(t)
		id := metasrv.RegionID(threeReplicas(cl, "t", func(cmd *storagepb.CreateTable) { cmd.UncleanFailover = c.unclean }).RegionId)
		if got := cl.problem(id, c.paused, c.nodes); !strings.Contains(got, c.want) {
			t.Errorf("%s: %q, want %q in it", name, got, c.want)
		}
	}
}

// The reasons that are counted: nodes that keep no leases are not those of groups.
func TestStandstill(t *testing.T) {
	region := &storagepb.RegionRecord{LeaderReplicaId: 1, Replicas: []*storagepb.ReplicaRecord{{ReplicaId: 1, InSync: true}, {ReplicaId: 2, InSync: true}}}
	for why, of := range map[string][2]router.Condition{
		router.StandstillGroup: {router.GroupSilent, router.GroupSilent}, router.StandstillUnleased: {router.UnleasedSilent, router.Unleased},
		router.StandstillSilent: {router.SetBack, router.Failed}, router.StandstillLost: {router.SetBack, router.Absent},
	} {
		if got := router.Standstill(region, func(r *storagepb.ReplicaRecord) router.Condition { return of[r.ReplicaId-1] }); got != why {
			t.Errorf("%v: %s, want %s", of, got, why)
		}
	}
}

// A learner has not all rows, so nobody is told to read it. What was removed from a region, and nothing else, is to be
// dropped: a replica that counts as lost may be all that is left.
func TestLearnersAndRemovedReplicas(t *testing.T) {
	c := clusterFor(t)
	id := metasrv.RegionID(threeReplicas(c, "t").RegionId)
	c.change(to(c.region(id), &storagepb.AddReplica{NodeId: 4, Incarnation: c.incarnation(4)}))
	followers := func() []uint64 {
		r, err := router.Get(c.View(), id.Table())
		if err != nil {
			t.Fatal(err)
		}
		return router.NewBuilder(func(metasrv.NodeID) string { return "" }).Add(r).RegionRoutes[0].FollowerReplicaIds
	}
	if got := followers(); !slices.Equal(got, []uint64{2, 3}) {
		t.Errorf("replicas to read beside the leader are %d", got)
	}
	c.change(to(c.region(id), &storagepb.SetInSync{ReplicaIds: []uint64{1, 2, 3, 4}, Incarnation: c.incarnation(1)}))
	if got := followers(); !slices.Equal(got, []uint64{2, 3, 4}) {
		t.Errorf("replicas to read once the learner is in sync are %d", got)
	}
	c.registerStorage(3, 1)
	c.change(to(c.region(id), &storagepb.RemoveReplica{ReplicaId: 2}))
	for node, wantDrop := range map[metasrv.NodeID]bool{1: false, 2: true, 3: false, 4: false} {
		report := []router.ReportedReplica{{Region: id, Replica: metasrv.ReplicaID(node)}} // numbered alike
		drop, _, err := router.ReplicasToDrop(c.View(), node, report)
		if err != nil || (len(drop) == 1) != wantDrop {
			t.Errorf("node %d is told to drop %v, %v", node, drop, err)
		}
	}
}

func TestAdoptRaisesWhatDatanodesCompare(t *testing.T) {
	c := clusterFor(t)
	region := threeReplicas(c, "t")
	id := metasrv.RegionID(region.RegionId)
	before, err := router.Route(c.View(), id.Table())
	if err != nil {
		t.Fatal(err)
	}
	tx := &overlay{View: c.View(), written: map[string][]byte{}}
	if err := router.Adopt(tx); err != nil {
		t.Fatal(err)
	}
	after, err := router.Route(tx, id.Table())
	if err != nil {
		t.Fatal(err)
	}
	const far = 1_000_000
	if r := after.Regions[0]; r.LeaderEpoch < region.LeaderEpoch+far || r.ConfVersion < region.ConfVersion+far ||
		after.RouteVersion < before.RouteVersion+far || router.NextReplicaID(tx) < router.NextReplicaID(c.View())+far {
		t.Errorf("after adoption the region is %v, the next replica %d", r, router.NextReplicaID(tx))
	}
	if r := after.Regions[0]; r.LeaderReplicaId != region.LeaderReplicaId || len(r.Replicas) != 3 {
		t.Errorf("adoption moved the region: %v", r)
	}
}

// overlay is a transaction that keeps what it writes beside the state.
type overlay struct {
	state.View
	written map[string][]byte
}

func (o *overlay) Get(key string) ([]byte, bool) {
	if value, ok := o.written[key]; ok {
		return value, true
	}
	return o.View.Get(key)
}
func (o *overlay) Put(key string, value []byte) { o.written[key] = value }
func (o *overlay) Delete(string)                {}
func (o *overlay) Now() state.LeaderTime        { return 0 }

func TestStorageOfTables(t *testing.T) {
	for storage, ok := range map[metasrvpb.StorageKind]bool{
		metasrvpb.StorageKind_STORAGE_KIND_UNSPECIFIED: true, metasrvpb.StorageKind_STORAGE_KIND_LOCAL: true,
		metasrvpb.StorageKind_STORAGE_KIND_SHARED: false, 99: false,
	} {
		_, err := router.PlanRegions(&metasrvpb.CreateRequest{TableName: tableName("t"), Storage: storage, Partitions: []*metasrvpb.Partition{{}}})
		if ok != (err == nil) || !ok && !strings.Contains(err.Error(), "storage") {
			t.Errorf("%s: %v", storage, err)
		}
	}
}
