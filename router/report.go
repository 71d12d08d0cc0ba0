package router

import (
	"fmt"
	"slices"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// ReportedReplica is a replica that a node says it has.
type ReportedReplica struct {
	Region metasrv.RegionID
	// Replica is 0 where the node speaks only the early public protocol.
	Replica metasrv.ReplicaID
	// LeaderEpoch and ConfVersion are those that the node knows.
	LeaderEpoch, ConfVersion uint64
	Role                     metasrvpb.ReplicaRole
	// Demoted: it led the region and has been told to stop.
	Demoted bool
}

// leads says whether the node holds the replica for the region leader.
func (r ReportedReplica) leads() bool {
	return r.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER && !r.Demoted
}

// ReplicasToDrop compares a full report of a node with the state, which must be at least as new as the report
// (read it behind a barrier). It returns an instruction for each reported replica that must go, and the
// replicas of retired tables that the node no longer has, for a ConfirmDropped command.
//
// A replica must go if its table is ABORTING or DROPPING; if its table is gone; or if its table is there and
// no longer has it. It stays if it, or its table, has an id that this cluster has not given out yet: then it
// is not this cluster's to drop. It also stays if the state has it on another node: somebody moved a disk.
//
// The cost is one pass over the tables that are not PUBLIC and one lookup a reported table.
func ReplicasToDrop(v state.View, node metasrv.NodeID, report []ReportedReplica) (drop []*metasrvpb.DropRegion, confirmed []*storagepb.DroppedReplica, err error) {
	retired, err := retiredTables(v)
	if err != nil {
		return nil, nil, err
	}
	j := newJudge(v, retired)
	for _, r := range report {
		reason, err := j.whyDrop(r)
		if err != nil {
			return nil, nil, err
		}
		if reason != "" {
			drop = append(drop, dropOf(r, reason))
		}
	}
	return drop, absent(retired, node, report), nil
}

func dropOf(r ReportedReplica, reason string) *metasrvpb.DropRegion {
	return &metasrvpb.DropRegion{
		RegionId: uint64(r.Region), ReplicaId: uint64(r.Replica), LeaderEpoch: r.LeaderEpoch, ConfVersion: r.ConfVersion, Reason: reason,
	}
}

// retiredTables returns the tables that are ABORTING or DROPPING, in the order of their ids.
func retiredTables(v state.View) ([]Record, error) {
	var retired []Record
	for table, err := range catalog.Pending(v) {
		if err != nil {
			return nil, err
		}
		if !isRetired(table.State) {
			continue
		}
		record, err := located(v, table)
		if err != nil {
			return nil, err
		}
		retired = append(retired, record)
	}
	return retired, nil
}

// absent returns the replicas of retired tables that a node has not confirmed and does not report.
func absent(retired []Record, node metasrv.NodeID, report []ReportedReplica) []*storagepb.DroppedReplica {
	if len(retired) == 0 {
		return nil
	}
	reported := make(map[copyID]bool, len(report))
	for _, r := range report {
		reported[copyID{r.Region, r.Replica}] = true
	}
	var found []*storagepb.DroppedReplica
	for _, record := range retired {
		for region, replica := range replicas(record.Route) {
			if replica.Dropped || replica.NodeId != uint64(node) {
				continue
			}
			id := idOf(region, replica)
			if reported[id] || reported[copyID{id.region, 0}] {
				continue
			}
			found = append(found, &storagepb.DroppedReplica{RegionId: region.RegionId, ReplicaId: replica.ReplicaId})
		}
	}
	return found
}

// judge says of reported replicas whether they must go, and reads each table once.
type judge struct {
	view        state.View
	nextTable   metasrv.TableID
	nextReplica metasrv.ReplicaID
	retired     map[metasrv.TableID]*storagepb.TableRecord
	// wanted holds the replica ids of tables that are there, rising, and nil for tables that are gone.
	wanted map[metasrv.TableID][]uint64
}

func newJudge(v state.View, retired []Record) *judge {
	j := &judge{
		view:        v,
		nextTable:   catalog.NextTableID(v),
		nextReplica: NextReplicaID(v),
		retired:     make(map[metasrv.TableID]*storagepb.TableRecord, len(retired)),
		wanted:      make(map[metasrv.TableID][]uint64),
	}
	for _, record := range retired {
		j.retired[metasrv.TableID(record.Table.Id)] = record.Table
	}
	return j
}

// whyDrop returns why a replica must go, "" where it stays.
func (j *judge) whyDrop(r ReportedReplica) (string, error) {
	id := r.Region.Table()
	if id < metasrv.FirstTableID || id >= j.nextTable || r.Replica >= j.nextReplica {
		return "", nil
	}
	if table := j.retired[id]; table != nil {
		return ended(table).Error(), nil
	}
	wanted, err := j.replicasOf(id)
	switch {
	case err != nil:
		return "", err
	case wanted == nil:
		return fmt.Sprintf("table %d does not exist any more", id), nil
	case r.Replica == 0:
		return "", nil
	}
	if _, found := slices.BinarySearch(wanted, uint64(r.Replica)); !found {
		return fmt.Sprintf("replica %d was removed from region %s", r.Replica, r.Region), nil
	}
	return "", nil
}

func (j *judge) replicasOf(id metasrv.TableID) ([]uint64, error) {
	if ids, ok := j.wanted[id]; ok {
		return ids, nil
	}
	value, ok := j.view.Get(routeKey(id))
	if !ok {
		j.wanted[id] = nil
		return nil, nil
	}
	ids, err := scanReplicaIDs(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", routeKey(id), err)
	}
	slices.Sort(ids)
	j.wanted[id] = ids
	return ids, nil
}
