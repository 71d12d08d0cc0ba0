package router_test

import (
	"strconv"
	"testing"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

// A node that reports just what Placements say is settled agrees with the state, and one that reports it otherwise does not.
func TestPlacementsAreWhatAgrees(t *testing.T) {
	c := newCluster(t)
	c.public("t", 3, 1, 2)
	c.create("creating", 2, 1, 2)
	regions := []metasrv.RegionID{metasrv.NewRegionID(1024, 0), metasrv.NewRegionID(1024, 1), metasrv.NewRegionID(1024, 2)}
	c.change(to(c.region(regions[0]), &storagepb.AddReplica{NodeId: 4, Incarnation: c.incarnation(4)}))
	c.change(to(c.region(regions[1]), &storagepb.BeginDemotion{}))

	settled := map[metasrv.NodeID][]router.ReportedReplica{}
	unsettled := map[metasrv.RegionID]bool{}
	if err := router.Placements(c.View(), func(p router.Placement) {
		if p.Settled {
			settled[p.Node] = append(settled[p.Node], p.Report)
		} else {
			unsettled[p.Report.Region] = true
		}
	}); err != nil {
		t.Fatal(err)
	}
	if len(unsettled) != 3 || !unsettled[regions[1]] || len(settled[1]) != 2 || len(settled[4]) != 1 ||
		settled[4][0].Role != metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER {
		t.Fatalf("settled are %+v, not settled %v", settled, unsettled)
	}
	agree := func(node metasrv.NodeID, report []router.ReportedReplica) (instructions int) {
		a, err := router.Agree(c.View(), router.Reporter{Node: node, KeepsLeases: true}, 1024, report,
			func(metasrv.NodeID) string { return "" })
		if err != nil {
			t.Fatal(err)
		}
		for i, r := range report {
			leads := r.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
			if want := map[bool]router.Standing{true: router.Leading, false: router.Idle}[leads]; len(a.Instructions) == 0 && a.Standings[i] != want {
				t.Errorf("node %d, %+v: standing %v", node, r, a.Standings[i])
			}
		}
		for _, i := range a.Instructions { // of the region that is demoting, and is not reported here
			if i.GetOpenRegion().GetConfig().GetRegionId() != uint64(regions[1]) {
				instructions++
			}
		}
		return instructions
	}
	for node, report := range settled {
		if n := agree(node, report); n != 0 {
			t.Errorf("node %d is told %d instructions for what it reports as the state has it", node, n)
		}
		for i := range report {
			other := append([]router.ReportedReplica{}, report...)
			other[i].ConfVersion++
			if agree(node, other) == 0 {
				t.Errorf("node %d: another configuration of %+v goes unnoticed", node, report[i])
			}
		}
	}
}

// BenchmarkPlacements is the pass of a new metasrv leader over 100,000 replicas.
func BenchmarkPlacements(b *testing.B) {
	c := newCluster(b)
	for i := range 500 {
		c.public("t"+strconv.Itoa(i), 100, 1, 2, 3, 4)
	}
	b.ReportAllocs()
	for b.Loop() {
		count := 0
		if err := router.Placements(c.View(), func(router.Placement) { count++ }); err != nil || count != 100_000 {
			b.Fatal(count, err)
		}
	}
}
