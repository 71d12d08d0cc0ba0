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
	resp := &metasrvpb.GetConfigResponse{Header: view.header(), Config: configOf(c)}
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
	default:
		return nil, metasrv.InvalidArgument("change", "is missing")
	}
	result := &storagepb.ClusterConfig{}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, command, result)
	if err != nil {
		return nil, err
	}
	s.log.Info("the configuration of the cluster was changed", "config", result.String())
	return &metasrvpb.ConfigureResponse{Header: h, Config: configOf(result)}, nil
}

func configOf(c *storagepb.ClusterConfig) *metasrvpb.ClusterConfig {
	shown := &metasrvpb.ClusterConfig{MaxFailedPercent: c.GetMaxFailedPercent()}
	if shown.MaxFailedPercent == 0 {
		shown.MaxFailedPercent = config.DefaultMaxFailedPercent
	}
	if m := c.GetMaintenance(); m != nil {
		shown.Maintenance = &metasrvpb.MaintenanceMode{Reason: m.GetReason(), SinceMs: m.GetSinceMs()}
	}
	return shown
}
