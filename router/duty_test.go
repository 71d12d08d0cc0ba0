package router_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

func TestPlanAborts(t *testing.T) {
	c := newCluster(t)
	c.create("early", 1, 1)           // 1024, deadline 1000
	c.create("on_dead_node", 2, 2, 3) // 1025, the same
	c.public("public", 1, 2)
	c.must(abortTable, abortOf(c.create("aborted", 1, 2)))
	c.Advance(500 * time.Millisecond)
	late := c.create("late", 1, 1) // 1028, deadline 1500

	alive := func(metasrv.NodeID, metasrv.Incarnation) (bool, string) { return false, "" }
	dead := func(id metasrv.NodeID, i metasrv.Incarnation) (bool, string) {
		return id == 3 && i == metasrv.Incarnation(c.incarnation(3)), "is down"
	}
	tests := []struct {
		name string
		now  state.LeaderTime
		gone func(metasrv.NodeID, metasrv.Incarnation) (bool, string)
		want map[metasrv.TableID]string
	}{
		{"before the deadlines", 999, alive, nil},
		{"dead node", 999, dead, map[metasrv.TableID]string{1025: "node 3, planned for region 1025/0, is down"}},
		{"first deadline", 1000, alive, map[metasrv.TableID]string{1024: "deadline", 1025: "deadline"}},
		{"all deadlines", 1500, alive, map[metasrv.TableID]string{1024: "deadline", 1025: "deadline", 1028: "deadline"}},
	}
	var creations router.Creations
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			aborts, err := creations.PlanAborts(c.View(), tt.now, tt.gone)
			if err != nil {
				t.Fatal(err)
			}
			if len(aborts) != len(tt.want) {
				t.Errorf("aborts = %v, want %v", aborts, tt.want)
			}
			for _, a := range aborts {
				if why := tt.want[a.Table]; why == "" || !strings.Contains(a.Reason, why) {
					t.Errorf("table %d: %q, want %q", a.Table, a.Reason, why)
				}
			}
		})
	}
	aborts, err := creations.PlanAborts(c.View(), 1000, alive)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range aborts {
		if got := c.must(abortTable, a.Command()); got.Table.State != aborting {
			t.Errorf("table %d is %s, want ABORTING", a.Table, got.Table.State)
		}
	}
	// What was seen before is not taken for what is.
	if aborts, err := creations.PlanAborts(c.View(), 1499, dead); err != nil || len(aborts) > 0 {
		t.Errorf("creations that were aborted: %v, %v", aborts, err)
	}
	c.must(commitTable, commitOf(late))
	c.create("later", 1, 3)
	if aborts, err := creations.PlanAborts(c.View(), 1499, dead); err != nil || len(aborts) != 1 || aborts[0].Table != 1029 {
		t.Errorf("a creation that began since: %v, %v", aborts, err)
	}
	if aborts, err := creations.PlanAborts(c.View(), 1500, alive); err != nil || len(aborts) != 1 || aborts[0].Table != 1029 {
		t.Errorf("beside a table that was committed: %v, %v", aborts, err)
	}
}

