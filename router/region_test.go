package router_test

import (
	"fmt"
	"testing"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

// What is read without decoding is what the records say, in whatever order it is asked for.
func TestRegionOfIsTheRecord(t *testing.T) {
	c := clusterFor(t)
	c.registerStorage(4, 7)
	regions := c.public("t", 5, 1, 2, 3).Route.Regions
	id := metasrv.RegionID(regions[0].RegionId)
	c.change(to(regions[1], &storagepb.BeginDemotion{}), to(regions[2], &storagepb.AddReplica{NodeId: 4, Incarnation: c.incarnation(4)}),
		to(regions[3], &storagepb.ElectReplica{ReplicaId: regions[3].Replicas[1].ReplicaId, FailedReplicaIds: []uint64{regions[3].Replicas[0].ReplicaId}}))
	route, err := router.Route(c.View(), id.Table())
	if err != nil {
		t.Fatal(err)
	}
	found := router.RegionsOf(c.View(), id.Table())
	check := func(region *storagepb.RegionRecord, replica *storagepb.ReplicaRecord) {
		t.Helper()
		got, ok, err := found.Find(metasrv.RegionID(region.RegionId), metasrv.ReplicaID(replica.ReplicaId))
		if err != nil || !ok {
			t.Fatalf("region %d: %v, %v", region.RegionId, ok, err)
		}
		role := metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
		if replica.Learner {
			role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
		}
		if replica.ReplicaId == region.LeaderReplicaId {
			role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
		}
		want := router.ReplicaState{
			ID: metasrv.ReplicaID(replica.ReplicaId), Node: metasrv.NodeID(replica.NodeId), Role: role, InSync: replica.InSync,
			StorageGeneration: replica.StorageGeneration,
		}
		if got.Replica == nil || *got.Replica != want || got.Table != public || uint64(got.Leader) != region.LeaderReplicaId ||
			got.LeaderEpoch != region.LeaderEpoch || got.ConfVersion != region.ConfVersion || got.Demoting != region.Demoting {
			t.Errorf("%+v %+v is read of %v", got, got.Replica, region)
		}
	}
	for _, region := range route.Regions {
		for _, replica := range region.Replicas {
			check(region, replica)
		}
	}
	for i := len(route.Regions) - 1; i >= 0; i-- {
		check(route.Regions[i], route.Regions[i].Replicas[0])
	}
	if r, ok, err := found.Find(id, 99); err != nil || !ok || r.Replica != nil {
		t.Errorf("a replica that the region doesn't have: %+v, %v, %v", r, ok, err)
	}
	for _, other := range []metasrv.RegionID{id + 5, metasrv.NewRegionID(99, 0)} {
		if _, ok, err := router.RegionOf(c.View(), other, 1); ok || err != nil {
			t.Errorf("region %s: %v, %v", other, ok, err)
		}
	}
	creation := c.create("creating", 1, 1, 2).Route.Regions[0]
	if r, ok, err := router.RegionOf(c.View(), metasrv.RegionID(creation.RegionId), metasrv.ReplicaID(creation.LeaderReplicaId)); err != nil || !ok || r.Table != creating {
		t.Errorf("a region of a table that is CREATING: %+v, %v, %v", r, ok, err)
	}
}

// BenchmarkRegionOf judges every replica of a table by itself, BenchmarkRegionsOf all of them in one pass.
func BenchmarkRegionOf(b *testing.B) {
	for _, n := range []int{1, 10, 1000} {
		c := clusterFor(b)
		regions := c.public("t", n, 1, 2).Route.Regions
		view := c.View()
		for name, find := range map[string]func(region *storagepb.RegionRecord, all *router.Regions) (router.RegionState, bool, error){
			"each": func(r *storagepb.RegionRecord, _ *router.Regions) (router.RegionState, bool, error) {
				return router.RegionOf(view, metasrv.RegionID(r.RegionId), metasrv.ReplicaID(r.LeaderReplicaId))
			},
			"all": func(r *storagepb.RegionRecord, all *router.Regions) (router.RegionState, bool, error) {
				return all.Find(metasrv.RegionID(r.RegionId), metasrv.ReplicaID(r.LeaderReplicaId))
			},
		} {
			b.Run(fmt.Sprintf("%s/%d", name, n), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					all := router.RegionsOf(view, metasrv.RegionID(regions[0].RegionId).Table())
					for _, region := range regions {
						if r, ok, err := find(region, all); !ok || err != nil || r.Replica == nil {
							b.Fatal(ok, err)
						}
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/region")
			})
		}
	}
}
