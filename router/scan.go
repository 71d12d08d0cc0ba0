package router

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
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
	err := fields(route, func(n protowire.Number, region []byte, _ uint64) error {
		if n != regionsOfRoute {
			return nil
		}
		return fields(region, func(n protowire.Number, replica []byte, _ uint64) error {
			if n != replicasOfRegion {
				return nil
			}
			return fields(replica, func(n protowire.Number, _ []byte, id uint64) error {
				if n == idOfReplica {
					ids = append(ids, id)
				}
				return nil
			})
		})
	})
	return ids, err
}

// fields calls f with each field of an encoded message: its bytes, or its number where it is a varint.
func fields(message []byte, f func(n protowire.Number, bytes []byte, varint uint64) error) error {
	for len(message) > 0 {
		n, t, size := protowire.ConsumeTag(message)
		if size < 0 {
			return fmt.Errorf("scan route: %w", protowire.ParseError(size))
		}
		message = message[size:]
		var bytes []byte
		var varint uint64
		switch t {
		case protowire.BytesType:
			bytes, size = protowire.ConsumeBytes(message)
		case protowire.VarintType:
			varint, size = protowire.ConsumeVarint(message)
		default:
			size = protowire.ConsumeFieldValue(n, t, message)
		}
		if size < 0 {
			return fmt.Errorf("scan route: %w", protowire.ParseError(size))
		}
		message = message[size:]
		if err := f(n, bytes, varint); err != nil {
			return err
		}
	}
	return nil
}
