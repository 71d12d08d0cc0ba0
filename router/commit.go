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
	confirmed := newConfirmations(created)
	registered := a.registered.once(v)
	for region, replica := range replicas(route) {
		present, ok := registered(metasrv.NodeID(replica.NodeId))
		if err := checkReplica(region, replica, confirmed.take(replica.ReplicaId), present, ok); err != nil {
			return err
		}
	}
	if i := confirmed.left(); i >= 0 {
		return metasrv.InvalidArgument(fmt.Sprintf("replicas[%d].replica_id", i), "%d is no replica of table %d", created[i].ReplicaId, route.TableId)
	}
	return nil
}

// confirmations finds replicas in a list by their ids, each once.
type confirmations struct {
	list []*storagepb.CommittedReplica
	// next is how many of the list were taken in its order; byID has the others once one was asked for out of it.
	next int
	byID map[uint64]*storagepb.CommittedReplica
}

func newConfirmations(list []*storagepb.CommittedReplica) *confirmations {
	c := &confirmations{list: list}
	for i := 1; i < len(list); i++ {
		if list[i-1].ReplicaId >= list[i].ReplicaId {
			c.index() // one may be there twice, then the last one counts
			break
		}
	}
	return c
}

func (c *confirmations) index() {
	c.byID = make(map[uint64]*storagepb.CommittedReplica, len(c.list))
	for _, r := range c.list[c.next:] {
		c.byID[r.ReplicaId] = r
	}
}

// take returns what confirms a replica, nil where nothing does. Routes and commits have replicas in the order of their
// ids, so it is usually the next one.
func (c *confirmations) take(id uint64) *storagepb.CommittedReplica {
	if c.byID == nil {
		if c.next < len(c.list) && c.list[c.next].ReplicaId == id {
			c.next++
			return c.list[c.next-1]
		}
		c.index()
	}
	r := c.byID[id]
	delete(c.byID, id)
	return r
}

// left returns the place in the list of the first one that was not taken, -1 where all were.
func (c *confirmations) left() int {
	for i := c.next; i < len(c.list); i++ {
		if c.byID == nil || c.byID[c.list[i].ReplicaId] != nil {
			return i
		}
	}
	return -1
}

// checkReplica checks one replica, whose node has the registration present if it is registered.
func checkReplica(
	region *storagepb.RegionRecord, replica *storagepb.ReplicaRecord, created *storagepb.CommittedReplica, present metasrv.Registration, registered bool,
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
	case uint64(present.Incarnation) != replica.PlannedIncarnation:
		return refuse("the node has registered anew since (incarnation %d, planned was %d)", present.Incarnation, replica.PlannedIncarnation)
	case isLost(replica, present, registered):
		return refuse("the node has other storage since")
	}
	return nil
}

// abortTable gives up a table in state CREATING. It is idempotent as commitTable is.
func (a *applier) abortTable(tx state.Tx, cmd *storagepb.AbortTable) (*storagepb.TableResult, error) {
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
	return result(record), a.confirmRemoved(tx, metasrv.TableID(record.Table.Id))
}

func isNotFound(err error) bool { return errors.Is(err, metasrv.ErrTableNotFound) }
