package router

import (
	"slices"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// OnNode calls f with each region of a PUBLIC table that has a replica on a node, until it returns false, and reports whether
// a table under CREATING is to have one there. It reads all routes, but decodes only those that name the node.
func OnNode(v state.View, node metasrv.NodeID, f func(*storagepb.RouteRecord, *storagepb.RegionRecord) bool) (creating bool, err error) {
	var tables []metasrv.TableID
	if err := Placed(v, func(table metasrv.TableID, nodes []metasrv.NodeID) {
		if slices.Contains(nodes, node) {
			tables = append(tables, table)
		}
	}); err != nil {
		return false, err
	}
	for _, id := range tables {
		switch tableState(v, id) {
		case metasrvpb.TableState_TABLE_STATE_CREATING:
			creating = true
			continue
		case metasrvpb.TableState_TABLE_STATE_PUBLIC:
		default:
			continue
		}
		route, err := Route(v, id)
		if err != nil {
			return creating, err
		}
		for _, region := range route.Regions {
			on := slices.ContainsFunc(region.Replicas, func(r *storagepb.ReplicaRecord) bool { return r.NodeId == uint64(node) })
			if on && !f(route, region) {
				return creating, nil
			}
		}
	}
	return creating, nil
}

// NodeRemoved marks the replicas of a node as dropped that tables wait for which are given up or dropped, as part of the
// command that removes the node: nobody else will ever confirm it.
func NodeRemoved(tx state.Tx, node metasrv.NodeID) error {
	var tables []metasrv.TableID
	for table, err := range catalog.Pending(tx) {
		if err != nil {
			return err
		}
		if isRetired(table.State) {
			tables = append(tables, metasrv.TableID(table.Id))
		}
	}
	for _, id := range tables {
		if err := confirmAll(tx, id, func(n uint64) bool { return n == uint64(node) }); err != nil {
			return err
		}
	}
	return nil
}

// confirmAll marks all replicas of a retired table as dropped that are on some nodes.
func confirmAll(tx state.Tx, id metasrv.TableID, on func(node uint64) bool) error {
	route, err := Route(tx, id)
	if err != nil {
		return err
	}
	gone := map[uint64]map[copyID]bool{}
	var nodes []uint64
	for region, replica := range replicas(route) {
		if !on(replica.NodeId) {
			continue
		}
		if gone[replica.NodeId] == nil {
			gone[replica.NodeId] = map[copyID]bool{}
			nodes = append(nodes, replica.NodeId)
		}
		gone[replica.NodeId][idOf(region, replica)] = true
	}
	for _, node := range nodes {
		if err := markDropped(tx, id, node, gone[node]); err != nil {
			return err
		}
	}
	return nil
}
