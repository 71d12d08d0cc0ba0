package heartbeat

import (
	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// setNodeState says whether a node gets replicas. ErrNodeNotFound: it is not registered.
func setNodeState(tx state.Tx, cmd *storagepb.SetNodeState) (*storagepb.RegisterNodeResult, error) {
	id := metasrv.NodeID(cmd.NodeId)
	if _, err := SetDrain(tx, id, cmd.Drain); err != nil {
		return nil, err
	}
	record, err := read(tx, id)
	return &storagepb.RegisterNodeResult{Node: record}, err
}

// SetDrain says whether a node gets replicas, as part of another command, and returns what was so before. ErrNodeNotFound: it
// is not registered.
func SetDrain(tx state.Tx, id metasrv.NodeID, drain metasrvpb.NodeDrain) (before metasrvpb.NodeDrain, err error) {
	record, err := Node(tx, id)
	if err != nil {
		return before, err
	}
	if before = record.Drain; before != drain {
		record.Drain = drain
		tx.Put(nodeKey(id), state.Encode(record))
	}
	return before, nil
}

// Remove forgets a node, as part of another command, and keeps its id from being used again. ErrNodeNotFound: it is not
// registered.
func Remove(tx state.Tx, id metasrv.NodeID) error {
	record, err := Node(tx, id)
	if err != nil {
		return err
	}
	if group := record.GetInfo().GetGroup(); group != "" {
		if err := leaveGroup(tx, group, uint64(id)); err != nil {
			return err
		}
	}
	tx.Delete(nodeKey(id))
	tx.Put(removedKey(id), state.Encode(record))
	return nil
}

// Removed reports whether a node was registered once and then removed.
func Removed(v state.View, id metasrv.NodeID) bool {
	_, removed := v.Get(removedKey(id))
	return removed
}

// checkRemoved returns ErrNodeRemoved for the id of a node that was removed: what routes and logs say of the id means the
// one that is gone.
func checkRemoved(v state.View, id metasrv.NodeID) error {
	if !Removed(v, id) {
		return nil
	}
	return metasrv.ErrNodeRemoved.With("node %d was removed from the cluster, and ids are never used twice: give the node a new id, and an empty data folder", id)
}
