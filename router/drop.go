package router

import (
	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// dropTable takes a PUBLIC table out of the routes and frees its name.
// Replicas on nodes that were removed count as confirmed.
func (a *applier) dropTable(tx state.Tx, cmd *storagepb.DropTable) (*storagepb.TableResult, error) {
	record, err := Find(tx, catalog.NameOf(cmd.Name))
	if err != nil {
		return nil, err
	}
	catalog.Retire(tx, record.Table, metasrvpb.TableState_TABLE_STATE_DROPPING, "dropped")
	return result(record), a.confirmRemoved(tx, metasrv.TableID(record.Table.Id))
}

// confirmRemoved marks the replicas of a retired table as dropped that are on nodes which were removed.
func (a *applier) confirmRemoved(tx state.Tx, id metasrv.TableID) error {
	registered := a.registered.once(tx)
	return confirmAll(tx, id, func(node uint64) bool {
		_, is := registered(metasrv.NodeID(node))
		return !is
	})
}

// confirmDropped marks replicas of retired tables as dropped, and forgets a table with its last replica. It
// ignores replicas that are unknown, elsewhere, or still wanted: the report that it rests on may be older
// than what happened since. ErrNodeNotFound, ErrStaleIncarnation: the report is not one of the node's present
// process.
func (a *applier) confirmDropped(tx state.Tx, cmd *storagepb.ConfirmDropped) (*storagepb.TableResult, error) {
	present, ok := a.registered(tx, metasrv.NodeID(cmd.NodeId))
	if !ok {
		return nil, metasrv.ErrNodeNotFound.With("node %d is not registered", cmd.NodeId)
	}
	if uint64(present.Incarnation) != cmd.Incarnation {
		return nil, metasrv.ErrStaleIncarnation.With("node %d has incarnation %d, not %d", cmd.NodeId, present.Incarnation, cmd.Incarnation)
	}
	var tables []metasrv.TableID // in the order of the command: a map has none
	gone := make(map[metasrv.TableID]map[copyID]bool)
	for _, r := range cmd.Replicas {
		id := metasrv.RegionID(r.RegionId).Table()
		if gone[id] == nil {
			gone[id] = make(map[copyID]bool)
			tables = append(tables, id)
		}
		gone[id][copyID{metasrv.RegionID(r.RegionId), metasrv.ReplicaID(r.ReplicaId)}] = true
	}
	for _, id := range tables {
		if err := markDropped(tx, id, cmd.NodeId, gone[id]); err != nil {
			return nil, err
		}
	}
	return &storagepb.TableResult{}, nil
}

// copyID names a replica together with the region that it claims to be of.
type copyID struct {
	region  metasrv.RegionID
	replica metasrv.ReplicaID
}

func idOf(region *storagepb.RegionRecord, replica *storagepb.ReplicaRecord) copyID {
	return copyID{metasrv.RegionID(region.RegionId), metasrv.ReplicaID(replica.ReplicaId)}
}

// markDropped records in the route of a retired table that a node no longer has the given replicas.
func markDropped(tx state.Tx, id metasrv.TableID, node uint64, gone map[copyID]bool) error {
	table, err := catalog.GetTable(tx, id)
	if isNotFound(err) {
		return nil
	}
	if err != nil {
		return err
	}
	if !isRetired(table.State) {
		return nil
	}
	route, err := Route(tx, id)
	if err != nil {
		return err
	}
	changed, left := false, false
	for region, replica := range replicas(route) {
		if !replica.Dropped && replica.NodeId == node && gone[idOf(region, replica)] {
			replica.Dropped, changed = true, true
		}
		left = left || !replica.Dropped
	}
	switch {
	case !left:
		tx.Delete(routeKey(id))
		catalog.Remove(tx, id)
	case changed:
		putRoute(tx, route)
	}
	return nil
}

// isRetired reports whether a table waits only for its replicas to be dropped.
func isRetired(s metasrvpb.TableState) bool {
	return s == metasrvpb.TableState_TABLE_STATE_ABORTING || s == metasrvpb.TableState_TABLE_STATE_DROPPING
}
