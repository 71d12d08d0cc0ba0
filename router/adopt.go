package router

import (
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	// adoptedReplicaIDs is by how much the ids of replicas rise in a state that may lack what was acknowledged.
	adoptedReplicaIDs = 1 << 40
	// adoptedVersions is by how much epochs and versions of regions do. Each takes a command, so no lost state has as many
	// of one region; more would make every record larger.
	adoptedVersions = 1 << 20
)

// Adopt raises what names replicas, leaderships and in-sync sets beyond what can have been given out since the state was
// copied: datanodes refuse what is lower than they know.
func Adopt(tx state.Tx) error {
	state.Raise(tx, sequenceKey, firstReplicaID, adoptedReplicaIDs)
	for route, err := range Routes(tx) {
		if err != nil {
			return err
		}
		for _, region := range route.Regions {
			region.LeaderEpoch += adoptedVersions
			region.ConfVersion += adoptedVersions
		}
		route.RouteVersion += adoptedVersions
		putRoute(tx, route)
	}
	return nil
}
