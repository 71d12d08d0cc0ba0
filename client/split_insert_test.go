package client

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router/partition"
)

func hosts(names ...string) [][]partition.Value {
	var rows [][]partition.Value
	for i, n := range names {
		rows = append(rows, []partition.Value{partition.Float64(float64(i)), partition.String(n)})
	}
	return rows
}

func TestSplitInsert(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("cpu", 1024, 1, "h", "p"))
	s.put(routeOf("mem", 1025, 1, "m"))
	c := s.cache(t)
	columns := []string{"usage", "host"}
	groups, err := c.SplitInsert(t.Context(), []Insert{
		{Table: tableNamed("cpu"), Columns: columns, Rows: hosts("z", "a", "p", "b")},
		{Table: tableNamed("mem"), Columns: []string{"host"}, Rows: [][]partition.Value{{partition.String("a")}}},
		{Table: tableNamed("cpu"), Columns: columns, Rows: hosts("i")},
		{Table: tableNamed("cpu"), Columns: columns},
	})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, g := range groups {
		got = append(got, fmt.Sprintf("%d %s %s %v", g.Insert, g.Region.ID, g.Endpoint.Addr, g.Rows))
		if g.Endpoint != g.Region.Leader || &g.Route.Regions[g.Region.Partition] != g.Region {
			t.Errorf("group %+v contradicts itself", g)
		}
	}
	want := []string{
		"0 1024/0 node-1:1 [1 3]",
		"0 1024/2 node-3:1 [0 2]",
		"1 1025/0 node-1:1 [0]",
		"2 1024/1 node-2:1 [0]",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if calls := s.fetches(); len(calls) != 1 {
		t.Errorf("calls: %v", calls)
	}
}

func TestSplitInsertRefuses(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("cpu", 1024, 1))
	opaque := routeOf("opaque", 1025, 1, "m")
	opaque.Table.PartitionRule = nil
	s.put(opaque)
	c := s.cache(t)
	tests := []struct {
		name   string
		insert Insert
		reason string
		want   string
	}{
		{"unknown table", Insert{Table: tableNamed("no")}, "TABLE_NOT_FOUND", "c.s.no"},
		{"bad value", Insert{Table: tableNamed("cpu"), Columns: []string{"host"},
			Rows: [][]partition.Value{{partition.Int64(1)}}}, "INVALID_ARGUMENT", "table c.s.cpu: host: row 0"},
		{"missing column", Insert{Table: tableNamed("cpu"), Columns: []string{"usage"}}, "INVALID_ARGUMENT", "host"},
		{"opaque partitions", Insert{Table: tableNamed("opaque")}, "UNKNOWN_PARTITIONS", "2 regions and a rule of 1"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			groups, err := c.SplitInsert(t.Context(), []Insert{test.insert})
			if Reason(err) != test.reason || !strings.Contains(err.Error(), test.want) || groups != nil {
				t.Errorf("got %v, %v", groups, err)
			}
		})
	}
}

