package main

import (
	"context"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	// wanted is how many replicas the regions are created with.
	wanted = 3
	// repairs bounds the replicas that are replaced at a time.
	repairs = 3
)

// repair does what an operator does who finds lost replicas, until ctx ends: they are removed, and others added.
func (c *chaos) repair(ctx context.Context) {
	for sleep(ctx, time.Second) {
		regions, err := c.regions(ctx)
		if err != nil {
			continue
		}
		running := 0
		for _, r := range regions {
			request := repairOf(r)
			if request == nil || running == repairs {
				continue
			}
			call, cancel := context.WithTimeout(ctx, 2*time.Second)
			// What is refused is tried again: the region may be worked on.
			_, _ = c.client.Cluster().StartProcedure(call, request)
			cancel()
			running++
		}
	}
}

// repairOf returns what brings a region a step nearer to its replicas, nil where it has them.
func repairOf(r *metasrvpb.RegionInfo) *metasrvpb.StartProcedureRequest {
	if r.GetTableState() != metasrvpb.TableState_TABLE_STATE_PUBLIC {
		return nil
	}
	for _, p := range r.GetReplicas() {
		if p.GetLost() && p.GetRole() != metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
			return &metasrvpb.StartProcedureRequest{Reason: "its disk was emptied", Procedure: &metasrvpb.StartProcedureRequest_RemoveRegionReplica{
				RemoveRegionReplica: &metasrvpb.RemoveRegionReplica{RegionId: r.GetRegionId(), NodeId: p.GetPeer().GetId()},
			}}
		}
	}
	if len(r.GetReplicas()) >= wanted {
		return nil
	}
	return &metasrvpb.StartProcedureRequest{Reason: "a replica is missing", Procedure: &metasrvpb.StartProcedureRequest_AddRegionReplica{
		AddRegionReplica: &metasrvpb.AddRegionReplica{RegionId: r.GetRegionId()},
	}}
}
