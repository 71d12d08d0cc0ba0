package heartbeat

import (
	"fmt"
	"iter"
	"slices"
	"unicode"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// maxGroupName bounds the name of a group, in bytes.
const maxGroupName = 128

// Group returns the record of a group, or ErrGroupNotFound.
func Group(v state.View, name string) (*storagepb.GroupRecord, error) {
	value, ok := v.Get(groupKey(name))
	if !ok {
		return nil, metasrv.ErrGroupNotFound.With("no node is registered as one of group %q", name)
	}
	return decodeGroup(groupKey(name), value)
}

// Groups returns the records of all groups, sorted by name. After an error it ends.
func Groups(v state.View) iter.Seq2[*storagepb.GroupRecord, error] {
	return func(yield func(*storagepb.GroupRecord, error) bool) {
		for key, value := range v.Ascend(GroupPrefix, groupEnd) {
			g, err := decodeGroup(key, value)
			if !yield(g, err) || err != nil {
				return
			}
		}
	}
}

// AnyGroup reports whether there is a group.
func AnyGroup(v state.View) bool {
	for range v.Ascend(GroupPrefix, groupEnd) {
		return true
	}
	return false
}

func decodeGroup(key string, value []byte) (*storagepb.GroupRecord, error) {
	g := &storagepb.GroupRecord{}
	if err := state.Decode(value, g); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return g, nil
}

func putGroup(tx state.Tx, g *storagepb.GroupRecord) { tx.Put(groupKey(g.Name), state.Encode(g)) }

// memberOf returns a member of a group, nil where the node is none.
func memberOf(g *storagepb.GroupRecord, node uint64) *storagepb.GroupMemberRecord {
	if i := slices.IndexFunc(g.GetMembers(), func(m *storagepb.GroupMemberRecord) bool { return m.NodeId == node }); i >= 0 {
		return g.Members[i]
	}
	return nil
}

// validateGroup returns ErrInvalidArgument for a node that can't be in the group that it names.
func validateGroup(info *metasrvpb.NodeInfo) error {
	name := info.GetGroup()
	switch {
	case name == "":
		return nil
	case info.GetRole() == metasrvpb.NodeRole_NODE_ROLE_FRONTEND:
		return metasrv.InvalidArgument("node.group", "is %q, but only datanodes are in groups", name)
	case len(name) > maxGroupName:
		return metasrv.InvalidArgument("node.group", "has %d bytes, at most %d are allowed", len(name), maxGroupName)
	}
	for _, r := range name {
		if !unicode.IsGraphic(r) {
			return metasrv.InvalidArgument("node.group", "%q has a character that can't be printed", name)
		}
	}
	return nil
}

// moveGroups brings the groups to the registration of a node; record is the one before, or nil.
func moveGroups(tx state.Tx, record, next *storagepb.NodeRecord) error {
	was, now := record.GetInfo().GetGroup(), next.GetInfo().GetGroup()
	if was != "" && was != now {
		if err := leaveGroup(tx, was, next.Peer.Id); err != nil {
			return err
		}
	}
	if now == "" {
		return nil
	}
	return joinGroup(tx, now, next)
}

// joinGroup makes a node a member of its group. One that has come back with other storage is in sync no longer (rule 21).
func joinGroup(tx state.Tx, name string, node *storagepb.NodeRecord) error {
	g := &storagepb.GroupRecord{Name: name}
	if value, ok := tx.Get(groupKey(name)); ok {
		var err error
		if g, err = decodeGroup(groupKey(name), value); err != nil {
			return err
		}
	}
	member := memberOf(g, node.Peer.Id)
	switch {
	case member == nil:
		g.Members = append(g.Members, &storagepb.GroupMemberRecord{NodeId: node.Peer.Id, StorageGeneration: node.StorageGeneration})
		slices.SortFunc(g.Members, func(a, b *storagepb.GroupMemberRecord) int { return compareIDs(a.NodeId, b.NodeId) })
	case member.StorageGeneration != node.StorageGeneration:
		member.StorageGeneration, member.InSync = node.StorageGeneration, false
	default:
		return nil
	}
	g.Version++
	putGroup(tx, g)
	return nil
}

// leaveGroup takes a node out of a group. The record stays, for epochs must not begin anew.
func leaveGroup(tx state.Tx, name string, node uint64) error {
	value, ok := tx.Get(groupKey(name))
	if !ok {
		return nil
	}
	g, err := decodeGroup(groupKey(name), value)
	if err != nil {
		return err
	}
	g.Members = slices.DeleteFunc(g.Members, func(m *storagepb.GroupMemberRecord) bool { return m.NodeId == node })
	if len(g.Members) == 0 && g.Epoch == 0 {
		tx.Delete(groupKey(name))
		return nil
	}
	if g.SuccessorNodeId == node {
		// Nobody takes over: the plan is given up by electing again, which the duty does.
		g.SuccessorNodeId = g.WriterNodeId
	}
	g.Version++
	putGroup(tx, g)
	return nil
}

func compareIDs(a, b uint64) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
