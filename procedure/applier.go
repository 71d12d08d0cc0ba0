package procedure

import (
	"encoding/binary"
	"errors"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	// Since is the command version with which procedures came.
	Since = 2
	// MaxRunning bounds the procedures that have not ended.
	MaxRunning = 1000
	// KeptEnded is how many procedures that ended are remembered.
	KeptEnded = 1000
	// maxLooked is how many of those are looked at for one to forget.
	maxLooked = 64
)

// Effects are what commands of procedures change outside of this package, each within the command.
type Effects struct {
	// ChangeRegions carries out changes of regions, each by itself, and says what became of it.
	ChangeRegions func(state.Tx, *storagepb.ChangeRegions) (*storagepb.ChangeRegionsResult, error)
	// SetDrain says whether a node gets replicas, and returns what was so before.
	SetDrain func(state.Tx, metasrv.NodeID, metasrvpb.NodeDrain) (metasrvpb.NodeDrain, error)
	// RemoveNode forgets a node for ever.
	RemoveNode func(state.Tx, metasrv.NodeID) error
	// NodeRemoved has tables that are dropped no longer wait for a node.
	NodeRemoved func(state.Tx, metasrv.NodeID) error
	// SetReplicas says how many replicas the regions of a table should have, and returns how many that were.
	SetReplicas func(state.Tx, metasrv.TableID, uint32) (uint32, error)
}

// applier has what the commands need beside the state.
type applier struct{ Effects }

// NewApplier returns the applier of procedures. Its commands answer with a ProcedureResult.
func NewApplier(e Effects) state.Applier {
	a := &applier{e}
	return state.NewApplier(
		state.On(storagepb.CommandKind_COMMAND_KIND_CREATE_PROCEDURE, a.create).Since(Since),
		state.On(storagepb.CommandKind_COMMAND_KIND_STEP_PROCEDURE, a.step).Since(Since),
		state.On(storagepb.CommandKind_COMMAND_KIND_CANCEL_PROCEDURE, a.cancel).Since(Since),
	)
}

// create starts a procedure with all of its locks. ErrProcedureConflict: another one has one of them.
func (a *applier) create(tx state.Tx, cmd *storagepb.CreateProcedure) (*storagepb.ProcedureResult, error) {
	spec := cmd.Spec
	if err := validate(spec); err != nil {
		return nil, err
	}
	running := state.Peek(tx, runningKey, 0)
	if running >= MaxRunning {
		return nil, metasrv.ErrTooManyProcedures.With("%d procedures are running, no more are started: wait for some to end", running)
	}
	if err := checkParent(tx, spec); err != nil {
		return nil, err
	}
	record := &storagepb.ProcedureRecord{
		Spec:            spec,
		State:           metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING,
		Step:            cmd.Step,
		Version:         1,
		TargetReplicaId: cmd.TargetReplicaId,
		CreatedAtMs:     uint64(tx.Now()),
		StepSinceMs:     uint64(tx.Now()),
		StepTimeoutMs:   cmd.StepTimeoutMs,
		Total:           cmd.Total,
		StartedWallMs:   cmd.WallTimeMs,
	}
	if err := a.begin(tx, record); err != nil {
		return nil, err
	}
	record.Id = state.Next(tx, sequenceKey, firstSequence)
	if err := lock(tx, record); err != nil {
		return nil, err
	}
	tx.Put(runningID(record.Id), state.Encode(record))
	putCount(tx, runningKey, running+1)
	return &storagepb.ProcedureResult{Procedure: record}, nil
}

// validate checks that a spec names what its kind works on.
func validate(spec *storagepb.ProcedureSpec) error {
	needs := map[string]uint64{}
	switch spec.GetKind() {
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION:
		needs["region_id"], needs["replica_id"], needs["target_node_id"] = spec.RegionId, spec.ReplicaId, spec.TargetNodeId
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_TRANSFER_LEADER:
		needs["region_id"], needs["target_node_id"] = spec.RegionId, spec.TargetNodeId
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_ADD_REPLICA:
		needs["region_id"], needs["target_node_id"] = spec.RegionId, spec.TargetNodeId
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA:
		needs["region_id"], needs["replica_id"] = spec.RegionId, spec.ReplicaId
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE:
		needs["node_id"] = spec.NodeId
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS:
		needs["table_id"], needs["replicas"] = spec.TableId, uint64(spec.Replicas)
	default:
		return metasrv.InvalidArgument("procedure", "of kind %d is unknown", spec.GetKind())
	}
	for _, field := range [...]string{"region_id", "replica_id", "target_node_id", "node_id", "table_id", "replicas"} {
		if id, needed := needs[field]; needed && id == 0 {
			return metasrv.InvalidArgument(field, "is 0")
		}
	}
	return nil
}

// checkParent refuses a part of what does not go on any more.
func checkParent(v state.View, spec *storagepb.ProcedureSpec) error {
	if spec.ParentId == 0 {
		return nil
	}
	parent, err := Get(v, spec.ParentId)
	switch {
	case err != nil:
		return asError(err)
	case parent.State != metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING:
		return metasrv.ErrProcedureEnded.With("procedure %d, of which this would be a part, does not go on", spec.ParentId)
	}
	return nil
}

// begin has the effects that a procedure has from its start.
func (a *applier) begin(tx state.Tx, r *storagepb.ProcedureRecord) (err error) {
	node := metasrv.NodeID(r.Spec.NodeId)
	switch r.Spec.Kind {
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE:
		before, err := a.SetDrain(tx, node, metasrvpb.NodeDrain_NODE_DRAIN_DRAINING)
		if before == metasrvpb.NodeDrain_NODE_DRAIN_DRAINED {
			r.PreviousDrain = before
		}
		return err
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS:
		r.PreviousReplicas, err = a.SetReplicas(tx, metasrv.TableID(r.Spec.TableId), r.Spec.Replicas)
	}
	return err
}

// finish has the effects that the end of a procedure has.
func (a *applier) finish(tx state.Tx, r *storagepb.ProcedureRecord) error {
	done := r.State == metasrvpb.ProcedureState_PROCEDURE_STATE_DONE
	node := metasrv.NodeID(r.Spec.NodeId)
	switch r.Spec.Kind {
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE:
		drain := r.PreviousDrain
		if done {
			drain = metasrvpb.NodeDrain_NODE_DRAIN_DRAINED
		}
		_, err := a.SetDrain(tx, node, drain)
		return unlessGone(err)
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE:
		if done {
			return errors.Join(unlessGone(a.RemoveNode(tx, node)), a.NodeRemoved(tx, node))
		}
		_, err := a.SetDrain(tx, node, r.PreviousDrain)
		return unlessGone(err)
	case metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS:
		if !done {
			_, err := a.SetReplicas(tx, metasrv.TableID(r.Spec.TableId), r.PreviousReplicas)
			return unlessGone(err)
		}
	}
	return nil
}

func putCount(tx state.Tx, key string, n uint64) {
	tx.Put(key, binary.BigEndian.AppendUint64(nil, n))
}
