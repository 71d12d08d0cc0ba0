package main

import (
	"context"

	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// GetConfig answers as a member of a cluster in which maintenance mode can be switched on and off.
func (m *fakeMember) GetConfig(_ context.Context, r *metasrvpb.GetConfigRequest) (*metasrvpb.GetConfigResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	resp := &metasrvpb.GetConfigResponse{Header: m.header(), Config: m.cluster.config(), Failover: &metasrvpb.FailoverStatus{}}
	if resp.Config.GetMaintenance() != nil {
		resp.Failover = &metasrvpb.FailoverStatus{Paused: "maintenance", FailedNodeIds: []uint64{1, 4}, RegionsWithoutLeader: 12}
	}
	return resp, nil
}

func (m *fakeMember) Configure(_ context.Context, r *metasrvpb.ConfigureRequest) (*metasrvpb.ConfigureResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	c := m.cluster.config()
	switch change := r.GetChange().(type) {
	case *metasrvpb.ConfigureRequest_BeginMaintenance:
		c.Maintenance = &metasrvpb.MaintenanceMode{Reason: change.BeginMaintenance.GetReason(), SinceMs: 1_700_000_000_000}
	case *metasrvpb.ConfigureRequest_EndMaintenance:
		c.Maintenance = nil
	case *metasrvpb.ConfigureRequest_MaxFailedPercent:
		c.MaxFailedPercent = change.MaxFailedPercent
	case *metasrvpb.ConfigureRequest_LeaseMs:
		if change.LeaseMs < c.LeaseMs {
			c.LongestLeaseMs = c.LeaseMs
		}
		c.LeaseMs = change.LeaseMs
	case *metasrvpb.ConfigureRequest_RepairAfterMs:
		c.RepairAfterMs = change.RepairAfterMs
	}
	m.cluster.configured.Store(c)
	return &metasrvpb.ConfigureResponse{Header: m.header(), Config: c}, nil
}

// config returns the configuration, which the caller may change.
func (c *fakeCluster) config() *metasrvpb.ClusterConfig {
	if set := c.configured.Load(); set != nil {
		return proto.CloneOf(set)
	}
	return &metasrvpb.ClusterConfig{MaxFailedPercent: 50, LeaseMs: 3000, RepairAfterMs: 600_000}
}
