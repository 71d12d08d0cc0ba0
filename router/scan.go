package router

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/metasrv/metasrv/raftfsm/state"
)

// The fields on the way from a RouteRecord to its replica ids.
const (
	regionsOfRoute   protowire.Number = 3
	replicasOfRegion protowire.Number = 7
	idOfReplica      protowire.Number = 1
)

// scanReplicaIDs returns the ids of all replicas of an encoded RouteRecord. Every full report of a node asks
// for those of each of its tables: decoding the records takes more than ten times as long.
func scanReplicaIDs(route []byte) ([]uint64, error) {
	ids := []uint64{}
	err := state.EachField(route, func(n protowire.Number, _ uint64, region []byte) error {
		if n != regionsOfRoute {
			return nil
		}
		return state.EachField(region, func(n protowire.Number, _ uint64, replica []byte) error {
			if n != replicasOfRegion {
				return nil
			}
			return state.EachField(replica, func(n protowire.Number, id uint64, _ []byte) error {
				if n == idOfReplica {
					ids = append(ids, id)
				}
				return nil
			})
		})
	})
	if err != nil {
		return nil, fmt.Errorf("scan route: %w", err)
	}
	return ids, nil
}
