package main

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func beatingNodeOf(t *testing.T, replicas ...*metasrvpb.RegionStat) *beatingNode {
	t.Helper()
	h := &heartbeatBench{changed: 50}
	n, err := h.newNode([]string{"127.0.0.1:1"}, firstBenchNode, replicas)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { n.client.Close() })
	return n
}

func simulated(region uint64, role metasrvpb.ReplicaRole) *metasrvpb.RegionStat {
	return &metasrvpb.RegionStat{RegionId: region, ReplicaId: 10 * region, Role: role, LeaderEpoch: 1, ConfVersion: 2}
}

// Half of the replicas are written, and after a while the other half.
func TestBeatingNodeWrites(t *testing.T) {
	leader := metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
	n := beatingNodeOf(t, simulated(1, leader), simulated(2, leader))
	written := func() string {
		report, err := n.collect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var which []string
		for _, r := range report.RegionStats {
			if r.Wcus > 0 {
				which = append(which, number(r.RegionId))
			}
		}
		return strings.Join(which, " ")
	}
	for i := range busyBeats - 1 {
		if got := written(); got != "1" {
			t.Fatalf("in beat %d region %s is written", i, got)
		}
	}
	if got := written(); got != "2" {
		t.Errorf("then region %s is written", got)
	}
}

// What metasrv asks for is done, and shown by the next report.
func TestBeatingNodeExecutes(t *testing.T) {
	leader, follower := metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	n := beatingNodeOf(t, simulated(1, leader), simulated(2, follower), simulated(3, follower))
	config := func(region uint64) *metasrvpb.RegionConfig {
		return &metasrvpb.RegionConfig{RegionId: region, LeaderEpoch: 7, ConfVersion: 9}
	}
	for _, i := range []*metasrvpb.Instruction{
		{Instruction: &metasrvpb.Instruction_DemoteRegion{DemoteRegion: &metasrvpb.DemoteRegion{ReplicaId: 10, Config: config(1)}}},
		{Instruction: &metasrvpb.Instruction_PromoteRegion{PromoteRegion: &metasrvpb.PromoteRegion{ReplicaId: 20, Config: config(2)}}},
		{Instruction: &metasrvpb.Instruction_DropRegion{DropRegion: &metasrvpb.DropRegion{RegionId: 3, ReplicaId: 30}}},
		{Instruction: &metasrvpb.Instruction_DropRegion{DropRegion: &metasrvpb.DropRegion{RegionId: 2, ReplicaId: 21}}},
		{Instruction: &metasrvpb.Instruction_AddLearner{AddLearner: &metasrvpb.AddLearner{ReplicaId: 40, Config: config(4)}}},
	} {
		if err := n.execute(t.Context(), i); err != nil {
			t.Fatal(err)
		}
	}
	want := []*metasrvpb.RegionStat{
		simulated(1, follower), simulated(2, leader), simulated(4, metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER),
	}
	for i, r := range want {
		r.LeaderEpoch, r.ConfVersion = 7, 9
		if len(n.replicas) != len(want) || !proto.Equal(r, n.replicas[i]) {
			t.Fatalf("replicas are %v", n.replicas)
		}
	}
	if s := n.keeper.Stats(); s.Led != 1 {
		t.Errorf("leads %+v", s)
	}
}

func TestHeartbeatFigures(t *testing.T) {
	h := &heartbeatBench{}
	f := beatFigures{lines: 4_000_000}
	f.latency.Add(time.Millisecond)
	lost := h.figures(f, client.KeeperStats{Lapses: 3}, client.KeeperStats{Led: 9, Lapsed: 1, Lapses: 5}, 2*time.Second)
	for _, want := range []struct {
		name  string
		value float64
	}{{"regions_led", 9}, {"leases_lost", 3}, {"lines_per_second", 2_000_000}} {
		found := false
		for _, got := range lost {
			found = found || got.Name == want.name && got.Value == want.value
		}
		if !found {
			t.Errorf("no %s of %v in %v", want.name, want.value, lost)
		}
	}
	before := map[string]memberUse{"m1": {started: 1, cpuSeconds: 10}, "m2": {started: 1, cpuSeconds: 1}}
	after := map[string]memberUse{"m1": {started: 1, cpuSeconds: 12, leader: true, resident: 5 << 20}, "m2": {started: 1, cpuSeconds: 3}}
	use := useFigures(before, after, 4*time.Second, f, 2_000_000)
	if len(use) != 6 || use[0].Name != "cores_used_by_leader_m1" || use[0].Value != 0.5 || use[1].Value != 5 ||
		use[4].Value != 2 || use[5].Value != 1 {
		t.Errorf("use is %v", use)
	}
	after["m2"] = memberUse{started: 2, cpuSeconds: 3} // another process
	if use := useFigures(before, after, 4*time.Second, f, 2_000_000); len(use) != 2 {
		t.Errorf("use is %v", use)
	}
}

func TestReadUse(t *testing.T) {
	text := "# HELP x\nprocess_cpu_seconds_total 12.5\nprocess_resident_memory_bytes 1.048576e+06\nprocess_start_time_seconds 1.5e+09\nother{a=\"b\"} 3\n"
	got, err := readUse(strings.NewReader(text))
	if want := (memberUse{started: 1.5e9, cpuSeconds: 12.5, resident: 1 << 20}); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
}
