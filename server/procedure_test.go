package server

import (
	"slices"
	"testing"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func migrate(region, from, to uint64) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_MigrateRegion{
		MigrateRegion: &metasrvpb.MigrateRegion{RegionId: region, FromNodeId: from, ToNodeId: to},
	}}
}

func transfer(region, to uint64) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_TransferRegionLeader{
		TransferRegionLeader: &metasrvpb.TransferRegionLeader{RegionId: region, ToNodeId: to},
	}}
}

func add(region, node uint64) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_AddRegionReplica{
		AddRegionReplica: &metasrvpb.AddRegionReplica{RegionId: region, NodeId: node},
	}}
}

func remove(region, node uint64) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_RemoveRegionReplica{
		RemoveRegionReplica: &metasrvpb.RemoveRegionReplica{RegionId: region, NodeId: node},
	}}
}

const done = metasrvpb.ProcedureState_PROCEDURE_STATE_DONE

// others returns the nodes but some, of n.
func others(n uint64, but ...uint64) []uint64 {
	var list []uint64
	for id := uint64(1); id <= n; id++ {
		if !slices.Contains(but, id) {
			list = append(list, id)
		}
	}
	return list
}

func TestProcedureKinds(t *testing.T) {
	c := newSimCluster(t, startLeader(t, simulated), 4)
	region := c.createTable("t", 1, 2)[0]
	settle := func(what string, leader uint64, nodes ...uint64) {
		t.Helper()
		slices.Sort(nodes)
		var got simRegion
		for range 3 { // the first looks may come before the nodes know
			eventually(t, what, func() bool {
				got = c.look(region)
				return got.holding
			})
		}
		if got.leader != leader || !slices.Equal(got.inSync, nodes) || len(got.others) != 0 {
			t.Fatalf("%s: region is %+v, want leader %d, in sync %v", what, got, leader, nodes)
		}
	}
	was := c.look(region)
	a, b := was.leader, others(4, was.leader, others(4, was.inSync...)[0], others(4, was.inSync...)[1])[0]
	free := others(4, a, b)

	if p := c.ended(c.mustRun(transfer(region, b)).GetProcedureId()); p.GetState() != done {
		t.Fatalf("transfer: %v", p)
	}
	settle("transferred", b, a, b)
	if p := c.ended(c.mustRun(migrate(region, b, free[0])).GetProcedureId()); p.GetState() != done {
		t.Fatalf("migration of the leader: %v", p)
	}
	settle("the leader migrated", free[0], a, free[0])
	if p := c.ended(c.mustRun(migrate(region, a, 0)).GetProcedureId()); p.GetState() != done {
		t.Fatalf("migration of a follower: %v", p)
	}
	got := c.look(region)
	if got.leader != free[0] || slices.Contains(got.inSync, a) || len(got.inSync) != 2 {
		t.Fatalf("the follower migrated: %+v", got)
	}
	third := others(4, got.inSync...)[0]
	if p := c.ended(c.mustRun(add(region, third)).GetProcedureId()); p.GetState() != done {
		t.Fatalf("addition: %v", p)
	}
	settle("added", free[0], append(got.inSync, third)...)
	if p := c.ended(c.mustRun(remove(region, free[0])).GetProcedureId()); p.GetState() != done {
		t.Fatalf("removal of the leader: %v", p)
	}
	if got := c.look(region); slices.Contains(got.inSync, free[0]) || len(got.inSync) != 2 {
		t.Fatalf("removed: %+v", got)
	}
}
