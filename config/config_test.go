package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/config"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func begin(reason string, at int64) *storagepb.ConfigureCluster {
	return &storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_BeginMaintenance{
		BeginMaintenance: &storagepb.MaintenanceMode{Reason: reason, SinceMs: at},
	}}
}

func percent(p uint32) *storagepb.ConfigureCluster {
	return &storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_MaxFailedPercent{MaxFailedPercent: p}}
}

func TestConfigure(t *testing.T) {
	node := memory.New(config.NewApplier())
	do := func(c *storagepb.ConfigureCluster) error {
		_, err := node.Propose(t.Context(), state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, Payload: c})
		return err
	}
	expect := func(reason string, since int64, percent uint32) {
		t.Helper()
		c, err := config.Of(node.View())
		if err != nil {
			t.Fatal(err)
		}
		if c.GetMaintenance().GetReason() != reason || c.GetMaintenance().GetSinceMs() != since || c.GetMaxFailedPercent() != percent {
			t.Errorf("%v, want %q since %d, %d %%", c, reason, since, percent)
		}
	}
	expect("", 0, config.DefaultMaxFailedPercent)
	for _, c := range []*storagepb.ConfigureCluster{
		begin("disks", 5), percent(70), begin("more disks", 9), begin("more disks", 9),
	} {
		if err := do(c); err != nil {
			t.Fatal(err)
		}
	}
	expect("more disks", 5, 70)
	revision := node.View().Revision()
	if err := do(percent(70)); err != nil || node.View().Revision() != revision {
		t.Errorf("what is so already changed something: %v", err)
	}
	for _, c := range []*storagepb.ConfigureCluster{{}, begin("", 1), begin(strings.Repeat("x", config.MaxReasonBytes+1), 1), percent(101)} {
		if err := do(c); !errors.Is(err, metasrv.ErrInvalidArgument) {
			t.Errorf("%v: %v", c, err)
		}
	}
	if err := do(&storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_EndMaintenance{EndMaintenance: &storagepb.EndMaintenance{}}}); err != nil {
		t.Fatal(err)
	}
	expect("", 0, 70)
}

// Rule 5: a shorter lease leaves in the record how long the longer ones are that may run, until the metasrv leader has waited for
// them, be it over several changes.
func TestLease(t *testing.T) {
	node := memory.New(config.NewApplier())
	do := func(c *storagepb.ConfigureCluster) error {
		_, err := node.Propose(t.Context(), state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, Payload: c})
		return err
	}
	lease := func(ms uint64) *storagepb.ConfigureCluster {
		return &storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_LeaseMs{LeaseMs: ms}}
	}
	settle := func(changes uint64) *storagepb.ConfigureCluster {
		return &storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_SettleLease{SettleLease: &storagepb.SettleLease{LeaseChanges: changes}}}
	}
	found := func(lease, repair uint64) *storagepb.ConfigureCluster {
		return &storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_Found{
			Found: &storagepb.FoundConfig{LeaseMs: lease, RepairAfterMs: repair},
		}}
	}
	for _, step := range []struct {
		does           *storagepb.ConfigureCluster
		lease, longest uint64
	}{
		{found(3000, 0), 3000, 0},
		{found(9000, 5), 3000, 0}, // it is set
		{lease(1000), 1000, 3000},
		{lease(2000), 2000, 3000},
		{settle(2), 2000, 3000}, // another change came in between
		{settle(3), 2000, 0},
		{lease(2000), 2000, 0},
		{lease(1000), 1000, 2000},
		{lease(4000), 4000, 0},
		{lease(500), 500, 4000},
	} {
		if err := do(step.does); err != nil {
			t.Fatal(err)
		}
		c, err := config.Of(node.View())
		if err != nil || c.LeaseMs != step.lease || c.LongestLeaseMs != step.longest || c.RepairAfterMs == nil || c.GetRepairAfterMs() != 0 {
			t.Errorf("after %v: %v, %v", step.does, c, err)
		}
	}
	for _, c := range []*storagepb.ConfigureCluster{
		lease(0), lease(1), lease(3_600_001), {Change: &storagepb.ConfigureCluster_RepairAfterMs{RepairAfterMs: 1 << 40}},
	} {
		if err := do(c); !errors.Is(err, metasrv.ErrInvalidArgument) {
			t.Errorf("%v: %v", c, err)
		}
	}
}

// Members of an older build would end at the command.
func TestConfigureNeedsItsVersion(t *testing.T) {
	node := memory.NewAt(1, config.NewApplier())
	_, err := node.Propose(t.Context(), state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, Payload: percent(70)})
	if !errors.Is(err, metasrv.ErrClusterVersion) {
		t.Errorf("in a cluster of version 1: %v", err)
	}
}
