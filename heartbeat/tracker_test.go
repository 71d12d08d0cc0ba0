package heartbeat

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
)

const (
	live    = metasrvpb.NodeState_NODE_STATE_LIVE
	suspect = metasrvpb.NodeState_NODE_STATE_SUSPECT
	down    = metasrvpb.NodeState_NODE_STATE_DOWN
	unknown = metasrvpb.NodeState_NODE_STATE_UNKNOWN
)

func newTracker(t testing.TB) *Tracker {
	t.Helper()
	tracker, err := NewTracker(DefaultConfig(), 1, start)
	if err != nil {
		t.Fatal(err)
	}
	return tracker
}

func mustConnect(t testing.TB, tracker *Tracker, id metasrv.NodeID, incarnation metasrv.Incarnation) *stream {
	t.Helper()
	s, err := tracker.connect(id, incarnation, false)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func mustObserve(t testing.TB, tracker *Tracker, after time.Duration, s *stream, req *metasrvpb.HeartbeatRequest) {
	t.Helper()
	if _, err := tracker.observe(start.Add(after), s, req); err != nil {
		t.Fatal(err)
	}
}

func TestStates(t *testing.T) {
	n := memory.New(NewApplier())
	for _, id := range []uint64{1, 2} {
		if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(id), Info: info(id)}); err != nil {
			t.Fatal(err)
		}
	}
	tracker := newTracker(t)
	s := mustConnect(t, tracker, 1, 1)
	mustObserve(t, tracker, time.Second, s, &metasrvpb.HeartbeatRequest{})

	for _, c := range []struct {
		after        time.Duration
		node1, node2 metasrvpb.NodeState // heard at 1s; never heard
	}{
		{0, live, unknown}, // the beat arrived while the view was taken
		{1 * time.Second, live, unknown},
		{3999 * time.Millisecond, live, unknown},
		{4 * time.Second, suspect, unknown},
		{9999 * time.Millisecond, suspect, unknown},
		{10 * time.Second, suspect, down},
		{10999 * time.Millisecond, suspect, down},
		{11 * time.Second, down, down},
	} {
		nodes, err := tracker.Nodes(n.View(), start.Add(c.after))
		if err != nil || len(nodes) != 2 {
			t.Fatalf("%v, %v", nodes, err)
		}
		if nodes[0].State != c.node1 || nodes[1].State != c.node2 {
			t.Errorf("after %v: %v, %v; want %v, %v", c.after, nodes[0].State, nodes[1].State, c.node1, c.node2)
		}
		one, err := tracker.Node(n.View(), 1, start.Add(c.after))
		if err != nil || one.State != c.node1 {
			t.Errorf("after %v: node 1 alone %v, %v", c.after, one.State, err)
		}
		if one.Age < 0 || !one.Heard || nodes[1].Heard {
			t.Errorf("after %v: %+v", c.after, one)
		}
	}
	mustObserve(t, tracker, 20*time.Second, s, &metasrvpb.HeartbeatRequest{})
	if one, _ := tracker.Node(n.View(), 1, start.Add(20*time.Second)); one.State != live {
		t.Errorf("a beat doesn't bring a node back: %v", one.State)
	}
}

// TestNodesFollowsRecords is about the cache of decoded records.
func TestNodesFollowsRecords(t *testing.T) {
	n := memory.New(NewApplier())
	tracker := newTracker(t)
	for i, version := range []string{"1", "2", "2", "3"} {
		changed := info(1)
		changed.Version = version
		if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(1), Info: changed}); err != nil {
			t.Fatal(err)
		}
		nodes, err := tracker.Nodes(n.View(), start)
		if err != nil || len(nodes) != 1 || nodes[0].Record.Info.Version != version {
			t.Fatalf("step %d: %v, %v", i, nodes, err)
		}
	}
}

