package server

import (
	"context"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (s clusterService) ListProcedures(ctx context.Context, req *metasrvpb.ListProceduresRequest) (*metasrvpb.ListProceduresResponse, error) {
	view, err := s.readHeard(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	seen := s.lookAt(s.term.Load(), view.View)
	resp := &metasrvpb.ListProceduresResponse{Header: view.header()}
	// Those that ended have lower ids than most that run, but not than all.
	var list []*storagepb.ProcedureRecord
	for r, err := range procedure.Running(view) {
		if err != nil {
			return nil, err
		}
		list = append(list, r)
	}
	if req.GetEnded() {
		for r, err := range procedure.Ended(view) {
			if err != nil {
				return nil, err
			}
			list = append(list, r)
		}
	}
	sortProcedures(list)
	for _, r := range list {
		if !wantedProcedure(req, r) {
			continue
		}
		shown, err := seen.show(ctx, s.services, r)
		if err != nil {
			return nil, err
		}
		resp.Procedures = append(resp.Procedures, shown)
	}
	return resp, nil
}

func wantedProcedure(req *metasrvpb.ListProceduresRequest, r *storagepb.ProcedureRecord) bool {
	return (req.GetRegionId() == 0 || req.GetRegionId() == r.Spec.RegionId) &&
		(req.GetNodeId() == 0 || req.GetNodeId() == r.Spec.NodeId || req.GetNodeId() == r.Spec.TargetNodeId) &&
		(req.GetParentId() == 0 || req.GetParentId() == r.Spec.ParentId)
}

func (s clusterService) GetProcedure(ctx context.Context, req *metasrvpb.GetProcedureRequest) (*metasrvpb.GetProcedureResponse, error) {
	view, err := s.readHeard(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	r, err := procedure.Get(view, req.GetProcedureId())
	if err != nil {
		return nil, err
	}
	shown, err := s.lookAt(s.term.Load(), view.View).show(ctx, s.services, r)
	return &metasrvpb.GetProcedureResponse{Header: view.header(), Procedure: shown}, err
}

func (s clusterService) CancelProcedure(ctx context.Context, req *metasrvpb.CancelProcedureRequest) (*metasrvpb.CancelProcedureResponse, error) {
	var result storagepb.ProcedureResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CANCEL_PROCEDURE,
		&storagepb.CancelProcedure{Id: req.GetProcedureId(), Reason: req.GetReason(), WallTimeMs: wallTime()}, &result)
	if err != nil {
		return nil, err
	}
	shown, err := s.lookAt(s.term.Load(), s.node.View()).show(ctx, s.services, result.GetProcedure())
	return &metasrvpb.CancelProcedureResponse{Header: h, Procedure: shown}, err
}

// UndrainNode cancels the draining of a node, or takes back what one that ended came to.
func (s clusterService) UndrainNode(ctx context.Context, req *metasrvpb.UndrainNodeRequest) (*metasrvpb.UndrainNodeResponse, error) {
	view := s.node.View()
	id := metasrv.NodeID(req.GetNodeId())
	if _, err := heartbeat.Node(view, id); err != nil {
		return nil, err
	}
	running := procedure.OfNode(view, id)
	if running == 0 {
		h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_SET_NODE_STATE,
			&storagepb.SetNodeState{NodeId: uint64(id)}, &storagepb.RegisterNodeResult{})
		return &metasrvpb.UndrainNodeResponse{Header: h}, err
	}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CANCEL_PROCEDURE,
		&storagepb.CancelProcedure{Id: running, Reason: "the node is to get replicas again", WallTimeMs: wallTime(), Undrain: true}, &storagepb.ProcedureResult{})
	return &metasrvpb.UndrainNodeResponse{Header: h}, err
}

func (s clusterService) GetRegion(ctx context.Context, req *metasrvpb.GetRegionRequest) (*metasrvpb.GetRegionResponse, error) {
	view, err := s.readHeard(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	id := metasrv.RegionID(req.GetRegionId())
	record, err := tableOfRegion(view, id)
	if err != nil {
		return nil, err
	}
	t := s.term.Load()
	regions, err := s.regionList(view, &metasrvpb.ListRegionsRequest{})
	if err != nil {
		return nil, err
	}
	for _, info := range regions.append(nil, record) {
		if info.RegionId != uint64(id) {
			continue
		}
		resp := &metasrvpb.GetRegionResponse{Header: view.header(), Region: info}
		if running := procedure.OfRegion(view, id); running != 0 {
			r, err := procedure.Get(view, running)
			if err != nil {
				return nil, err
			}
			if resp.Procedure, err = s.lookAt(t, view.View).show(ctx, s.services, r); err != nil {
				return nil, err
			}
		}
		return resp, nil
	}
	return nil, metasrv.ErrRegionNotFound.With("region %s does not exist: table %q has %d regions", id, catalog.Name(record.Table), len(record.Route.Regions))
}

// show returns a procedure as the API shows it. What it waits for is known on the metasrv leader only.
func (s *sight) show(ctx context.Context, svc *services, r *storagepb.ProcedureRecord) (*metasrvpb.Procedure, error) {
	p := &metasrvpb.Procedure{
		ProcedureId: r.Id, Kind: r.Spec.GetKind(), State: r.State, Step: r.Step,
		RegionId: r.Spec.GetRegionId(), NodeId: r.Spec.GetNodeId(), TargetNodeId: r.Spec.GetTargetNodeId(),
		ReplicaId: r.Spec.GetReplicaId(), TargetReplicaId: r.TargetReplicaId, Replicas: r.Spec.GetReplicas(),
		ParentId: r.Spec.GetParentId(), Reason: r.Spec.GetReason(), Error: r.Error, Attempts: r.Attempts,
		StartedAtMs: r.StartedWallMs, EndedAtMs: r.EndedWallMs,
	}
	table := metasrv.RegionID(p.RegionId).Table()
	if r.Spec.GetTableId() != 0 {
		table = metasrv.TableID(r.Spec.GetTableId())
	}
	if record, err := catalog.GetTable(s.View, table); err == nil && table != 0 {
		p.TableName = record.Name
	}
	if procedure.HasEnded(r) {
		if r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_DONE {
			p.ProgressPermille = 1000
		}
		return p, nil
	}
	if s.term == nil {
		return p, nil
	}
	return p, s.showProgress(ctx, svc, r, p)
}
