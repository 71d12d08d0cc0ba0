package router

import (
	"slices"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// elect makes a replica the region leader under the next epoch. It must have every row that was acknowledged, which only
// the committed in-sync set says; the exception is a table that allows to lose rows, where nobody in the set is left.
// What failed and what is lost leaves the set.
func (r regionChange) elect(cmd *storagepb.ElectReplica) error {
	elected, err := r.replica(cmd.ReplicaId)
	if err != nil {
		return err
	}
	if err := r.checkFailed(cmd); err != nil {
		return err
	}
	if err := r.checkElected(elected, cmd); err != nil {
		return err
	}
	if err := r.checkHandover(elected); err != nil {
		return err
	}
	for _, replica := range r.region.Replicas {
		if slices.Contains(cmd.FailedReplicaIds, replica.ReplicaId) || r.lost(replica) {
			replica.InSync = false
		}
	}
	elected.InSync = true
	r.region.LeaderReplicaId = elected.ReplicaId
	r.region.LeaderEpoch++
	r.region.Demoting = false
	return nil
}

func (r regionChange) checkFailed(cmd *storagepb.ElectReplica) error {
	for _, id := range cmd.FailedReplicaIds {
		if _, err := r.replica(id); err != nil {
			return err
		}
		if id == cmd.ReplicaId {
			return metasrv.InvalidArgument("failed_replica_ids", "names replica %d of region %s, which is to be elected", id, r.id())
		}
	}
	return nil
}

// checkElected checks that a replica can lead the region.
func (r regionChange) checkElected(elected *storagepb.ReplicaRecord, cmd *storagepb.ElectReplica) error {
	switch {
	case r.lost(elected):
		return metasrv.ErrReplicaLost.With("replica %d of region %s was on other storage than node %d has now", elected.ReplicaId, r.id(), elected.NodeId)
	case elected.InSync:
		return nil
	case r.writes(elected):
		return nil // who is in sync is the group's to say
	case elected.Learner:
		return metasrv.ErrReplicaNotInSync.With("replica %d of region %s is a learner: it may lack most rows", elected.ReplicaId, r.id())
	case !cmd.Unclean:
		return metasrv.ErrReplicaNotInSync.With("replica %d of region %s is not in sync: it may lack rows that were acknowledged", elected.ReplicaId, r.id())
	case !r.route.UncleanFailover:
		return metasrv.ErrReplicaNotInSync.With(
			"replica %d of region %s is not in sync, and its table was not created with unclean_failover: it waits for a replica that was in sync",
			elected.ReplicaId, r.id())
	}
	for _, replica := range r.region.Replicas {
		if replica.InSync && !r.lost(replica) && !slices.Contains(cmd.FailedReplicaIds, replica.ReplicaId) {
			return metasrv.ErrReplicaNotInSync.With("replica %d of region %s is not in sync, while replica %d is and has not failed: elect that one",
				elected.ReplicaId, r.id(), replica.ReplicaId)
		}
	}
	return nil
}

// writes reports whether a replica is on the writer of a group of nodes.
func (r regionChange) writes(replica *storagepb.ReplicaRecord) bool {
	present, ok := r.registered(metasrv.NodeID(replica.NodeId))
	return ok && present.GroupWriter
}

// checkHandover checks that the present region leader can't go on as if it led, and that the next one could be deposed
// too. A node that is no longer registered counts as gone.
func (r regionChange) checkHandover(elected *storagepb.ReplicaRecord) error {
	if elected.ReplicaId == r.region.LeaderReplicaId {
		return nil
	}
	next, ok := r.registered(metasrv.NodeID(elected.NodeId))
	switch {
	case !ok:
		return metasrv.ErrNodeNotFound.With("node %d of replica %d of region %s is not registered", elected.NodeId, elected.ReplicaId, r.id())
	case next.Group != "":
		return r.checkGroup(elected, next)
	case !next.KeepsLeases:
		return metasrv.ErrNodeKeepsNoLease.With("node %d keeps no leases, region %s would stay there for ever", elected.NodeId, r.id())
	}
	return r.checkLeader()
}

// checkGroup checks that a replica on a node of a group takes over because its node has become the group's writer: that was
// elected before, when nobody else could write any more.
func (r regionChange) checkGroup(elected *storagepb.ReplicaRecord, next metasrv.Registration) error {
	if !next.GroupWriter {
		return metasrv.ErrNotGroupWriter.With("node %d is not the writer of group %q, which leads the regions of the group: region %s stays",
			elected.NodeId, next.Group, r.id())
	}
	leader, err := r.replica(r.region.LeaderReplicaId)
	if err != nil {
		return nil //nolint:nilerr // nobody leads
	}
	if present, ok := r.registered(metasrv.NodeID(leader.NodeId)); ok && present.Group != next.Group {
		return metasrv.ErrNodeNotInGroup.With("region %s is led on node %d, which is not in group %q of node %d",
			r.id(), leader.NodeId, next.Group, elected.NodeId)
	}
	return nil
}

// checkLeader returns ErrNodeKeepsNoLease if the region is led by a replica that follows nothing that is decided here.
func (r regionChange) checkLeader() error {
	leader, err := r.replica(r.region.LeaderReplicaId)
	if err != nil {
		return nil //nolint:nilerr // nobody leads
	}
	present, ok := r.registered(metasrv.NodeID(leader.NodeId))
	if ok && !present.KeepsLeases && !isLost(leader, present, ok) {
		return metasrv.ErrNodeKeepsNoLease.With(
			"region %s is led on node %d, which keeps no leases: it acknowledges writes whatever is decided elsewhere", r.id(), leader.NodeId)
	}
	return nil
}
