package server

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

func sortProcedures(list []*storagepb.ProcedureRecord) {
	slices.SortFunc(list, func(a, b *storagepb.ProcedureRecord) int { return cmp.Compare(a.Id, b.Id) })
}

// tableOfRegion returns the PUBLIC table that has a region, or ErrRegionNotFound.
func tableOfRegion(v state.View, id metasrv.RegionID) (router.Record, error) {
	if _, err := catalog.GetPublicTable(v, id.Table()); err != nil {
		return router.Record{}, metasrv.ErrRegionNotFound.With("region %s does not exist: no public table has id %d", id, id.Table())
	}
	return router.Get(v, id.Table())
}

// showProgress says how far a procedure is that has not ended, and when it will be done if that can be guessed.
func (s *sight) showProgress(ctx context.Context, svc *services, r *storagepb.ProcedureRecord, p *metasrvpb.Procedure) error {
	now := uint64(s.term.leadership.Now())
	p.AgeMs, p.StepAgeMs = now-min(now, r.CreatedAtMs), now-min(now, r.StepSinceMs)
	if r.StepTimeoutMs > p.StepAgeMs {
		p.StepTimeoutMs = r.StepTimeoutMs - p.StepAgeMs
	}
	if r.Spec.RegionId == 0 {
		return s.showMoves(ctx, svc, r, p)
	}
	region, err := s.region(metasrv.RegionID(r.Spec.RegionId))
	if err != nil {
		return err
	}
	view := s.procedure(region, false)
	p.WaitingFor = procedure.Plan(r, view).Waiting
	lease := uint64(s.term.tracker.Config().Lease.Milliseconds()) //nolint:gosec // positive
	switch r.Step {
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP:
		done := s.copied(region, r.TargetReplicaId)
		p.ProgressPermille = done * 9 / 10
		if done > 0 {
			p.ExpectedEndMs = p.StepAgeMs*uint64(1000-done)/uint64(done) + lease
		}
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE, metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_DEMOTION:
		p.ProgressPermille, p.ExpectedEndMs = 900, lease
	case metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION, metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE:
		p.ProgressPermille, p.ExpectedEndMs = 950, uint64(time.Second.Milliseconds())
	}
	return nil
}

// copied returns how much of a region a new replica has, in thousandths, by the sizes that both report; less than all.
func (s *sight) copied(region *storagepb.RegionRecord, replica uint64) uint32 {
	var have, all uint64
	for _, r := range region.GetReplicas() {
		report, _ := s.term.tracker.Region(metasrv.NodeID(r.NodeId), metasrv.RegionID(region.RegionId), metasrv.ReplicaID(r.ReplicaId))
		switch r.ReplicaId {
		case replica:
			have = max(report.Size, report.Rows)
		case region.LeaderReplicaId:
			all = max(report.Size, report.Rows)
		}
	}
	if all == 0 {
		return 0
	}
	return uint32(min(999, have*1000/all)) //nolint:gosec // bounded
}

// showMoves is showProgress for a procedure that moves several replicas.
func (s *sight) showMoves(ctx context.Context, svc *services, r *storagepb.ProcedureRecord, p *metasrvpb.Procedure) error {
	left, err := s.toMove(ctx, svc, r.Spec)
	if err != nil {
		return err
	}
	p.WaitingFor = s.movesWaitFor(r, left)
	total := max(int(r.Total), left)
	if done := total - left; total > 0 {
		p.ProgressPermille = uint32(done * 1000 / total) //nolint:gosec // bounded
		if done > 0 {
			p.ExpectedEndMs = p.AgeMs * uint64(left) / uint64(done) //nolint:gosec // counts
		}
	}
	return nil
}
