package router

import "github.com/metasrv/metasrv/raftfsm/state"

// adoptedReplicaIDs is by how much the ids of replicas rise in a state that may lack what was acknowledged.
const adoptedReplicaIDs = 1 << 40

// Adopt raises the ids of replicas beyond what can have been given out since the state was copied. Epochs and versions
// of regions stay: nothing raises them once a table is PUBLIC, so no lost state can have given out higher ones.
func Adopt(tx state.Tx) error {
	state.Raise(tx, sequenceKey, firstReplicaID, adoptedReplicaIDs)
	return nil
}
