package procedure

import (
	"fmt"
	"iter"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Get returns a procedure that runs or is among the last that ended, or ErrProcedureNotFound.
func Get(v state.View, id uint64) (*storagepb.ProcedureRecord, error) {
	for _, key := range [...]string{runningID(id), endedID(id)} {
		if value, ok := v.Get(key); ok {
			return decode(key, value)
		}
	}
	return nil, metasrv.ErrProcedureNotFound.With("procedure %d is unknown: it never existed, or ended so long ago that it was forgotten", id)
}

// Running returns the procedures that have not ended, in the order of their ids. After an error it ends.
func Running(v state.View) iter.Seq2[*storagepb.ProcedureRecord, error] {
	return records(v, RunningPrefix, runningStop)
}

// Ended returns the last procedures that ended, in the order of their ids. After an error it ends.
func Ended(v state.View) iter.Seq2[*storagepb.ProcedureRecord, error] {
	return records(v, endedPrefix, endedStop)
}

// AnyRunning reports whether a procedure has not ended.
func AnyRunning(v state.View) bool {
	for range v.Ascend(RunningPrefix, runningStop) {
		return true
	}
	return false
}

// OfRegion returns the procedure that works on a region, 0 where none does.
func OfRegion(v state.View, id metasrv.RegionID) uint64 { return holder(v, regionLock(id)) }

// OfNode returns the procedure that works on a node as a whole, 0 where none does.
func OfNode(v state.View, id metasrv.NodeID) uint64 { return holder(v, nodeLock(id)) }

// OfTable returns the procedure that works on a table as a whole, 0 where none does.
func OfTable(v state.View, id metasrv.TableID) uint64 { return holder(v, tableLock(id)) }

func holder(v state.View, key string) uint64 {
	value, _ := v.Get(key)
	return decodeID(value)
}

// HasEnded reports whether nothing more becomes of a procedure.
func HasEnded(r *storagepb.ProcedureRecord) bool { return isEnd(r.State) }

func isEnd(s metasrvpb.ProcedureState) bool {
	switch s {
	case metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING, metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK:
		return false
	}
	return true
}

func records(v state.View, from, to string) iter.Seq2[*storagepb.ProcedureRecord, error] {
	return func(yield func(*storagepb.ProcedureRecord, error) bool) {
		for key, value := range v.Ascend(from, to) {
			record, err := decode(key, value)
			if !yield(record, err) || err != nil {
				return
			}
		}
	}
}

func decode(key string, value []byte) (*storagepb.ProcedureRecord, error) {
	record := &storagepb.ProcedureRecord{}
	if err := state.Decode(value, record); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return record, nil
}

// names are the kinds as people read them.
var names = map[metasrvpb.ProcedureKind]string{
	metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION:  "migrate region",
	metasrvpb.ProcedureKind_PROCEDURE_KIND_TRANSFER_LEADER: "transfer leader",
	metasrvpb.ProcedureKind_PROCEDURE_KIND_ADD_REPLICA:     "add replica",
	metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA:  "remove replica",
	metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE:      "drain node",
	metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE:     "remove node",
	metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS:    "set replicas",
}

// Describe names what a procedure does, for people: "migrate region 1024/0 from node 1 to node 2".
func Describe(spec *storagepb.ProcedureSpec) string {
	s := names[spec.Kind]
	if spec.RegionId != 0 {
		s += " " + metasrv.RegionID(spec.RegionId).String()
	}
	if spec.TableId != 0 {
		s += fmt.Sprintf(" of table %d to %d", spec.TableId, spec.Replicas)
	}
	switch {
	case spec.NodeId != 0 && spec.RegionId != 0:
		s += fmt.Sprintf(" from node %d", spec.NodeId)
	case spec.NodeId != 0:
		s += fmt.Sprintf(" %d", spec.NodeId)
	}
	if spec.TargetNodeId != 0 {
		s += fmt.Sprintf(" to node %d", spec.TargetNodeId)
	}
	return s
}
