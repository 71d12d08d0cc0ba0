package router

import (
	"errors"
	"slices"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// MaxRegionChanges bounds the changes of one command.
const MaxRegionChanges = 1000

// Changer returns the function that carries out changes of regions as a part of another command.
func Changer(registered Registered) func(state.Tx, *storagepb.ChangeRegions) (*storagepb.ChangeRegionsResult, error) {
	return (&applier{registered: registered}).changeRegions
}

// changeRegions carries out each change by itself, in their order: a later one sees what an earlier one did. The regions
// in the result are as the whole command left them. ErrInvalidArgument: there are more changes than one command can have.
func (a *applier) changeRegions(tx state.Tx, cmd *storagepb.ChangeRegions) (*storagepb.ChangeRegionsResult, error) {
	if len(cmd.Changes) > MaxRegionChanges {
		return nil, metasrv.InvalidArgument("changes", "are %d, one command has at most %d", len(cmd.Changes), MaxRegionChanges)
	}
	c := &changer{tx: tx, registered: a.registered.once(tx), tables: make(map[metasrv.TableID]*changedRoute)}
	result := &storagepb.ChangeRegionsResult{Results: make([]*storagepb.RegionChangeResult, 0, len(cmd.Changes))}
	for _, change := range cmd.Changes {
		r := &storagepb.RegionChangeResult{}
		err := c.change(change, r)
		if e, ok := errors.AsType[*metasrv.Error](err); ok {
			r.Refusal = &storagepb.Refusal{Reason: e.Reason, Message: e.Message, Field: e.Field}
		} else if err != nil {
			return nil, err
		}
		result.Results = append(result.Results, r)
	}
	for _, t := range c.order {
		if t.changed {
			t.route.RouteVersion++
			putRoute(tx, t.route)
		}
	}
	return result, nil
}

// changer carries out the changes of one command. It reads each table once: a batch may have all regions of one.
type changer struct {
	tx         state.Tx
	registered func(metasrv.NodeID) (metasrv.Registration, bool)
	tables     map[metasrv.TableID]*changedRoute
	order      []*changedRoute // a map has none
}

// changedRoute is the route of a PUBLIC table, nil where the table is none.
type changedRoute struct {
	route   *storagepb.RouteRecord
	changed bool
}

// regionChange is one change under way. Nothing of the region is changed before everything was checked.
type regionChange struct {
	*changer
	route  *storagepb.RouteRecord
	region *storagepb.RegionRecord
	result *storagepb.RegionChangeResult
}

// change carries out one change, or returns a *metasrv.Error that says why not.
func (c *changer) change(cmd *storagepb.RegionChange, result *storagepb.RegionChangeResult) error {
	id := metasrv.RegionID(cmd.RegionId)
	table, err := c.table(id.Table())
	if err != nil {
		return err
	}
	region := regionIn(table.route, id)
	if region == nil {
		return metasrv.ErrRegionNotFound.With("region %s does not exist, or its table is not public", id)
	}
	result.Region = region
	if cmd.LeaderEpoch != region.LeaderEpoch || cmd.ConfVersion != region.ConfVersion {
		return metasrv.ErrRegionChanged.With("region %s is at leader_epoch %d, conf_version %d; the change was planned at %d, %d",
			id, region.LeaderEpoch, region.ConfVersion, cmd.LeaderEpoch, cmd.ConfVersion)
	}
	r := regionChange{changer: c, route: table.route, region: region, result: result}
	changed, err := r.apply(cmd)
	if err != nil || !changed {
		return err
	}
	region.ConfVersion++
	table.changed = true
	return nil
}

// apply reports whether it changed the region: it does not where that is already as asked for.
func (r regionChange) apply(cmd *storagepb.RegionChange) (changed bool, err error) {
	switch change := cmd.Change.(type) {
	case *storagepb.RegionChange_Elect:
		return true, r.elect(change.Elect)
	case *storagepb.RegionChange_BeginDemotion:
		if err := r.checkLeader(); err != nil {
			return false, err // it would neither stop nor be replaced
		}
		changed = !r.region.Demoting
		r.region.Demoting = true
		return changed, nil
	case *storagepb.RegionChange_SetInSync:
		return r.setInSync(change.SetInSync)
	case *storagepb.RegionChange_AddReplica:
		return true, r.addReplica(change.AddReplica)
	case *storagepb.RegionChange_RemoveReplica:
		return true, r.removeReplica(change.RemoveReplica)
	}
	return false, metasrv.InvalidArgument("change", "is missing for region %s", r.id())
}

func (c *changer) table(id metasrv.TableID) (*changedRoute, error) {
	if t := c.tables[id]; t != nil {
		return t, nil
	}
	t := &changedRoute{}
	if tableState(c.tx, id) == metasrvpb.TableState_TABLE_STATE_PUBLIC {
		route, err := Route(c.tx, id)
		if err != nil {
			return nil, err
		}
		t.route = route
	}
	c.tables[id] = t
	c.order = append(c.order, t)
	return t, nil
}

// regionIn returns a region of a route, nil where it has none of that id. Regions stand in the order of their numbers.
func regionIn(route *storagepb.RouteRecord, id metasrv.RegionID) *storagepb.RegionRecord {
	regions := route.GetRegions()
	if i := int(id.Number()); i < len(regions) && regions[i].RegionId == uint64(id) {
		return regions[i]
	}
	i := slices.IndexFunc(regions, func(r *storagepb.RegionRecord) bool { return r.RegionId == uint64(id) })
	if i < 0 {
		return nil
	}
	return regions[i]
}

// tableState returns the state of a table, TABLE_STATE_UNSPECIFIED where there is none.
func tableState(v state.View, id metasrv.TableID) metasrvpb.TableState {
	return catalog.StateIn(catalog.TableValue(v, id))
}

func (r regionChange) id() metasrv.RegionID { return metasrv.RegionID(r.region.RegionId) }

// replica returns a replica of the region, or ErrReplicaNotFound.
func (r regionChange) replica(id uint64) (*storagepb.ReplicaRecord, error) {
	if found := replicaOf(r.region, id); found != nil {
		return found, nil
	}
	return nil, metasrv.ErrReplicaNotFound.With("region %s has no replica %d", r.id(), id)
}

// replicaOf returns a replica of a region, nil where it has none of that id.
func replicaOf(region *storagepb.RegionRecord, id uint64) *storagepb.ReplicaRecord {
	for _, have := range region.Replicas {
		if have.ReplicaId == id {
			return have
		}
	}
	return nil
}

// lost reports whether what a replica had is gone with the storage that it was on.
func (r regionChange) lost(replica *storagepb.ReplicaRecord) bool {
	present, ok := r.registered(metasrv.NodeID(replica.NodeId))
	return isLost(replica, present, ok)
}

// isLost reports whether a replica is lost, given the present registration of its node. One whose node is not registered
// is not: its storage may come back. A group of nodes sees to its replicas itself.
func isLost(replica *storagepb.ReplicaRecord, present metasrv.Registration, registered bool) bool {
	return registered && present.Group == "" && replica.StorageGeneration < present.StorageGeneration
}
