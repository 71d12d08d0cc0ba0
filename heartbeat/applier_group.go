package heartbeat

import (
	"slices"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// changeGroup carries out one change of a group. ErrGroupNotFound; ErrGroupChanged: it was planned on another version
// (rule 19); ErrNodeNotInGroup, ErrNodeNotFound, ErrStaleIncarnation, ErrNodeKeepsNoLease, ErrNodeNotInSync: the node can't
// be the writer, or be in sync.
func changeGroup(tx state.Tx, cmd *storagepb.ChangeGroup) (*storagepb.ChangeGroupResult, error) {
	g, err := Group(tx, cmd.Name)
	if err != nil {
		if _, refusal := err.(*metasrv.Error); refusal { //nolint:errorlint // made here
			return nil, err
		}
		return nil, metasrv.ErrInternal.With("%v", err)
	}
	if g.Version != cmd.Version {
		return nil, metasrv.ErrGroupChanged.With("group %q is at version %d, the change was planned at %d", g.Name, g.Version, cmd.Version)
	}
	changed := true
	switch change := cmd.Change.(type) {
	case *storagepb.ChangeGroup_Elect:
		err = electWriter(tx, g, change.Elect)
	case *storagepb.ChangeGroup_HandOver:
		changed, err = handOver(tx, g, change.HandOver)
	case *storagepb.ChangeGroup_SetInSync:
		changed, err = setGroupInSync(tx, g, change.SetInSync)
	default:
		err = metasrv.InvalidArgument("change", "is missing for group %q", g.Name)
	}
	if err != nil {
		return nil, err
	}
	if changed {
		g.Version++
		putGroup(tx, g)
	}
	return &storagepb.ChangeGroupResult{Group: g}, nil
}

// electWriter makes a node the writer under the next epoch. It must have every write that was acknowledged, which only the
// committed in-sync set says; nothing was acknowledged before the first election.
func electWriter(tx state.Tx, g *storagepb.GroupRecord, cmd *storagepb.ElectWriter) error {
	member, err := electable(tx, g, cmd.NodeId, cmd.Incarnation)
	if err != nil {
		return err
	}
	before := memberOf(g, g.WriterNodeId)
	switch {
	case g.Epoch > 0 && !member.InSync && !cmd.Unclean:
		return metasrv.ErrNodeNotInSync.With("node %d is not in sync in group %q: it may lack writes that were acknowledged", cmd.NodeId, g.Name)
	case cmd.Failed && cmd.NodeId == g.WriterNodeId:
		return metasrv.InvalidArgument("failed", "is the present writer, which is to be elected")
	case !member.InSync:
		for _, m := range g.Members {
			m.InSync = false
		}
	case cmd.Failed && before != nil:
		before.InSync = false
	}
	member.InSync = true
	g.WriterNodeId, g.SuccessorNodeId = cmd.NodeId, 0
	g.Epoch++
	return nil
}

// electable returns a member that can be the writer but for what it holds: it writes only under a lease, so that another
// one can take over from it (rule 28).
func electable(tx state.Tx, g *storagepb.GroupRecord, node, incarnation uint64) (*storagepb.GroupMemberRecord, error) {
	member := memberOf(g, node)
	if member == nil {
		return nil, metasrv.ErrNodeNotInGroup.With("node %d is not in group %q", node, g.Name)
	}
	record, err := read(tx, metasrv.NodeID(node))
	switch {
	case err != nil:
		return nil, metasrv.ErrInternal.With("%v", err)
	case record == nil:
		return nil, metasrv.ErrNodeNotFound.With("node %d is not registered", node)
	case incarnation != 0 && record.Incarnation != incarnation:
		return nil, errStale(metasrv.NodeID(node), metasrv.Incarnation(incarnation), metasrv.Incarnation(record.Incarnation))
	case !canWrite(record):
		return nil, metasrv.ErrNodeKeepsNoLease.With("node %d keeps no leases: nobody could take group %q over from it", node, g.Name)
	}
	return member, nil
}

// handOver plans another writer. The present one gets no lease from then on.
func handOver(tx state.Tx, g *storagepb.GroupRecord, cmd *storagepb.HandOverGroup) (changed bool, err error) {
	member, err := electable(tx, g, cmd.NodeId, 0)
	switch {
	case err != nil:
		return false, err
	case g.SuccessorNodeId == cmd.NodeId, g.SuccessorNodeId == 0 && g.WriterNodeId == cmd.NodeId:
		return false, nil
	case !member.InSync:
		return false, metasrv.ErrNodeNotInSync.With("node %d is not in sync in group %q: it may lack writes that were acknowledged", cmd.NodeId, g.Name)
	}
	g.SuccessorNodeId = cmd.NodeId
	return true, nil
}

// setGroupInSync makes the in-sync set what the writer asks for.
func setGroupInSync(tx state.Tx, g *storagepb.GroupRecord, cmd *storagepb.SetGroupInSync) (changed bool, err error) {
	writer := metasrv.NodeID(g.WriterNodeId)
	present, ok := Registration(tx, writer)
	switch {
	case !ok:
		return false, metasrv.ErrNodeNotFound.With("node %d, the writer of group %q, is not registered", writer, g.Name)
	case uint64(present.Incarnation) != cmd.Incarnation:
		return false, errStale(writer, metasrv.Incarnation(cmd.Incarnation), present.Incarnation)
	case g.SuccessorNodeId != 0:
		return false, metasrv.ErrGroupChanged.With("group %q is being handed over to node %d", g.Name, g.SuccessorNodeId)
	case !slices.Contains(cmd.NodeIds, uint64(writer)), !memberOf(g, uint64(writer)).GetInSync():
		return false, metasrv.InvalidArgument("node_ids", "lack the writer of group %q, node %d", g.Name, writer)
	}
	for _, id := range cmd.NodeIds {
		if memberOf(g, id) == nil {
			return false, metasrv.ErrNodeNotInGroup.With("node %d is not in group %q", id, g.Name)
		}
	}
	for _, m := range g.Members {
		if want := slices.Contains(cmd.NodeIds, m.NodeId); m.InSync != want {
			m.InSync, changed = want, true
		}
	}
	return changed, nil
}
