package server

import (
	"context"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/config"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// GetConfig returns what people have set, and on the metasrv leader what failover does with it.
func (s clusterService) GetConfig(ctx context.Context, req *metasrvpb.GetConfigRequest) (*metasrvpb.GetConfigResponse, error) {
	view, err := s.readHeard(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	c, err := config.Of(view)
	if err != nil {
		return nil, err
	}
	resp := &metasrvpb.GetConfigResponse{Header: view.header(), Config: s.configOf(c)}
	t := s.term.Load()
	if t == nil {
		return resp, nil
	}
	look := t.failover.Load()
	resp.Failover = &metasrvpb.FailoverStatus{Paused: s.pausedWhy(view), RegionsWithoutLeader: uint64(look.sum())} //nolint:gosec // never negative
	if look != nil {
		resp.Failover.FailedNodeIds = each(look.failed, func(id metasrv.NodeID) uint64 { return uint64(id) })
	}
	return resp, nil
}

// Configure changes one part of the configuration.
func (s clusterService) Configure(ctx context.Context, req *metasrvpb.ConfigureRequest) (*metasrvpb.ConfigureResponse, error) {
	command := &storagepb.ConfigureCluster{}
	switch change := req.GetChange().(type) {
	case *metasrvpb.ConfigureRequest_BeginMaintenance:
		command.Change = &storagepb.ConfigureCluster_BeginMaintenance{
			BeginMaintenance: &storagepb.MaintenanceMode{Reason: change.BeginMaintenance.GetReason(), SinceMs: wallTime()},
		}
	case *metasrvpb.ConfigureRequest_EndMaintenance:
		command.Change = &storagepb.ConfigureCluster_EndMaintenance{EndMaintenance: &storagepb.EndMaintenance{}}
	case *metasrvpb.ConfigureRequest_MaxFailedPercent:
		command.Change = &storagepb.ConfigureCluster_MaxFailedPercent{MaxFailedPercent: change.MaxFailedPercent}
	case *metasrvpb.ConfigureRequest_LeaseMs:
		if err := s.checkLease(change.LeaseMs); err != nil {
			return nil, err
		}
		command.Change = &storagepb.ConfigureCluster_LeaseMs{LeaseMs: change.LeaseMs}
	case *metasrvpb.ConfigureRequest_RepairAfterMs:
		if err := s.flags.checkRepairAfter(change.RepairAfterMs); err != nil {
			return nil, err
		}
		command.Change = &storagepb.ConfigureCluster_RepairAfterMs{RepairAfterMs: change.RepairAfterMs}
	default:
		return nil, metasrv.InvalidArgument("change", "is missing")
	}
	result := &storagepb.ClusterConfig{}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, command, result)
	if err != nil {
		return nil, err
	}
	s.log.Info("the configuration of the cluster was changed", "config", result.String())
	return &metasrvpb.ConfigureResponse{Header: h, Config: s.configOf(result)}, nil
}

// checkLease returns an error for a length of leases that can't be set now.
func (s clusterService) checkLease(ms uint64) error {
	if t := s.term.Load(); t != nil && !t.settings.Load().recorded {
		return metasrv.ErrNotReady.With("the lease that this cluster began with is not recorded yet, which takes a moment " +
			"once all members run a version that can")
	}
	return s.flags.checkLease(ms)
}

// configOf returns what is set for the whole cluster: what this member's flags say where that is not recorded.
func (s clusterService) configOf(c *storagepb.ClusterConfig) *metasrvpb.ClusterConfig {
	shown := &metasrvpb.ClusterConfig{
		MaxFailedPercent: c.GetMaxFailedPercent(), LeaseMs: c.GetLeaseMs(), LongestLeaseMs: c.GetLongestLeaseMs(), RepairAfterMs: c.GetRepairAfterMs(),
	}
	if shown.MaxFailedPercent == 0 {
		shown.MaxFailedPercent = config.DefaultMaxFailedPercent
	}
	if shown.LeaseMs == 0 {
		shown.LeaseMs = inMilliseconds(s.flags.beats.Lease)
	}
	if c.RepairAfterMs == nil {
		shown.RepairAfterMs = inMilliseconds(s.flags.repairAfter)
	}
	if m := c.GetMaintenance(); m != nil {
		shown.Maintenance = &metasrvpb.MaintenanceMode{Reason: m.GetReason(), SinceMs: m.GetSinceMs()}
	}
	return shown
}
