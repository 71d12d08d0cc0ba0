package procedure

import (
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// adoptedProcedures is by how much the ids rise in a state that may lack what was acknowledged.
const adoptedProcedures = 1 << 40

// Adopt ends all procedures of a state that may lack what was acknowledged, for the regions that they work on may be far
// ahead of it. What they did to regions stays.
func Adopt(tx state.Tx) error {
	var records []*storagepb.ProcedureRecord
	for r, err := range Running(tx) {
		if err != nil {
			return err
		}
		records = append(records, r)
	}
	for _, r := range records {
		r.State = metasrvpb.ProcedureState_PROCEDURE_STATE_FAILED
		r.Error = "the state was restored or recovered while it ran; start it again where it is still wanted"
		r.Version++
		tx.Delete(runningID(r.Id))
		tx.Put(endedID(r.Id), state.Encode(r))
		if err := trim(tx, r.Id); err != nil {
			return err
		}
	}
	for key := range tx.Ascend(lockPrefix, lockStop) {
		tx.Delete(key)
	}
	putCount(tx, runningKey, 0)
	state.Raise(tx, sequenceKey, firstSequence, adoptedProcedures)
	return nil
}
