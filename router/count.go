package router

import (
	"errors"
	"iter"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/metasrv/metasrv/raftfsm/state"
)

// Numbers of the fields of the stored records that ReplicasIn reads.
const (
	regionsField        = 3 // of RouteRecord
	regionLeaderField   = 6 // of RegionRecord
	regionReplicasField = 7 // of RegionRecord
	replicaIDField      = 1 // of ReplicaRecord
	replicaNodeField    = 2 // of ReplicaRecord
	replicaDroppedField = 5 // of ReplicaRecord
)

var errRoute = errors.New("a stored route can't be read")

// Values returns the stored routes of all tables in any state.
func Values(v state.View) iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for _, value := range v.Ascend(RoutePrefix, routeStop) {
			if !yield(value) {
				return
			}
		}
	}
}

// ReplicasIn calls f for every replica in a stored route that is not dropped: with its node, and whether it leads its
// region. It reads nothing else of the route, which makes it ten times as fast as decoding that.
func ReplicasIn(route []byte, f func(node uint64, leads bool)) error {
	return eachField(route, func(number protowire.Number, _ uint64, region []byte) error {
		if number != regionsField {
			return nil
		}
		leader := uint64(0)
		return eachField(region, func(number protowire.Number, n uint64, replica []byte) error {
			switch number {
			case regionLeaderField: // state.Encode writes it before the replicas
				leader = n
			case regionReplicasField:
				return replicaIn(replica, leader, f)
			}
			return nil
		})
	})
}

func replicaIn(replica []byte, leader uint64, f func(node uint64, leads bool)) error {
	var id, node, dropped uint64
	err := eachField(replica, func(number protowire.Number, n uint64, _ []byte) error {
		switch number {
		case replicaIDField:
			id = n
		case replicaNodeField:
			node = n
		case replicaDroppedField:
			dropped = n
		}
		return nil
	})
	if err == nil && dropped == 0 {
		f(node, id == leader)
	}
	return err
}

// eachField calls f for every field of a message: with its number, and its value if it is a varint or has a length.
func eachField(b []byte, f func(number protowire.Number, n uint64, bytes []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errRoute
		}
		b = b[n:]
		var varint uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			varint, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return errRoute
		}
		if err := f(number, varint, bytes); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}
