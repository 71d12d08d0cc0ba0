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

// createTable reserves the table, its regions and its replicas. Nodes that registered anew, or are gone,
// since the placement was planned make it ErrStaleIncarnation: the caller plans again.
func (a *applier) createTable(tx state.Tx, cmd *storagepb.CreateTable) (*storagepb.TableResult, error) {
	if err := checkPlan(cmd); err != nil {
		return nil, err
	}
	table, err := catalog.Reserve(tx, cmd)
	if err != nil {
		return nil, err
	}
	registered := a.registered.once(tx)
	storageReplaced, err := checkPlannedNodes(registered, cmd)
	if err != nil {
		return nil, err
	}
	route := plannedRoute(tx, metasrv.TableID(table.Id), cmd.Regions)
	route.Replicas, route.UncleanFailover = cmd.Replicas, cmd.UncleanFailover
	if storageReplaced {
		for _, replica := range replicas(route) {
			present, _ := registered(metasrv.NodeID(replica.NodeId))
			replica.StorageGeneration = present.StorageGeneration
		}
	}
	if cmd.Commit {
		for _, replica := range replicas(route) {
			replica.InSync = true
		}
		if err := catalog.Publish(tx, table, nil); err != nil {
			return nil, err
		}
	}
	putRoute(tx, route)
	return result(Record{Table: table, Route: route}), nil
}

// checkPlan refuses a plan that later commands could not work with. Requests are checked by ValidateCreate
// before; this keeps a faulty planner from damaging the state.
func checkPlan(cmd *storagepb.CreateTable) error {
	if n := ruleLen(cmd.PartitionRule); n != 0 && n != len(cmd.Regions) {
		return metasrv.InvalidArgument("regions", "%d are planned for %d partitions", len(cmd.Regions), n)
	}
	if len(cmd.Regions) == 0 || len(cmd.Regions) > MaxRegions {
		return metasrv.InvalidArgument("regions", "%d are planned, 1 to %d are allowed", len(cmd.Regions), MaxRegions)
	}
	if cmd.Replicas > MaxReplicas {
		return metasrv.InvalidArgument("replicas", "is %d, at most %d are allowed", cmd.Replicas, MaxReplicas)
	}
	for i, region := range cmd.Regions {
		field := func() string { return fmt.Sprintf("regions[%d].replicas", i) }
		if len(region.Replicas) == 0 || len(region.Replicas) > MaxReplicas {
			return metasrv.InvalidArgument(field(), "%d are planned, 1 to %d are allowed", len(region.Replicas), MaxReplicas)
		}
		for j, replica := range region.Replicas {
			twice := slices.ContainsFunc(region.Replicas[:j], func(r *storagepb.PlannedReplica) bool { return r.NodeId == replica.NodeId })
			if replica.NodeId == 0 || twice {
				return metasrv.InvalidArgument(field(), "node %d is planned twice, or none", replica.NodeId)
			}
		}
	}
	return nil
}

// ruleLen returns the number of partitions of a rule, 0 where there is none.
func ruleLen(rule *metasrvpb.PartitionRule) int {
	switch {
	case rule.GetRange() != nil:
		return len(rule.GetRange().Bounds)
	case rule.GetHash() != nil:
		return int(rule.GetHash().Partitions)
	}
	return 0
}

// checkPlannedNodes reports whether one of the planned nodes has a storage that is not its first.
func checkPlannedNodes(
	registered func(metasrv.NodeID) (metasrv.Registration, bool), cmd *storagepb.CreateTable,
) (storageReplaced bool, err error) {
	for _, region := range cmd.Regions {
		for _, replica := range region.Replicas {
			present, ok := registered(metasrv.NodeID(replica.NodeId))
			if !ok {
				return false, metasrv.ErrStaleIncarnation.With("table %q: planned node %d is no longer registered; create it again",
					catalog.NameOf(cmd.Name), replica.NodeId)
			}
			if uint64(present.Incarnation) != replica.Incarnation {
				return false, metasrv.ErrStaleIncarnation.With("table %q: planned node %d has registered anew (incarnation %d, planned was %d); create it again",
					catalog.NameOf(cmd.Name), replica.NodeId, present.Incarnation, replica.Incarnation)
			}
			storageReplaced = storageReplaced || present.StorageGeneration > 0
		}
	}
	return storageReplaced, nil
}

// plannedRoute returns the first route of a table, with new replica ids. The first replica of each region
// leads it.
func plannedRoute(tx state.Tx, table metasrv.TableID, planned []*storagepb.PlannedRegion) *storagepb.RouteRecord {
	route := &storagepb.RouteRecord{TableId: uint64(table), RouteVersion: 1, Regions: make([]*storagepb.RegionRecord, 0, len(planned))}
	count := 0
	for _, p := range planned {
		count += len(p.Replicas)
	}
	next := state.Take(tx, sequenceKey, firstReplicaID, uint64(count)) //nolint:gosec // never negative
	// Made at once: a table has many.
	regions, records := make([]storagepb.RegionRecord, len(planned)), make([]storagepb.ReplicaRecord, count)
	all := make([]*storagepb.ReplicaRecord, 0, count)
	for i, p := range planned {
		number := uint32(i) //nolint:gosec // checkPlan bounds it
		region := &regions[i]
		region.RegionId = uint64(metasrv.NewRegionID(table, number))
		region.PartitionNumber = number
		region.Partition = p.Partition
		region.LeaderEpoch, region.ConfVersion = 1, 1
		first := len(all)
		for _, planned := range p.Replicas {
			replica := &records[len(all)]
			replica.ReplicaId, replica.NodeId, replica.PlannedIncarnation = next, planned.NodeId, planned.Incarnation
			all = append(all, replica)
			next++
		}
		region.Replicas = all[first:len(all):len(all)]
		region.LeaderReplicaId = region.Replicas[0].ReplicaId
		route.Regions = append(route.Regions, region)
	}
	return route
}
