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

// Members of an older build would end at the command.
func TestConfigureNeedsItsVersion(t *testing.T) {
	node := memory.NewAt(1, config.NewApplier())
	_, err := node.Propose(t.Context(), state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, Payload: percent(70)})
	if !errors.Is(err, metasrv.ErrClusterVersion) {
		t.Errorf("in a cluster of version 1: %v", err)
	}
}