func TestStreams(t *testing.T) {
	tracker := newTracker(t)
	first := mustConnect(t, tracker, 1, 5)
	mustObserve(t, tracker, 0, first, &metasrvpb.HeartbeatRequest{FullReport: true, RegionStats: regionStats(2)})

	second := mustConnect(t, tracker, 1, 5)
	select {
	case <-first.replaced:
	default:
		t.Error("the first stream isn't told that it is replaced")
	}
	if _, err := tracker.observe(start, first, &metasrvpb.HeartbeatRequest{}); !errors.Is(err, metasrv.ErrStreamReplaced) {
		t.Errorf("beat on a replaced stream: %v", err)
	}
	tracker.disconnect(first)
	mustObserve(t, tracker, 0, second, &metasrvpb.HeartbeatRequest{})
	if got := tracker.AppendRegions(nil, 1); len(got) != 2 {
		t.Errorf("the process's report is lost with its stream: %v", got)
	}

	third := mustConnect(t, tracker, 1, 6)
	if got := tracker.AppendRegions(nil, 1); len(got) != 0 {
		t.Errorf("the report of another process is kept: %v", got)
	}
	if _, err := tracker.observe(start, second, &metasrvpb.HeartbeatRequest{}); !errors.Is(err, metasrv.ErrStaleIncarnation) {
		t.Errorf("beat of a stale incarnation: %v", err)
	}
	if _, err := tracker.connect(1, 5, false); !errors.Is(err, metasrv.ErrStaleIncarnation) {
		t.Errorf("stream of a stale incarnation: %v", err)
	}
	mustObserve(t, tracker, 0, third, &metasrvpb.HeartbeatRequest{})
}

func TestSequences(t *testing.T) {
	tracker := newTracker(t)
	s := mustConnect(t, tracker, 1, 1)
	for i, sequence := range []uint64{1, 2, 5, 5, 4, 6, 0} {
		mustObserve(t, tracker, time.Duration(i)*time.Second, s, &metasrvpb.HeartbeatRequest{
			Sequence: sequence, NodeStat: &metasrvpb.NodeStat{Rcus: sequence},
		})
		if i == 4 && s.node.stat.Rcus != 5 {
			t.Errorf("an old beat's statistics replaced newer ones: %v", s.node.stat)
		}
	}
	want := Anomalies{SequenceGaps: 2, SequenceRepeats: 2}
	if got := tracker.Anomalies(); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
	if got := s.node.lastBeat; !got.Equal(start.Add(6 * time.Second)) {
		t.Errorf("last beat %v", got)
	}
}

func TestRates(t *testing.T) {
	tracker := newTracker(t)
	s := mustConnect(t, tracker, 1, 1)
	for i, c := range []struct {
		start, end uint64
		rcus       uint64
		want       float64
	}{
		{1000, 3000, 10, 5},
		{3000, 4000, 10, 10},
		{3000, 5000, 30, 15}, // sent again with the next second
		{8000, 9000, 7, 7},   // something was lost
		{9000, 9000, 7, 7},   // one second passed here
		{9000, 9001, 1, 4},   // no load of 1,000 a second
	} {
		mustObserve(t, tracker, time.Duration(i)*time.Second, s, &metasrvpb.HeartbeatRequest{
			ReportInterval: &metasrvpb.TimeInterval{StartTimestampMillis: c.start, EndTimestampMillis: c.end},
			NodeStat:       &metasrvpb.NodeStat{Rcus: c.rcus, Wcus: 2 * c.rcus},
		})
		if got := s.node.rates; got != (Rates{RCUs: c.want, WCUs: 2 * c.want}) {
			t.Errorf("beat %d: %+v, want %v", i, got, c.want)
		}
	}
	want := Anomalies{PeriodGaps: 1, PeriodOverlaps: 1, BadPeriods: 1}
	if got := tracker.Anomalies(); got != want {
		t.Errorf("counted %+v, want %+v", got, want)
	}
}

