package config

import (
	"fmt"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	// Key is that of the ClusterConfig.
	Key = "config/cluster"

	// DefaultMaxFailedPercent is how many percent of the datanodes may be silent while regions are given to others.
	DefaultMaxFailedPercent = 50

	// MaxReasonBytes bounds what people say of a maintenance.
	MaxReasonBytes = 1 << 10

	// MinLease is the length of the shortest lease that can be set.
	MinLease = 2 * time.Millisecond
	// MaxLease is what clients take for the longest lease, whatever metasrv says.
	MaxLease = time.Hour
	// MaxRepairAfter bounds the silence after which replicas are rebuilt.
	MaxRepairAfter = 365 * 24 * time.Hour

	// commandVersion is the version that the commands of this package came with.
	commandVersion = 2
)

// NewApplier returns the applier of the configuration.
func NewApplier() state.Applier {
	return state.NewApplier(state.On(storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, configure).Since(commandVersion))
}

// Of returns the configuration of the cluster with its defaults filled in.
func Of(v interface {
	Get(key string) ([]byte, bool)
}) (*storagepb.ClusterConfig, error) {
	c, err := stored(v)
	if err != nil {
		return nil, err
	}
	if c.MaxFailedPercent == 0 {
		c.MaxFailedPercent = DefaultMaxFailedPercent
	}
	return c, nil
}

func stored(v interface {
	Get(key string) ([]byte, bool)
}) (*storagepb.ClusterConfig, error) {
	c := &storagepb.ClusterConfig{}
	value, ok := v.Get(Key)
	if !ok {
		return c, nil
	}
	if err := state.Decode(value, c); err != nil {
		return nil, fmt.Errorf("%s: %w", Key, err)
	}
	return c, nil
}

// configure changes one part of the configuration. ErrInvalidArgument: the change is none that can be.
func configure(tx state.Tx, cmd *storagepb.ConfigureCluster) (*storagepb.ClusterConfig, error) {
	c, err := stored(tx)
	if err != nil {
		return nil, err
	}
	switch change := cmd.Change.(type) {
	case *storagepb.ConfigureCluster_BeginMaintenance:
		reason := change.BeginMaintenance.GetReason()
		if reason == "" || len(reason) > MaxReasonBytes {
			return nil, metasrv.InvalidArgument("reason", "has %d bytes; say why, in at most %d", len(reason), MaxReasonBytes)
		}
		begin := change.BeginMaintenance
		if c.Maintenance != nil {
			begin.SinceMs = c.Maintenance.SinceMs
		}
		c.Maintenance = begin
	case *storagepb.ConfigureCluster_EndMaintenance:
		c.Maintenance = nil
	case *storagepb.ConfigureCluster_MaxFailedPercent:
		if p := change.MaxFailedPercent; p < 1 || p > 100 {
			return nil, metasrv.InvalidArgument("max_failed_percent", "is %d; it can be 1 to 100", p)
		}
		c.MaxFailedPercent = change.MaxFailedPercent
	case *storagepb.ConfigureCluster_LeaseMs:
		err = setLease(c, change.LeaseMs)
	case *storagepb.ConfigureCluster_SettleLease:
		if change.SettleLease.GetLeaseChanges() == c.LeaseChanges {
			c.LongestLeaseMs = 0
		}
	case *storagepb.ConfigureCluster_RepairAfterMs:
		err = setRepairAfter(c, change.RepairAfterMs)
	case *storagepb.ConfigureCluster_Found:
		err = found(c, change.Found)
	default:
		err = metasrv.InvalidArgument("change", "is missing")
	}
	if err != nil {
		return nil, err
	}
	if value, _ := tx.Get(Key); string(value) != string(state.Encode(c)) {
		tx.Put(Key, state.Encode(c))
	}
	return c, nil
}

// setLease changes the length of leases. Longer ones that were granted before may run on, until the metasrv leader has found
// that none does.
func setLease(c *storagepb.ClusterConfig, ms uint64) error {
	if ms < uint64(MinLease.Milliseconds()) || ms > uint64(MaxLease.Milliseconds()) {
		return metasrv.InvalidArgument("lease_ms", "is %d ms; it can be %s to %s", ms, MinLease, MaxLease)
	}
	if ms == c.LeaseMs {
		return nil
	}
	longest := max(c.LeaseMs, c.LongestLeaseMs)
	if longest <= ms {
		longest = 0
	}
	c.LeaseMs, c.LongestLeaseMs = ms, longest
	c.LeaseChanges++
	return nil
}

func setRepairAfter(c *storagepb.ClusterConfig, ms uint64) error {
	if ms > uint64(MaxRepairAfter.Milliseconds()) {
		return metasrv.InvalidArgument("repair_after_ms", "is %d ms; it can be at most a year, and 0 for never", ms)
	}
	c.RepairAfterMs = &ms
	return nil
}

// found sets what is not set yet.
func found(c *storagepb.ClusterConfig, with *storagepb.FoundConfig) error {
	if c.LeaseMs == 0 {
		if err := setLease(c, with.GetLeaseMs()); err != nil {
			return err
		}
	}
	if c.RepairAfterMs == nil {
		return setRepairAfter(c, with.GetRepairAfterMs())
	}
	return nil
}
