package heartbeat

import "github.com/metasrv/metasrv/raftfsm/state"

const (
	// adoptedIncarnations is by how much the incarnations of nodes rise in a state that may lack what was acknowledged.
	adoptedIncarnations = 1 << 40
	// adoptedVersions is by how much epochs and versions of groups do. Each takes a command, so no lost state has as many of
	// one group.
	adoptedVersions = 1 << 20
)

// Adopt raises the incarnations of nodes, and the epochs and versions of groups, beyond what can have been given out since
// the state was copied: nodes ignore what is older than they know.
func Adopt(tx state.Tx) error {
	state.Raise(tx, incarnationKey, firstIncarnation, adoptedIncarnations)
	for g, err := range Groups(tx) {
		if err != nil {
			return err
		}
		if g.Epoch > 0 {
			g.Epoch += adoptedVersions
		}
		g.Version += adoptedVersions
		putGroup(tx, g)
	}
	return nil
}
