package server

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func setLease(d time.Duration) *metasrvpb.ConfigureRequest {
	return &metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_LeaseMs{LeaseMs: inMilliseconds(d)}}
}

func setRepairAfter(d time.Duration) *metasrvpb.ConfigureRequest {
	return &metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_RepairAfterMs{RepairAfterMs: inMilliseconds(d)}}
}

func (m *testMemberServer) config(t *testing.T) *metasrvpb.ClusterConfig {
	t.Helper()
	resp, err := m.cluster().GetConfig(timeout(t), &metasrvpb.GetConfigRequest{})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetConfig()
}

func (m *testMemberServer) configure(t *testing.T, change *metasrvpb.ConfigureRequest) {
	t.Helper()
	if _, err := m.cluster().Configure(timeout(t), change); err != nil {
		t.Fatal(err)
	}
}

// Rule 5: the lease is what the whole cluster has it set to. One that becomes shorter counts for silence, here and on a metasrv
// leader that takes over, only when the longer ones have ended.
func TestLeaseIsSetForTheCluster(t *testing.T) {
	const long, short = 3 * time.Second, 200 * time.Millisecond
	m := startLeader(t, func(c *Config) { c.HeartbeatInterval, c.RegionLease = 50*time.Millisecond, long })
	if set := m.config(t); set.GetLeaseMs() != inMilliseconds(long) || set.GetLongestLeaseMs() != 0 || set.GetRepairAfterMs() != 0 {
		t.Errorf("a new cluster begins with %v", set)
	}
	began := time.Now()
	m.configure(t, setLease(short))
	tracker := m.services.term.Load().tracker
	eventually(t, "the short lease is granted, and the long one waited for", func() bool {
		cfg := tracker.Config()
		return cfg.Lease == short && cfg.Longest == long
	})
	m.node.follow(otherMember())
	takeover := time.Now()
	m.lead(t)
	tracker = m.services.term.Load().tracker
	if end := tracker.LeaseEnd(1); end.Before(takeover.Add(heartbeat.HeldFor(long))) {
		t.Errorf("leases of before the takeover end %s after it", end.Sub(takeover))
	}
	if cfg := tracker.Config(); cfg.Lease != short || cfg.Longest != long {
		t.Errorf("the next metasrv leader grants %s, and %s may run", cfg.Lease, cfg.Longest)
	}
	eventually(t, "no long lease runs", func() bool { return m.config(t).GetLongestLeaseMs() == 0 })
	if after := time.Since(takeover); after < heartbeat.HeldFor(long) {
		t.Errorf("the state says so %s after the takeover, %s after the change", after, time.Since(began))
	}
	eventually(t, "the short one counts", func() bool { return tracker.Config().Longest == 0 })

	m.node.follow(otherMember())
	m.lead(t)
	if end := m.services.term.Load().tracker.LeaseEnd(1); time.Until(end) > heartbeat.HeldFor(short) {
		t.Errorf("leases of before the takeover end in %s", time.Until(end))
	}
}

func TestSettingsThatCannotBe(t *testing.T) {
	m := startLeader(t, func(c *Config) {
		c.HeartbeatInterval, c.SuspectAfter, c.DownAfter = time.Second, 2*time.Second, 4*time.Second
	})
	for _, change := range []*metasrvpb.ConfigureRequest{
		setLease(0), setLease(2*time.Second - time.Millisecond), setLease(time.Hour + time.Millisecond),
		setRepairAfter(4*time.Second - time.Millisecond), setRepairAfter(400 * 24 * time.Hour), {},
	} {
		_, err := m.cluster().Configure(timeout(t), change)
		if got := refusalOf(err); got.Code != codes.InvalidArgument {
			t.Errorf("%v is answered with %v", change, err)
		}
	}
	m.configure(t, setLease(2*time.Second))
	m.configure(t, setRepairAfter(4*time.Second))
	eventually(t, "it is looked for what to rebuild", func() bool { return m.services.term.Load().settings.Load().repairAfter == 4*time.Second })
	m.configure(t, setRepairAfter(0))
	if set := m.config(t); set.GetLeaseMs() != 2000 || set.GetRepairAfterMs() != 0 {
		t.Errorf("set is %v", set)
	}
}

// syncBuffer is a buffer that goroutines write to.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// A member's flags say only what a new cluster begins with. Who leads with an interval that is too long for the lease has nodes
// beat more often.
func TestFlagsThatDiffer(t *testing.T) {
	var log syncBuffer
	m := startMember(t, func(c *Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		c.HeartbeatInterval, c.RegionLease = time.Second, 5*time.Second
	})
	if _, err := m.node.Node.Propose(t.Context(), state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER,
		Payload: &storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_Found{
			Found: &storagepb.FoundConfig{LeaseMs: 1000, RepairAfterMs: 90_000},
		}},
	}); err != nil {
		t.Fatal(err)
	}
	m.lead(t)
	if set := m.config(t); set.GetLeaseMs() != 1000 || set.GetRepairAfterMs() != 90_000 {
		t.Errorf("set is %v", set)
	}
	if cfg := m.services.term.Load().tracker.Config(); cfg.Lease != time.Second || cfg.Interval != 500*time.Millisecond {
		t.Errorf("leases of %s are granted, nodes beat each %s", cfg.Lease, cfg.Interval)
	}
	const line = "flags say something else"
	eventually(t, "the difference is logged", func() bool { return strings.Contains(log.String(), line) })
	if n := strings.Count(log.String(), line); n != 1 || !strings.Contains(log.String(), "lease=1s flag_region_lease=5s repair_after=1m30s flag_repair_after=0s") {
		t.Errorf("%d lines: %s", n, log.String())
	}
}

// A cluster whose members don't all know the settings goes by the flags; when they do, what the metasrv leader's say is recorded.
func TestSettingsAreRecordedWhenAllMembersKnowThem(t *testing.T) {
	cfg := testConfig(t)
	cfg.RegionLease = 4 * time.Second
	var node *testNode
	m, err := start(cfg, func(s *Server) (Node, error) {
		node = newTestNode(s)
		node.Node, node.self.CommandVersion = memory.NewAt(1, Appliers()...), 2
		return node, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}()
	node.lead(t)
	if err := m.WaitReady(timeout(t)); err != nil {
		t.Fatal(err)
	}
	if set := m.services.term.Load().settings.Load(); set.recorded || set.lease != 4*time.Second {
		t.Errorf("before, %+v counts", set)
	}
	if _, err := (clusterService{services: m.services}).Configure(timeout(t), setLease(5*time.Second)); !errors.Is(err, metasrv.ErrNotReady) {
		t.Errorf("a lease is set before the present one is recorded: %v", err)
	}
	for _, p := range []state.Proposal{
		{Kind: storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED, Payload: &storagepb.LeaderEstablished{
			Term: 1, Member: &storagepb.MemberRecord{Id: "memory", CommandVersion: 2}, ProposedClusterId: memory.ClusterID,
		}},
		{Kind: storagepb.CommandKind_COMMAND_KIND_SET_CLUSTER_VERSION, Payload: &storagepb.SetClusterVersion{From: 1, Version: 2}},
	} {
		if _, err := node.Node.Propose(t.Context(), p); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the settings are recorded", func() bool {
		set := m.services.term.Load().settings.Load()
		return set.recorded && set.lease == 4*time.Second
	})
}
