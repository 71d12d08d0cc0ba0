package router_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/router"
)

// regionLife changes the regions of two tables at random, and remembers what may never come again.
type regionLife struct {
	*cluster
	// before are the regions before the last command, versions has those of the routes.
	before   map[uint64]*storagepb.RegionRecord
	versions map[uint64]uint64
	// removed are replica ids that a region had.
	removed map[uint64]bool
	// generation is that of each node's storage.
	generation map[uint64]uint64
	// planned are changes of regions as they were once.
	planned []*storagepb.RegionChange
}

// Whatever is changed in whatever order, by whoever knows how little of it: rules 19, 21, 22 and 24 hold.
func TestRegionInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &regionLife{
			cluster: clusterFor(t), before: map[uint64]*storagepb.RegionRecord{}, versions: map[uint64]uint64{},
			removed: map[uint64]bool{}, generation: map[uint64]uint64{},
		}
		threeReplicas(l.cluster, "a", unclean)
		threeReplicas(l.cluster, "b")
		pending := l.create("pending", 2, 1, 2)
		l.check(t)
		t.Repeat(map[string]func(*rapid.T){
			"change": l.change, "late change": l.lateChange, "more changes": l.change, "even more": l.change,
			"storage":  l.replaceStorage,
			"register": func(t *rapid.T) { l.registerStorage(l.anyNode(t)) },
			"legacy": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "rarely") == 0 {
					l.registerLegacy(anyNode(t))
				}
			},
			"unregister": func(t *rapid.T) {
				if rapid.IntRange(0, 3).Draw(t, "rarely") == 0 {
					l.unregister(anyNode(t))
				}
			},
			"commit": func(*rapid.T) { _, _ = l.propose(commitTable, commitOf(pending)) },
			"drop":   func(t *rapid.T) { _, _ = l.propose(dropTable, dropOf(anyName(t))) },
			"":       l.check,
		})
	})
}

func (l *regionLife) anyNode(t *rapid.T) (uint64, uint64) {
	node := anyNode(t)
	return node, l.generation[node]
}

func (l *regionLife) replaceStorage(t *rapid.T) {
	node := anyNode(t)
	l.generation[node]++
	l.registerStorage(node, l.generation[node])
}

// change proposes some changes, of which the state is known or nearly so.
func (l *regionLife) change(t *rapid.T) {
	var changes []*storagepb.RegionChange
	for range rapid.IntRange(1, 3).Draw(t, "changes") {
		changes = append(changes, l.anyChange(t))
	}
	l.planned = append(l.planned, changes...)
	l.cluster.change(changes...)
}

// lateChange proposes a change that was planned once before.
func (l *regionLife) lateChange(t *rapid.T) {
	if len(l.planned) > 0 {
		l.cluster.change(rapid.SampledFrom(l.planned).Draw(t, "planned"))
	}
}

func (l *regionLife) anyChange(t *rapid.T) *storagepb.RegionChange {
	var regions []*storagepb.RegionRecord
	for route, err := range router.Routes(l.View()) {
		if err != nil {
			t.Fatal(err)
		}
		regions = append(regions, route.Regions...)
	}
	if len(regions) == 0 {
		t.Skip("no region")
	}
	region := rapid.SampledFrom(regions).Draw(t, "region")
	var ids []uint64
	for _, r := range region.Replicas {
		ids = append(ids, r.ReplicaId)
	}
	replica := func(label string) uint64 { return rapid.SampledFrom(ids).Draw(t, label) }
	some := func(label string) []uint64 { return rapid.SliceOfN(rapid.SampledFrom(ids), 0, 3).Draw(t, label) }
	var change any
	switch rapid.IntRange(0, 4).Draw(t, "kind") {
	case 0:
		change = &storagepb.ElectReplica{ReplicaId: replica("elected"), FailedReplicaIds: some("failed"), Unclean: rapid.Bool().Draw(t, "unclean")}
	case 1:
		change = &storagepb.BeginDemotion{}
	case 2:
		set := &storagepb.SetInSync{ReplicaIds: some("set")}
		if rapid.Bool().Draw(t, "by the leader") {
			for _, r := range region.Replicas {
				if r.ReplicaId == region.LeaderReplicaId {
					set.Incarnation = l.incarnation(r.NodeId)
				}
			}
			set.ReplicaIds = append(set.ReplicaIds, region.LeaderReplicaId)
		}
		change = set
	case 3:
		node := anyNode(t)
		change = &storagepb.AddReplica{NodeId: node, Incarnation: l.incarnation(node)}
	default:
		change = &storagepb.RemoveReplica{ReplicaId: replica("removed")}
	}
	return to(region, change)
}

