package heartbeat

import "github.com/metasrv/metasrv/raftfsm/state"

// adoptedIncarnations is by how much the incarnations of nodes rise in a state that may lack what was acknowledged.
const adoptedIncarnations = 1 << 40

// Adopt raises the incarnations of nodes beyond what can have been given out since the state was copied.
func Adopt(tx state.Tx) error {
	state.Raise(tx, incarnationKey, firstIncarnation, adoptedIncarnations)
	return nil
}
