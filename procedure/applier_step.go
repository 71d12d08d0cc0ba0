package procedure

import (
	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// step brings a procedure on, and changes its region, both or neither. ErrProcedureChanged: the record is not at the version
// that the step was planned on. The refusal of the region's change is returned as it is.
func (a *applier) step(tx state.Tx, cmd *storagepb.StepProcedure) (*storagepb.ProcedureResult, error) {
	r, err := running(tx, cmd.Id)
	if err != nil {
		return nil, err
	}
	if r.Version != cmd.Version {
		return nil, metasrv.ErrProcedureChanged.With("procedure %d is at version %d, the step was planned on %d", r.Id, r.Version, cmd.Version)
	}
	if cmd.TargetReplicaId != 0 {
		r.TargetReplicaId = cmd.TargetReplicaId
	}
	if cmd.Change != nil {
		if err := a.change(tx, r, cmd.Change); err != nil {
			return nil, err
		}
	}
	if cmd.State != r.State || cmd.Step != r.Step {
		r.StepSinceMs, r.StepTimeoutMs = uint64(tx.Now()), cmd.StepTimeoutMs
	}
	r.State, r.Step = cmd.State, cmd.Step
	if cmd.Error != "" {
		r.Error = cmd.Error
		r.Attempts++
	}
	return a.put(tx, r, cmd.WallTimeMs)
}

// change carries out the change of a region that a step is.
func (a *applier) change(tx state.Tx, r *storagepb.ProcedureRecord, change *storagepb.RegionChange) error {
	result, err := a.ChangeRegions(tx, &storagepb.ChangeRegions{Changes: []*storagepb.RegionChange{change}})
	if err != nil {
		return err
	}
	outcome := result.Results[0]
	if refused := outcome.Refusal; refused != nil {
		return metasrv.ErrorOf(refused.Reason, refused.Message, refused.Field)
	}
	if outcome.ReplicaId != 0 {
		r.TargetReplicaId = outcome.ReplicaId
	}
	return nil
}

// put stores a record that was changed, and what its end means.
func (a *applier) put(tx state.Tx, r *storagepb.ProcedureRecord, wallTime int64) (*storagepb.ProcedureResult, error) {
	r.Version++
	if !isEnd(r.State) {
		tx.Put(runningID(r.Id), state.Encode(r))
		return &storagepb.ProcedureResult{Procedure: r}, nil
	}
	if err := a.finish(tx, r); err != nil {
		return nil, err
	}
	unlock(tx, r)
	r.EndedWallMs = wallTime
	tx.Delete(runningID(r.Id))
	tx.Put(endedID(r.Id), state.Encode(r))
	putCount(tx, runningKey, state.Peek(tx, runningKey, 1)-1)
	return &storagepb.ProcedureResult{Procedure: r}, trim(tx, r.Id)
}

// trim forgets a procedure that ended before, where there are too many with the one that ends now.
func trim(tx state.Tx, ended uint64) error {
	n := state.Peek(tx, endedKey, 0) + 1
	if n > KeptEnded {
		key, err := leastMissed(tx, ended)
		if err != nil {
			return err
		}
		tx.Delete(key)
		n--
	}
	putCount(tx, endedKey, n)
	return nil
}

// leastMissed returns the key of the procedure to forget: the oldest part of another one, for nobody asked for it by itself,
// and a drain, which is older than all of its parts, is to be found when it has ended. Where the oldest are none, the oldest.
func leastMissed(tx state.Tx, ended uint64) (oldest string, err error) {
	looked := 0
	for key, value := range tx.Ascend(endedPrefix, endedStop) {
		if key == endedID(ended) {
			continue
		}
		if oldest == "" {
			oldest = key
		}
		r, err := decode(key, value)
		if err != nil {
			return "", err
		}
		if looked++; r.Spec.GetParentId() != 0 {
			return key, nil
		}
		if looked == maxLooked {
			break
		}
	}
	return oldest, nil
}

// cancel has a procedure and its parts roll back. One that rolls back already goes on with that. ErrProcedureEnded: it has
// ended, or there is no way back any more.
func (a *applier) cancel(tx state.Tx, cmd *storagepb.CancelProcedure) (*storagepb.ProcedureResult, error) {
	r, err := running(tx, cmd.Id)
	if err != nil {
		return nil, err
	}
	forgets := cmd.Undrain && r.PreviousDrain != metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED
	if forgets {
		r.PreviousDrain = metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED
	}
	switch {
	case r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK && forgets:
		return a.put(tx, r, cmd.WallTimeMs)
	case r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK:
		return &storagepb.ProcedureResult{Procedure: r}, nil
	case !CanCancel(r):
		return nil, metasrv.ErrProcedureEnded.With(
			"procedure %d (%s) can't be taken back any more: the region has its new leader, and it ends within seconds", r.Id, Describe(r.Spec))
	}
	var parts []*storagepb.ProcedureRecord
	for part, err := range Running(tx) {
		if err != nil {
			return nil, asError(err)
		}
		if part.Spec.ParentId == r.Id && part.State == metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING && CanCancel(part) {
			parts = append(parts, part)
		}
	}
	for _, part := range parts {
		rollBack(tx, part, cmd.Reason)
	}
	rollBack(tx, r, cmd.Reason)
	return &storagepb.ProcedureResult{Procedure: r}, nil
}

// CanCancel reports whether a procedure that runs is at a step from which there is a way back.
func CanCancel(r *storagepb.ProcedureRecord) bool {
	return r.Step != metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION && r.Step != metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE
}

// rollBack has a procedure take back what it did, on somebody's wish.
func rollBack(tx state.Tx, r *storagepb.ProcedureRecord, reason string) {
	if reason == "" {
		reason = "cancelled"
	}
	r.State, r.Step = metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK, metasrvpb.ProcedureStep_PROCEDURE_STEP_UNDO
	r.StepSinceMs, r.StepTimeoutMs = uint64(tx.Now()), 0
	r.Cancelled, r.Error = true, reason
	r.Version++
	tx.Put(runningID(r.Id), state.Encode(r))
}

// running returns a procedure that has not ended.
func running(tx state.Tx, id uint64) (*storagepb.ProcedureRecord, error) {
	r, err := Get(tx, id)
	if err != nil {
		return nil, asError(err)
	}
	if isEnd(r.State) {
		return nil, metasrv.ErrProcedureEnded.With("procedure %d (%s) has ended", id, Describe(r.Spec))
	}
	return r, nil
}
