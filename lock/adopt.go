package lock

import "github.com/metasrv/metasrv/raftfsm/state"

// adoptedHolders is by how much the ids of holders rise in a state that may lack what was acknowledged.
const adoptedHolders = 1 << 40

// Adopt forgets all holders and claims, for nobody can say who holds what since the state was copied, and raises the ids
// of holders beyond what can have been given out. Revisions, and so fencing tokens, rise with the state itself.
func Adopt(tx state.Tx) error {
	for _, prefix := range []string{LockPrefix, ElectionPrefix, HolderPrefix} {
		for key := range tx.Ascend(prefix, end(prefix)) {
			tx.Delete(key)
		}
	}
	putCount(tx, 0)
	state.Raise(tx, holderSequenceKey, 1, adoptedHolders)
	return nil
}
