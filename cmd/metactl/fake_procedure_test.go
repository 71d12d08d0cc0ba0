package main

import (
	"context"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func fakeProcedures() []*metasrvpb.Procedure {
	cpu := &metasrvpb.TableName{CatalogName: "greptime", SchemaName: "public", TableName: "cpu"}
	return []*metasrvpb.Procedure{
		{
			ProcedureId: 7, Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: 2, Reason: "new disk", StartedAtMs: fakeCreated,
			State: metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING, Step: metasrvpb.ProcedureStep_PROCEDURE_STEP_MOVE,
			WaitingFor: "3 replicas, of which 1 is being moved", AgeMs: 40_000, StepAgeMs: 40_000, ProgressPermille: 400, ExpectedEndMs: 60_000,
		},
		{
			ProcedureId: 8, Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION, RegionId: 1024 << 32, TableName: cpu,
			NodeId: 2, TargetNodeId: 3, ReplicaId: 11, TargetReplicaId: 21, ParentId: 7, StartedAtMs: fakeCreated,
			State: metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING, Step: metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP,
			WaitingFor: "the new replica on node 3 to catch up", AgeMs: 12_000, StepAgeMs: 11_000, StepTimeoutMs: 21_589_000, ProgressPermille: 630, ExpectedEndMs: 9_000,
		},
		{
			ProcedureId: 5, Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_TRANSFER_LEADER, RegionId: 1024<<32 | 1, TableName: cpu,
			NodeId: 1, TargetNodeId: 2, Attempts: 2, Error: "node 2 sends no heartbeats", StartedAtMs: fakeCreated, EndedAtMs: fakeCreated + 5000,
			State: metasrvpb.ProcedureState_PROCEDURE_STATE_FAILED, Step: metasrvpb.ProcedureStep_PROCEDURE_STEP_UNDO,
		},
		{
			ProcedureId: 4, Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS, TableName: cpu, Replicas: 3,
			StartedAtMs: fakeCreated, EndedAtMs: fakeCreated + 5000, ProgressPermille: 1000,
			State: metasrvpb.ProcedureState_PROCEDURE_STATE_DONE, Step: metasrvpb.ProcedureStep_PROCEDURE_STEP_MOVE,
		},
	}
}

func (m *fakeMember) ListProcedures(_ context.Context, r *metasrvpb.ListProceduresRequest) (*metasrvpb.ListProceduresResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	resp := &metasrvpb.ListProceduresResponse{Header: m.header()}
	for _, p := range fakeProcedures() {
		if r.Ended || !hasEnded(p) {
			resp.Procedures = append(resp.Procedures, p)
		}
	}
	return resp, nil
}

func (m *fakeMember) GetProcedure(_ context.Context, r *metasrvpb.GetProcedureRequest) (*metasrvpb.GetProcedureResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	for _, p := range fakeProcedures() {
		if p.ProcedureId == r.ProcedureId {
			return &metasrvpb.GetProcedureResponse{Header: m.header(), Procedure: p}, nil
		}
	}
	return nil, statusOf(codes.NotFound, metasrv.ErrProcedureNotFound.With("procedure %d is unknown: it never existed, or ended so long ago that it was forgotten", r.ProcedureId))
}

func (m *fakeMember) CancelProcedure(_ context.Context, r *metasrvpb.CancelProcedureRequest) (*metasrvpb.CancelProcedureResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	return &metasrvpb.CancelProcedureResponse{Header: m.header(), Procedure: fakeProcedures()[1]}, nil
}

// StartProcedure answers with a procedure that has ended, which what is started waits for.
func (m *fakeMember) StartProcedure(_ context.Context, r *metasrvpb.StartProcedureRequest) (*metasrvpb.StartProcedureResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	list := fakeProcedures()
	resp := &metasrvpb.StartProcedureResponse{Header: m.header(), Procedure: proto.CloneOf(list[1])}
	switch p := r.Procedure.(type) {
	case *metasrvpb.StartProcedureRequest_DrainNode:
		if p.DrainNode.NodeId == 1 {
			return nil, statusOf(codes.FailedPrecondition, metasrv.ErrProcedureConflict.With(
				"drain node 1: procedure 9 (remove node 1) is at work there; wait for its end, or end it with: metactl procedure cancel 9"))
		}
		resp.Procedure = list[0]
	case *metasrvpb.StartProcedureRequest_TransferRegionLeader:
		resp.Procedure = list[2]
	case *metasrvpb.StartProcedureRequest_SetTableReplicas:
		resp.Procedure = list[3]
	case *metasrvpb.StartProcedureRequest_MigrateRegion:
		resp.Procedure.RegionId, resp.Procedure.NodeId = p.MigrateRegion.RegionId, p.MigrateRegion.FromNodeId
		resp.Procedure.TargetNodeId = p.MigrateRegion.ToNodeId
	}
	return resp, nil
}

func (m *fakeMember) UndrainNode(_ context.Context, r *metasrvpb.UndrainNodeRequest) (*metasrvpb.UndrainNodeResponse, error) {
	return &metasrvpb.UndrainNodeResponse{Header: m.header()}, m.refuse(r.Header)
}

func (m *fakeMember) GetRegion(_ context.Context, r *metasrvpb.GetRegionRequest) (*metasrvpb.GetRegionResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	for _, info := range fakeRegions() {
		if info.RegionId == r.RegionId {
			return &metasrvpb.GetRegionResponse{Header: m.header(), Region: info, Procedure: fakeProcedures()[1]}, nil
		}
	}
	return nil, statusOf(codes.NotFound, metasrv.ErrRegionNotFound.With("region %s does not exist: table \"greptime.public.cpu\" has 2 regions", metasrv.RegionID(r.RegionId)))
}