func TestReplicasToDrop(t *testing.T) {
	c := newCluster(t)
	c.public("public", 2, 1, 2)                                           // 1024, replicas 1 to 4
	c.create("creating", 1, 1)                                            // 1025, replica 5
	c.must(abortTable, abortOf(c.create("aborted", 1, 1)))                // 1026, replica 6
	c.public("dropped", 2, 1, 2)                                          // 1027, replicas 7 to 10
	c.must(dropTable, dropOf("dropped"))                                  //
	forgotten := c.must(abortTable, abortOf(c.create("forgotten", 1, 1))) // 1028, replica 11
	c.must(confirmDropped, c.confirmOf(forgotten, 1))

	on := func(table metasrv.TableID, number uint32, replica metasrv.ReplicaID) router.ReportedReplica {
		return router.ReportedReplica{Region: metasrv.NewRegionID(table, number), Replica: replica, LeaderEpoch: 3, ConfVersion: 4}
	}
	all := []router.ReportedReplica{on(1026, 0, 6), on(1027, 0, 7), on(1027, 1, 10)}
	tests := []struct {
		name      string
		report    []router.ReportedReplica
		drop      string // part of the reason, "" where nothing is dropped
		confirmed []metasrv.ReplicaID
	}{
		{"public", append(all, on(1024, 0, 1), on(1024, 1, 4)), "", nil},
		{"being created", append(all, on(1025, 0, 5)), "", nil},
		{"of the early protocol", append(all, on(1024, 0, 0)), "", nil},
		{"on another node in the state", append(all, on(1024, 0, 2)), "", nil},
		{"unknown table", append(all, on(1029, 0, 1)), "", nil},
		{"system table", append(all, on(7, 0, 1)), "", nil},
		{"unknown replica", append(all, on(1024, 0, 12)), "", nil},
		{"unknown replica of a forgotten table", append(all, on(1028, 0, 12)), "", nil},
		{"removed replica", append(all, on(1024, 0, 11)), "replica 11 was removed from region 1024/0", nil},
		{"forgotten table", append(all, on(1028, 0, 11)), "table 1028 does not exist any more", nil},
		{"forgotten table of the early protocol", append(all, on(1028, 0, 0)), "table 1028 does not exist any more", nil},
		{"other replica of a dropped table", append(all, on(1027, 0, 9)), "was dropped", nil},
		{"aborted is gone", all[1:], "", []metasrv.ReplicaID{6}},
		{"all are gone", nil, "", []metasrv.ReplicaID{6, 7, 10}},
		{"dropped, reported by the early protocol", []router.ReportedReplica{on(1026, 0, 0), on(1027, 0, 0), on(1027, 1, 0)}, "", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			drop, confirmed, err := router.ReplicasToDrop(c.View(), 1, tt.report)
			if err != nil {
				t.Fatal(err)
			}
			// Those of retired tables always go.
			want := 0
			for _, r := range tt.report {
				if table := r.Region.Table(); table == 1026 || table == 1027 {
					want++
				}
			}
			last := ""
			if len(drop) > 0 {
				last = drop[len(drop)-1].Reason
			}
			if tt.drop != "" && !strings.Contains(last, tt.drop) {
				t.Errorf("reason %q, want %q", last, tt.drop)
			}
			if tt.drop != "" && tt.report[len(tt.report)-1].Region.Table() != 1027 {
				want++
			}
			if len(drop) != want {
				t.Errorf("%d instructions, want %d: %v", len(drop), want, drop)
			}
			var ids []metasrv.ReplicaID
			for _, r := range confirmed {
				ids = append(ids, metasrv.ReplicaID(r.ReplicaId))
			}
			if diff := cmp.Diff(tt.confirmed, ids); diff != "" {
				t.Errorf("confirmed: %s", diff)
			}
		})
	}
}

func TestDropInstruction(t *testing.T) {
	c := newCluster(t)
	r := c.must(abortTable, abortOf(c.create("t", 1, 1)))
	report := []router.ReportedReplica{{Region: metasrv.NewRegionID(1024, 0), Replica: 1, LeaderEpoch: 3, ConfVersion: 4}}
	drop, _, err := router.ReplicasToDrop(c.View(), 1, report)
	if err != nil {
		t.Fatal(err)
	}
	want := []*metasrvpb.DropRegion{{RegionId: r.Route.Regions[0].RegionId, ReplicaId: 1, LeaderEpoch: 3, ConfVersion: 4,
		Reason: `creation of table "c.s.t" (id 1024) was aborted: a test`}}
	if diff := cmp.Diff(want, drop, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// From the drop to the last record: what the metasrv leader does at each report of each node.
func TestDropIsCarriedOut(t *testing.T) {
	c := newCluster(t)
	created := c.public("t", 3, 1, 2, 3)
	c.must(dropTable, dropOf("t"))
	for node := range uint64(3) {
		_, confirmed, err := router.ReplicasToDrop(c.View(), metasrv.NodeID(node+1), nil)
		if err != nil || len(confirmed) != 2 {
			t.Fatalf("node %d: confirmed = %v, %v", node+1, confirmed, err)
		}
		c.must(confirmDropped, &storagepb.ConfirmDropped{NodeId: node + 1, Incarnation: c.incarnation(node + 1), Replicas: confirmed})
		if _, again, _ := router.ReplicasToDrop(c.View(), metasrv.NodeID(node+1), nil); len(again) > 0 {
			t.Errorf("node %d is to confirm twice: %v", node+1, again)
		}
	}
	for r, err := range router.Tables(c.View()) {
		t.Errorf("left: %v, %v of %v", r, err, created)
	}
}
