package heartbeat

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Node returns the record of a registered node, or ErrNodeNotFound.
func Node(v state.View, id metasrv.NodeID) (*storagepb.NodeRecord, error) {
	record, err := read(v, id)
	if err == nil && record == nil {
		return nil, metasrv.ErrNodeNotFound.With("node %d is not registered", id)
	}
	return record, err
}

// Value returns the stored record of a node, nil where it is not registered: whoever keeps something made from it sees by
// it whether the node has changed.
func Value(v state.View, id metasrv.NodeID) []byte {
	value, _ := v.Get(nodeKey(id))
	return value
}

// Numbers of the fields of a stored record that are read alone.
const (
	recordPeerField        = 1  // of NodeRecord
	recordInfoField        = 2  // of NodeRecord
	recordIncarnationField = 3  // of NodeRecord
	recordGenerationField  = 6  // of NodeRecord
	recordDrainField       = 8  // of NodeRecord
	peerAddrField          = 2  // of Peer
	infoKeepsLeasesField   = 20 // of NodeInfo
	infoGroupField         = 21 // of NodeInfo
)

// Address returns the address in a stored record, "" where it has none. It reads nothing else.
func Address(value []byte) string {
	_, peer := state.Field(value, recordPeerField)
	_, addr := state.Field(peer, peerAddrField)
	return string(addr)
}

// Nodes returns the records of all registered nodes, sorted by id. It decodes each of them; for the metasrv
// leader's own use Tracker.Nodes is cheaper.
func Nodes(v state.View) ([]*storagepb.NodeRecord, error) {
	var records []*storagepb.NodeRecord
	for key, value := range v.Ascend(NodePrefix, nodeEnd) {
		record, err := decode(key, value)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, nil
}

// Changed returns the records of a node around a change of the state, nil where there is none; ok is false for a
// change of another key.
func Changed(c *state.Change) (before, after *storagepb.NodeRecord, ok bool, err error) {
	if !strings.HasPrefix(c.Key, NodePrefix) {
		return nil, nil, false, nil
	}
	if c.Prev != nil {
		if before, err = decode(c.Key, c.Prev); err != nil {
			return nil, nil, true, err
		}
	}
	if c.Value != nil {
		after, err = decode(c.Key, c.Value)
	}
	return before, after, true, err
}

// Registration returns what the last registration of a node says of it, and whether there is one. It reads nothing else
// of the record, for creating a table asks for each replica.
func Registration(v state.View, id metasrv.NodeID) (metasrv.Registration, bool) {
	value, ok := v.Get(nodeKey(id))
	if !ok {
		return metasrv.Registration{}, false
	}
	r := RegistrationIn(value)
	if r.Group != "" {
		g, err := Group(v, r.Group)
		r.GroupWriter = err == nil && g.WriterNodeId == uint64(id) && memberOf(g, uint64(id)).GetInSync()
	}
	return r, true
}

// RegistrationIn returns what Registration does, of a stored record, but for who writes in its group.
func RegistrationIn(value []byte) metasrv.Registration {
	var r metasrv.Registration
	_ = state.EachField(value, func(number protowire.Number, n uint64, bytes []byte) error {
		switch number {
		case recordInfoField:
			keeps, _ := state.Field(bytes, infoKeepsLeasesField)
			_, group := state.Field(bytes, infoGroupField)
			r.Group = string(group)
			r.KeepsLeases = keeps != 0 && r.Group == ""
		case recordIncarnationField:
			r.Incarnation = metasrv.Incarnation(n)
		case recordGenerationField:
			r.StorageGeneration = n
		case recordDrainField:
			r.Draining = n != 0
		}
		return nil
	})
	return r
}

// RoleOf returns what a registered node is; a node that never said is a datanode.
func RoleOf(record *storagepb.NodeRecord) metasrvpb.NodeRole {
	if role := record.GetInfo().GetRole(); role != metasrvpb.NodeRole_NODE_ROLE_UNSPECIFIED {
		return role
	}
	return metasrvpb.NodeRole_NODE_ROLE_DATANODE
}

// roleName returns a role as people read it.
func roleName(role metasrvpb.NodeRole) string {
	if role == metasrvpb.NodeRole_NODE_ROLE_FRONTEND {
		return "frontend"
	}
	return "datanode"
}

// read returns the record of a node, nil where there is none.
func read(v state.View, id metasrv.NodeID) (*storagepb.NodeRecord, error) {
	key := nodeKey(id)
	value, ok := v.Get(key)
	if !ok {
		return nil, nil
	}
	return decode(key, value)
}

func decode(key string, value []byte) (*storagepb.NodeRecord, error) {
	record := &storagepb.NodeRecord{}
	if err := state.Decode(value, record); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return record, nil
}