// No datanode tells that a region got a leader again, so the route is read again when the leader is needed.
func TestSplitInsertWaitsForNoLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScriptedRouter()
		s.put(withoutLeader(routeOf("cpu", 1024, 1, "m"), 1))
		c := s.cacheInBubble(t)
		insert := func(host string) error {
			_, err := c.SplitInsert(t.Context(), []Insert{
				{Table: tableNamed("cpu"), Columns: []string{"host"}, Rows: [][]partition.Value{{partition.String(host)}}},
			})
			return err
		}
		if err := insert("a"); err != nil {
			t.Errorf("a region that has a leader: %v", err)
		}
		err := insert("x")
		if !errors.Is(err, ErrRegionUnavailable) || !strings.Contains(err.Error(), "1024/1 of table c.s.cpu") {
			t.Errorf("got %v, want ErrRegionUnavailable naming the region", err)
		}
		if n := len(s.fetches()); n != 1 {
			t.Errorf("%d fetches of a fresh route", n)
		}
		time.Sleep(2 * leaderlessAge) // simulated
		if err := insert("x"); !errors.Is(err, ErrRegionUnavailable) {
			t.Errorf("got %v, want ErrRegionUnavailable", err)
		}
		s.put(routeOf("cpu", 1024, 2, "m"))
		time.Sleep(2 * leaderlessAge)
		if err := insert("x"); err != nil {
			t.Errorf("the leader is back: %v", err)
		}
		if n := len(s.fetches()); n != 3 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestPlanSelect(t *testing.T) {
	m := routeOf("cpu", 1024, 1, "h", "p")
	addrs := func(preference Preference, conditions ...partition.Condition) [][]string {
		r, err := NewTableRoute(m, scriptPeers) // a new one, so that turns start at 0
		if err != nil {
			t.Fatal(err)
		}
		var got [][]string
		for range 2 {
			tasks, err := PlanSelect(r, conditions, preference)
			if err != nil {
				t.Fatal(err)
			}
			for _, task := range tasks {
				of := []string{task.Region.ID.String()}
				for _, e := range task.Endpoints {
					of = append(of, e.Addr[:len("node-1")])
				}
				got = append(got, of)
			}
		}
		return got
	}
	equal := partition.Condition{Column: "host", Op: partition.OpEqual, Values: []partition.Value{partition.String("a")}}
	above := partition.Condition{Column: "host", Op: partition.OpGreaterOrEqual, Values: []partition.Value{partition.String("h")}}
	tests := []struct {
		name string
		got  [][]string
		want [][]string
	}{
		{"followers in turn", addrs(FollowersFirst, equal),
			[][]string{{"1024/0", "node-2", "node-3", "node-1"}, {"1024/0", "node-3", "node-2", "node-1"}}},
		{"leader first", addrs(LeaderFirst, equal),
			[][]string{{"1024/0", "node-1", "node-2", "node-3"}, {"1024/0", "node-1", "node-3", "node-2"}}},
		{"range", addrs(FollowersFirst, above), [][]string{
			{"1024/1", "node-1", "node-3", "node-2"}, {"1024/2", "node-1", "node-2", "node-3"},
			{"1024/1", "node-3", "node-1", "node-2"}, {"1024/2", "node-2", "node-1", "node-3"},
		}},
		{"contradiction", addrs(FollowersFirst, equal, above), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, test.got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPlanSelectWithoutReplicas(t *testing.T) {
	m := withoutLeader(routeOf("cpu", 1024, 1, "m"), 1)
	r, err := NewTableRoute(m, scriptPeers)
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := PlanSelect(r, nil, LeaderFirst)
	if err != nil || len(tasks) != 2 || len(tasks[1].Endpoints) != 2 {
		t.Fatalf("followers serve a region without leader: %v, %v", tasks, err)
	}
	m.RegionRoutes[1].FollowerPeerIndexes = nil
	if r, err = NewTableRoute(m, scriptPeers); err != nil {
		t.Fatal(err)
	}
	if _, err := PlanSelect(r, nil, FollowersFirst); !errors.Is(err, ErrRegionUnavailable) {
		t.Errorf("got %v, want ErrRegionUnavailable", err)
	}
}

// A table whose partitions are unknown can be read as a whole.
func TestPlanSelectOpaque(t *testing.T) {
	m := routeOf("cpu", 1024, 1, "m")
	m.Table.PartitionRule = nil
	r, err := NewTableRoute(m, scriptPeers)
	if err != nil {
		t.Fatal(err)
	}
	if tasks, err := PlanSelect(r, nil, LeaderFirst); err != nil || len(tasks) != 2 {
		t.Errorf("got %v, %v", tasks, err)
	}
}

func TestNewTableRouteRefuses(t *testing.T) {
	for _, peers := range [][]*metasrvpb.Peer{nil, scriptPeers[:2]} {
		if _, err := NewTableRoute(routeOf("cpu", 1024, 1, "m"), peers); !errors.Is(err, metasrv.ErrInternal) {
			t.Errorf("got %v, want ErrInternal", err)
		}
	}
}

// Partition numbers decide, not the order of the answer.
func TestNewTableRouteOrdersRegions(t *testing.T) {
	m := routeOf("cpu", 1024, 1, "m")
	m.RegionRoutes[0], m.RegionRoutes[1] = m.RegionRoutes[1], m.RegionRoutes[0]
	r, err := NewTableRoute(m, scriptPeers)
	if err != nil {
		t.Fatal(err)
	}
	if r.Regions[0].ID.Number() != 0 || r.Regions[1].ID.Number() != 1 {
		t.Errorf("regions: %v", r.Regions)
	}
	if _, err := r.Partitioner(); err != nil {
		t.Error(err)
	}
	m.RegionRoutes[0].Region.PartitionNumber = 7
	if r, err = NewTableRoute(m, scriptPeers); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Partitioner(); !errors.Is(err, ErrUnknownPartitions) {
		t.Errorf("got %v, want ErrUnknownPartitions", err)
	}
}