func (l *regionLife) check(t *rapid.T) {
	for r, err := range router.Tables(l.View()) {
		if err != nil {
			t.Fatal(err)
		}
		isPublic := r.Table.State == public
		if v := r.Route.RouteVersion; v < l.versions[r.Table.Id] {
			t.Fatalf("the version of the route of table %d fell to %d", r.Table.Id, v)
		}
		l.versions[r.Table.Id] = r.Route.RouteVersion
		for _, region := range r.Route.Regions {
			if before := l.before[region.RegionId]; before != nil {
				l.checkStep(t, before, region, isPublic)
			}
			if isPublic {
				l.checkRegion(t, region)
			}
			l.before[region.RegionId] = region
		}
	}
}

// checkRegion checks a region of a PUBLIC table by itself.
func (l *regionLife) checkRegion(t *rapid.T, region *storagepb.RegionRecord) {
	nodes := map[uint64]bool{}
	leaderInSync := false
	for _, r := range region.Replicas {
		if nodes[r.NodeId] {
			t.Fatalf("two replicas on node %d: %v", r.NodeId, region)
		}
		nodes[r.NodeId] = true
		if r.InSync && r.Learner {
			t.Fatalf("a learner is in the in-sync set: %v", region)
		}
		leaderInSync = leaderInSync || r.InSync && r.ReplicaId == region.LeaderReplicaId
		if r.ReplicaId >= uint64(router.NextReplicaID(l.View())) || l.removed[r.ReplicaId] {
			t.Fatalf("replica id %d was used twice, or not taken from the sequence: %v", r.ReplicaId, region)
		}
	}
	if !leaderInSync {
		t.Fatalf("the leader is not in the in-sync set: %v", region)
	}
}

// checkStep checks what a command made of a region.
func (l *regionLife) checkStep(t *rapid.T, before, after *storagepb.RegionRecord, mayChange bool) {
	if proto.Equal(before, after) {
		return
	}
	switch {
	case !mayChange && after.ConfVersion != before.ConfVersion:
		t.Fatalf("a region of a table that is not PUBLIC went from %v to %v", before, after)
	case after.LeaderEpoch < before.LeaderEpoch || after.ConfVersion <= before.ConfVersion && mayChange:
		t.Fatalf("from %v to %v", before, after)
	case after.LeaderReplicaId != before.LeaderReplicaId && after.LeaderEpoch == before.LeaderEpoch:
		t.Fatalf("another leader in the same epoch: from %v to %v", before, after)
	}
	now := map[uint64]bool{}
	for _, r := range after.Replicas {
		now[r.ReplicaId] = true
		node, ok := registered(l.View(), metasrv.NodeID(r.NodeId))
		if r.ReplicaId == after.LeaderReplicaId && after.LeaderEpoch > before.LeaderEpoch && ok && r.StorageGeneration < node.StorageGeneration {
			t.Fatalf("a lost replica was elected: from %v to %v", before, after)
		}
	}
	for _, r := range before.Replicas {
		if !now[r.ReplicaId] {
			l.removed[r.ReplicaId] = true
		}
	}
}
