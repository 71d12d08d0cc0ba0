package main

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// creation is what a client has read of the answer to a Create. Its lists are used again for the next one.
type creation struct {
	tableID, token uint64
	peers          []uint64 // ids of nodes
	replicas       []createdReplica
	routes         int
}

// createdReplica is one replica of a creation; node is an index into the peers.
type createdReplica struct{ region, replica, node uint64 }

var (
	errUnknownNode     = errors.New("a region was placed on a node that is not simulated")
	errStrangeCreation = errors.New("the answer to a creation is no route of one table")
)

// fieldNumber returns the number of a field of a message.
func fieldNumber(m protoreflect.ProtoMessage, name protoreflect.Name) protowire.Number {
	return m.ProtoReflect().Descriptor().Fields().ByName(name).Number()
}

// Fields of what is read and written here.
var (
	responsePeers  = fieldNumber(&metasrvpb.RouteResponse{}, "peers")
	responseRoutes = fieldNumber(&metasrvpb.RouteResponse{}, "table_routes")
	peerID         = fieldNumber(&metasrvpb.Peer{}, "id")
	routeTable     = fieldNumber(&metasrvpb.TableRoute{}, "table")
	routeRegions   = fieldNumber(&metasrvpb.TableRoute{}, "region_routes")
	routeToken     = fieldNumber(&metasrvpb.TableRoute{}, "creation_token")
	tableID        = fieldNumber(&metasrvpb.Table{}, "id")
	regionRegion   = fieldNumber(&metasrvpb.RegionRoute{}, "region")
	regionLeader   = fieldNumber(&metasrvpb.RegionRoute{}, "leader_peer_index")
	regionPeers    = fieldNumber(&metasrvpb.RegionRoute{}, "follower_peer_indexes")
	leaderReplica  = fieldNumber(&metasrvpb.RegionRoute{}, "leader_replica_id")
	peerReplicas   = fieldNumber(&metasrvpb.RegionRoute{}, "follower_replica_ids")
	regionID       = fieldNumber(&metasrvpb.Region{}, "id")

	commitTable    = fieldNumber(&metasrvpb.CommitTableRequest{}, "table_id")
	commitToken    = fieldNumber(&metasrvpb.CommitTableRequest{}, "creation_token")
	commitReplicas = fieldNumber(&metasrvpb.CommitTableRequest{}, "replicas")
	createdRegion  = fieldNumber(&metasrvpb.CreatedReplica{}, "region_id")
	createdID      = fieldNumber(&metasrvpb.CreatedReplica{}, "replica_id")
	createdNode    = fieldNumber(&metasrvpb.CreatedReplica{}, "node_id")
	createdBy      = fieldNumber(&metasrvpb.CreatedReplica{}, "incarnation")
)

// fields calls read with each field of an encoded message: with its value where that is a number, else with its bytes.
func fields(b []byte, read func(number protowire.Number, value uint64, bytes []byte) error) error {
	for len(b) > 0 {
		number, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		var value uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			value, n = protowire.ConsumeVarint(b)
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return protowire.ParseError(n)
		}
		if err := read(number, value, bytes); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// read reads a RouteResponse. Only what a commit says is looked at: to decode the whole would cost the load, which
// shares its machine with the servers, as much as they need for a table.
func (c *creation) read(response []byte) error {
	*c = creation{peers: c.peers[:0], replicas: c.replicas[:0]}
	err := fields(response, func(number protowire.Number, _ uint64, bytes []byte) error {
		switch number {
		case responsePeers:
			c.peers = append(c.peers, 0)
			return fields(bytes, func(number protowire.Number, id uint64, _ []byte) error {
				if number == peerID {
					c.peers[len(c.peers)-1] = id
				}
				return nil
			})
		case responseRoutes:
			c.routes++
			return c.readRoute(bytes)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("%w: %w", errStrangeCreation, err)
	}
	if c.routes != 1 {
		return errStrangeCreation
	}
	return nil
}

func (c *creation) readRoute(b []byte) error {
	return fields(b, func(number protowire.Number, value uint64, bytes []byte) error {
		switch number {
		case routeTable:
			return readVarint(bytes, tableID, &c.tableID)
		case routeToken:
			c.token = value
		case routeRegions:
			return c.readRegion(bytes)
		}
		return nil
	})
}

func (c *creation) readRegion(b []byte) error {
	leader, region := createdReplica{}, uint64(0)
	var nodes, replicas []byte
	err := fields(b, func(number protowire.Number, value uint64, bytes []byte) error {
		switch number {
		case regionRegion:
			return readVarint(bytes, regionID, &region)
		case regionLeader:
			leader.node = value
		case leaderReplica:
			leader.replica = value
		case regionPeers:
			nodes = bytes
		case peerReplicas:
			replicas = bytes
		}
		return nil
	})
	if err != nil {
		return err
	}
	leader.region = region
	c.replicas = append(c.replicas, leader)
	for len(nodes) > 0 {
		node, n := protowire.ConsumeVarint(nodes)
		replica, m := protowire.ConsumeVarint(replicas)
		if n < 0 || m < 0 {
			return errStrangeCreation
		}
		c.replicas = append(c.replicas, createdReplica{region: region, replica: replica, node: node})
		nodes, replicas = nodes[n:], replicas[m:]
	}
	return nil
}

// readVarint reads one field of a message.
func readVarint(b []byte, field protowire.Number, to *uint64) error {
	return fields(b, func(number protowire.Number, value uint64, _ []byte) error {
		if number == field {
			*to = value
		}
		return nil
	})
}

// commit returns the encoded CommitTableRequest that says that all replicas of the creation exist. incarnation returns
// that of a node, false where it is not simulated.
func (c *creation) commit(incarnation func(node uint64) (uint64, bool)) ([]byte, error) {
	b := make([]byte, 0, 32+40*len(c.replicas))
	b = protowire.AppendVarint(protowire.AppendTag(b, commitTable, protowire.VarintType), c.tableID)
	b = protowire.AppendVarint(protowire.AppendTag(b, commitToken, protowire.VarintType), c.token)
	for _, r := range c.replicas {
		if r.node >= uint64(len(c.peers)) {
			return nil, errStrangeCreation
		}
		node := c.peers[r.node]
		by, known := incarnation(node)
		if !known {
			return nil, errUnknownNode
		}
		var room [64]byte
		replica := room[:0]
		replica = protowire.AppendVarint(protowire.AppendTag(replica, createdRegion, protowire.VarintType), r.region)
		replica = protowire.AppendVarint(protowire.AppendTag(replica, createdID, protowire.VarintType), r.replica)
		replica = protowire.AppendVarint(protowire.AppendTag(replica, createdNode, protowire.VarintType), node)
		replica = protowire.AppendVarint(protowire.AppendTag(replica, createdBy, protowire.VarintType), by)
		b = protowire.AppendBytes(protowire.AppendTag(b, commitReplicas, protowire.BytesType), replica)
	}
	return b, nil
}
