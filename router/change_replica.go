package router

import (
	"slices"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// addReplica adds a learner with a new id on a node that has no replica of the region.
func (r regionChange) addReplica(cmd *storagepb.AddReplica) error {
	present, ok := r.registered(metasrv.NodeID(cmd.NodeId))
	switch {
	case !ok:
		return metasrv.ErrNodeNotFound.With("node %d is not registered", cmd.NodeId)
	case uint64(present.Incarnation) != cmd.Incarnation:
		return metasrv.ErrStaleIncarnation.With("node %d has incarnation %d, not %d", cmd.NodeId, present.Incarnation, cmd.Incarnation)
	case present.Draining:
		return metasrv.ErrNodeDraining.With("node %d gets no replicas: it is being drained, or was", cmd.NodeId)
	case !present.KeepsLeases:
		return metasrv.ErrNodeKeepsNoLease.With("node %d keeps no leases, so it can't take part in region %s", cmd.NodeId, r.id())
	case len(r.region.Replicas) >= MaxReplicas:
		return metasrv.InvalidArgument("add_replica", "region %s has %d replicas, which is the most", r.id(), len(r.region.Replicas))
	}
	if err := r.checkLeader(); err != nil {
		return err // it could not feed the learner
	}
	for _, replica := range r.region.Replicas {
		if replica.NodeId == cmd.NodeId {
			return metasrv.ErrReplicaExists.With("region %s has replica %d on node %d: remove that one first", r.id(), replica.ReplicaId, cmd.NodeId)
		}
	}
	r.rememberWanted()
	r.result.ReplicaId = state.Next(r.tx, sequenceKey, firstReplicaID)
	r.region.Replicas = append(r.region.Replicas, &storagepb.ReplicaRecord{
		ReplicaId:          r.result.ReplicaId,
		NodeId:             cmd.NodeId,
		PlannedIncarnation: cmd.Incarnation,
		Learner:            true,
		StorageGeneration:  present.StorageGeneration,
	})
	return nil
}

// removeReplica takes a replica out of the region. That its node has it no longer in its route is what has it dropped. The last
// one that may have all rows stays: with the region leader lost, that is a follower.
func (r regionChange) removeReplica(cmd *storagepb.RemoveReplica) error {
	replica, err := r.replica(cmd.ReplicaId)
	if err != nil {
		return err
	}
	if replica.ReplicaId == r.region.LeaderReplicaId {
		return metasrv.ErrReplicaLeads.With("replica %d leads region %s: elect another one first", replica.ReplicaId, r.id())
	}
	if r.complete(replica) && !slices.ContainsFunc(r.region.Replicas, func(other *storagepb.ReplicaRecord) bool { return other != replica && r.complete(other) }) {
		return metasrv.ErrLastReplica.With("replica %d on node %d is the only one of region %s that is in sync and not lost", replica.ReplicaId, replica.NodeId, r.id())
	}
	r.rememberWanted()
	r.region.Replicas = slices.DeleteFunc(r.region.Replicas, func(have *storagepb.ReplicaRecord) bool { return have == replica })
	return nil
}

// complete reports whether a replica has every row that was acknowledged, as far as the state says: it is in sync, on a node
// that is registered and has the storage still that it was on.
func (r regionChange) complete(replica *storagepb.ReplicaRecord) bool {
	present, ok := r.registered(metasrv.NodeID(replica.NodeId))
	return replica.InSync && ok && !isLost(replica, present, ok)
}

// rememberWanted records how many replicas the regions of the table should have, before their number says it no longer.
func (r regionChange) rememberWanted() {
	if r.route.Replicas == 0 {
		r.route.Replicas = uint32(len(r.region.Replicas)) //nolint:gosec // at most MaxReplicas
	}
}

// SetReplicas says how many replicas each region of a PUBLIC table should have, as part of another command, and returns how
// many that were. ErrTableNotFound: no PUBLIC table has the id.
func SetReplicas(tx state.Tx, id metasrv.TableID, replicas uint32) (before uint32, err error) {
	record, err := Get(tx, id)
	if err != nil {
		return 0, err
	}
	if replicas == 0 || replicas > MaxReplicas {
		return 0, metasrv.InvalidArgument("replicas", "is %d, 1 to %d are allowed", replicas, MaxReplicas)
	}
	before = Wanted(record.Route)
	if before != replicas || record.Route.Replicas == 0 {
		record.Route.Replicas = replicas
		putRoute(tx, record.Route)
	}
	return before, nil
}

// Wanted returns how many replicas each region of a route should have: as many as it was created with, if nothing else was
// said.
func Wanted(route *storagepb.RouteRecord) uint32 {
	if route.Replicas != 0 {
		return route.Replicas
	}
	most := 0
	for _, region := range route.Regions {
		most = max(most, len(region.Replicas))
	}
	return uint32(most) //nolint:gosec // at most MaxReplicas
}
