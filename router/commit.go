package router

import (
	"errors"
	"fmt"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// commitTable makes a table PUBLIC. The token names the creation, so a repeated commit of a table that is
// PUBLIC succeeds and changes nothing.
func (a *applier) commitTable(tx state.Tx, cmd *storagepb.CommitTable) (*storagepb.TableResult, error) {
	record, err := creation(tx, metasrv.TableID(cmd.TableId), cmd.CreationToken)
	if err != nil {
		return nil, err
	}
	switch record.Table.State {
	case metasrvpb.TableState_TABLE_STATE_PUBLIC:
		return result(record), nil
	case metasrvpb.TableState_TABLE_STATE_CREATING:
	default:
		return nil, ended(record.Table)
	}
	if err := a.checkCreated(tx, record.Route, cmd.Replicas); err != nil {
		return nil, err
	}
	if err := catalog.Publish(tx, record.Table, cmd.Schema); err != nil {
		return nil, err
	}
	for _, region := range record.Route.Regions {
		region.ConfVersion++
		for _, replica := range region.Replicas {
			replica.InSync = true
		}
	}
	record.Route.RouteVersion++
	putRoute(tx, record.Route)
	return result(record), nil
}

// checkCreated returns ErrReplicaNotCreated unless every replica of the route was created by the planned
// incarnation of its node, and that one is still the present one: a process that registered since may have
// lost what the one before it created.
func (a *applier) checkCreated(v state.View, route *storagepb.RouteRecord, created []*storagepb.CommittedReplica) error {
	byID := make(map[uint64]*storagepb.CommittedReplica, len(created))
	for _, c := range created {
		byID[c.ReplicaId] = c
	}
	registered := a.registered.once(v)
	for region, replica := range replicas(route) {
		c := byID[replica.ReplicaId]
		delete(byID, replica.ReplicaId)
		present, ok := registered(metasrv.NodeID(replica.NodeId))
		if err := checkReplica(region, replica, c, present, ok); err != nil {
			return err
		}
	}
	for i, c := range created {
		if byID[c.ReplicaId] != nil {
			return metasrv.InvalidArgument(fmt.Sprintf("replicas[%d].replica_id", i), "%d is no replica of table %d", c.ReplicaId, route.TableId)
		}
	}
	return nil
}

// checkReplica checks one replica, whose node has the incarnation present if it is registered.
func checkReplica(
	region *storagepb.RegionRecord, replica *storagepb.ReplicaRecord, created *storagepb.CommittedReplica, present metasrv.Incarnation, registered bool,
) error {
	refuse := func(format string, args ...any) error {
		return metasrv.ErrReplicaNotCreated.With("replica %d of region %s on node %d: %s",
			replica.ReplicaId, metasrv.RegionID(region.RegionId), replica.NodeId, fmt.Sprintf(format, args...))
	}
	switch {
	case created == nil:
		return refuse("is not among the replicas that were created")
	case created.RegionId != region.RegionId:
		return refuse("was created as one of region %s", metasrv.RegionID(created.RegionId))
	case created.NodeId != replica.NodeId:
		return refuse("was created on node %d", created.NodeId)
	case created.Incarnation != replica.PlannedIncarnation:
		return refuse("was created by incarnation %d, planned was %d", created.Incarnation, replica.PlannedIncarnation)
	case !registered:
		return refuse("the node is no longer registered")
	case uint64(present) != replica.PlannedIncarnation:
		return refuse("the node has registered anew since (incarnation %d, planned was %d)", present, replica.PlannedIncarnation)
	}
	return nil
}

// abortTable gives up a table in state CREATING. It is idempotent as commitTable is.
func abortTable(tx state.Tx, cmd *storagepb.AbortTable) (*storagepb.TableResult, error) {
	record, err := creation(tx, metasrv.TableID(cmd.TableId), cmd.CreationToken)
	if err != nil {
		return nil, err
	}
	switch record.Table.State {
	case metasrvpb.TableState_TABLE_STATE_ABORTING:
		return result(record), nil
	case metasrvpb.TableState_TABLE_STATE_CREATING:
	default:
		return nil, ended(record.Table)
	}
	catalog.Retire(tx, record.Table, metasrvpb.TableState_TABLE_STATE_ABORTING, cmd.Reason)
	return result(record), nil
}

func isNotFound(err error) bool { return errors.Is(err, metasrv.ErrTableNotFound) }
