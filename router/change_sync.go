package router

import (
	"slices"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// setInSync replaces the in-sync set. Only the region leader knows that a replica has everything, so only it can have the
// set grow: until it knows the outcome, it waits for that replica's acknowledgement of each write already.
func (r regionChange) setInSync(cmd *storagepb.SetInSync) (changed bool, err error) {
	leader, err := r.replica(r.region.LeaderReplicaId)
	if err != nil {
		return false, err
	}
	if err := r.checkAsker(leader, cmd); err != nil {
		return false, err
	}
	if err := r.checkLeader(); err != nil {
		return false, err // it knows of no in-sync set
	}
	if err := r.checkSet(cmd); err != nil {
		return false, err
	}
	for _, replica := range r.region.Replicas {
		if in := slices.Contains(cmd.ReplicaIds, replica.ReplicaId); in != replica.InSync {
			replica.InSync, changed = in, true
			replica.Learner = replica.Learner && !in
		}
	}
	return changed, nil
}

// checkAsker checks that the process that asks is the one that leads the region.
func (r regionChange) checkAsker(leader *storagepb.ReplicaRecord, cmd *storagepb.SetInSync) error {
	if cmd.Incarnation == 0 {
		return nil
	}
	present, ok := r.registered(metasrv.NodeID(leader.NodeId))
	if !ok {
		return metasrv.ErrNodeNotFound.With("node %d, which leads region %s, is not registered", leader.NodeId, r.id())
	}
	if uint64(present.Incarnation) != cmd.Incarnation {
		return metasrv.ErrStaleIncarnation.With("node %d, which leads region %s, has incarnation %d, not %d",
			leader.NodeId, r.id(), present.Incarnation, cmd.Incarnation)
	}
	return nil
}

func (r regionChange) checkSet(cmd *storagepb.SetInSync) error {
	if !slices.Contains(cmd.ReplicaIds, r.region.LeaderReplicaId) {
		return metasrv.InvalidArgument("replica_ids", "lack replica %d, which leads region %s", r.region.LeaderReplicaId, r.id())
	}
	for i, id := range cmd.ReplicaIds {
		replica, err := r.replica(id)
		switch {
		case err != nil:
			return err
		case slices.Contains(cmd.ReplicaIds[:i], id):
			return metasrv.InvalidArgument("replica_ids", "name replica %d of region %s twice", id, r.id())
		case r.lost(replica):
			return metasrv.ErrReplicaLost.With("replica %d of region %s was on other storage than node %d has now", id, r.id(), replica.NodeId)
		case !replica.InSync && cmd.Incarnation == 0:
			return metasrv.ErrReplicaNotInSync.With("replica %d of region %s is not in sync: only the region leader can say that it has become so", id, r.id())
		}
	}
	return nil
}
