package procedure

import (
	"errors"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// locks returns the keys that a procedure has while it runs.
func locks(spec *storagepb.ProcedureSpec) []string {
	switch {
	case spec.RegionId != 0:
		return []string{regionLock(metasrv.RegionID(spec.RegionId))}
	case spec.TableId != 0:
		return []string{tableLock(metasrv.TableID(spec.TableId))}
	}
	return []string{nodeLock(metasrv.NodeID(spec.NodeId))}
}

func lock(tx state.Tx, r *storagepb.ProcedureRecord) error {
	for _, key := range locks(r.Spec) {
		if other := holder(tx, key); other != 0 {
			return conflict(tx, r.Spec, other)
		}
		tx.Put(key, encodeID(r.Id))
	}
	return nil
}

// conflict names the procedure that has what another one wants.
func conflict(v state.View, wanted *storagepb.ProcedureSpec, other uint64) error {
	what := "something else"
	if r, err := Get(v, other); err == nil {
		what = Describe(r.Spec)
	}
	return metasrv.ErrProcedureConflict.With("%s: procedure %d (%s) is at work there; wait for its end, or end it with: metactl procedure cancel %d",
		Describe(wanted), other, what, other)
}

func unlock(tx state.Tx, r *storagepb.ProcedureRecord) {
	for _, key := range locks(r.Spec) {
		if holder(tx, key) == r.Id {
			tx.Delete(key)
		}
	}
}

// unlessGone returns nil for the error that a node or a table is no longer there.
func unlessGone(err error) error {
	if errors.Is(err, metasrv.ErrNodeNotFound) || errors.Is(err, metasrv.ErrTableNotFound) {
		return nil
	}
	return err
}

// asError returns an error as a command may return it.
func asError(err error) error {
	if e, ok := errors.AsType[*metasrv.Error](err); ok {
		return e
	}
	return metasrv.ErrInternal.With("%v", err)
}