func TestRegion(t *testing.T) {
	tracker := newTracker(t)
	s := mustConnect(t, tracker, 1, 1)
	stats := regionStats(100)
	mustObserve(t, tracker, 0, s, &metasrvpb.HeartbeatRequest{FullReport: true, RegionStats: stats})
	region := metasrv.RegionID(stats[42].RegionId)
	got, ok := tracker.Region(1, region, 43)
	if !ok || got.Stat().Wcus != 20 || got.Size != 1<<20 {
		t.Fatalf("%+v, %v", got, ok)
	}
	for _, missing := range []struct {
		node    metasrv.NodeID
		region  metasrv.RegionID
		replica metasrv.ReplicaID
	}{{2, region, 43}, {1, region + 1<<40, 43}, {1, region, 1000}} {
		if got, ok := tracker.Region(missing.node, missing.region, missing.replica); ok {
			t.Errorf("%+v: found %+v", missing, got)
		}
	}
	legacy, err := tracker.connect(2, 2, true)
	if err != nil {
		t.Fatal(err)
	}
	mustObserve(t, tracker, 0, legacy, &metasrvpb.HeartbeatRequest{RegionStats: []*metasrvpb.RegionStat{{RegionId: uint64(region), Rcus: 3}}})
	if got, ok := tracker.Region(2, region, 43); !ok || got.RCUs != 3 {
		t.Errorf("a legacy node's report of the region: %+v, %v", got, ok)
	}
	mustObserve(t, tracker, 0, legacy, &metasrvpb.HeartbeatRequest{})
	if got := tracker.AppendRegions(nil, 2); len(got) != 0 {
		t.Errorf("a legacy node's list is always full: %v", got)
	}
}

// TestReports checks the lists, kept in place, against a map.
func TestReports(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type key struct{ region, replica uint64 }
		model := map[key]uint64{}
		var list reports
		sum := uint64(0)
		for range rapid.IntRange(1, 8).Draw(t, "beats") {
			full := rapid.Bool().Draw(t, "full")
			if full {
				clear(model)
			}
			var stats []*metasrvpb.RegionStat
			var removed []*metasrvpb.ReplicaRef
			named := map[key]bool{}
			for range rapid.IntRange(0, 100).Draw(t, "replicas") {
				k := key{rapid.Uint64Range(1, 50).Draw(t, "region"), rapid.Uint64Range(0, 2).Draw(t, "replica")}
				if named[k] {
					continue
				}
				named[k] = true
				rows := rapid.Uint64().Draw(t, "rows")
				if !full && rapid.IntRange(0, 3).Draw(t, "gone") == 0 {
					delete(model, k)
					removed = append(removed, &metasrvpb.ReplicaRef{RegionId: k.region, ReplicaId: k.replica})
					continue
				}
				model[k] = rows
				stats = append(stats, &metasrvpb.RegionStat{
					RegionId: k.region, ReplicaId: k.replica, ApproximateRows: rows, LeaderEpoch: rows % 3,
				})
			}
			before := slices.Clone(list)
			var d delta
			if full {
				list, d = list.replace(stats)
			} else {
				list, d = list.update(stats, removed)
			}
			sum += d.digest
			checkDelta(t, before, list, sum, d)
			got := map[key]uint64{}
			for _, r := range list {
				got[key{uint64(r.Region), uint64(r.Replica)}] = r.Rows
			}
			if diff := cmp.Diff(model, got); diff != "" || len(list) != len(model) {
				t.Fatalf("%d entries:\n%s", len(list), diff)
			}
			if !slices.IsSortedFunc(list, RegionReport.compare) {
				t.Fatal("not sorted")
			}
		}
	})
}

// checkDelta: the digest is that of the lines, and every table is named in which a lease rests on something else now.
func checkDelta(t *rapid.T, before, after reports, sum uint64, d delta) {
	want := uint64(0)
	for _, r := range after {
		want += r.sum()
	}
	if sum != want {
		t.Fatalf("digest %x, want %x", sum, want)
	}
	differs := func(a, b reports) {
		for _, r := range a {
			i, ok := b.search(r.Region, r.Replica)
			if (!ok || !b[i].agreesWith(r)) && !slices.Contains(d.tables, r.Region.Table()) {
				t.Fatalf("the change of %+v was not noticed", r)
			}
		}
	}
	differs(before, after)
	differs(after, before)
}

func TestReportsShrink(t *testing.T) {
	list, _ := reports(nil).replace(regionStats(1000))
	if list, _ = list.replace(regionStats(10)); cap(list) > 64 {
		t.Errorf("%d entries are held for 10", cap(list))
	}
	twice := append(regionStats(3), regionStats(3)...)
	if list, _ = list.replace(twice); len(list) != 3 {
		t.Errorf("%d entries for 3 replicas named twice", len(list))
	}
}
