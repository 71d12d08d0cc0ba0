package router

import (
	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// WriterChanges returns the elections that bring the regions of a table to the writers of groups: a region that is led on a
// node of a group is led by the replica on the group's writer, where it has one.
func WriterChanges(v state.View, registered Registered, table metasrv.TableID) ([]*storagepb.RegionChange, error) {
	if tableState(v, table) != metasrvpb.TableState_TABLE_STATE_PUBLIC {
		return nil, nil
	}
	route, err := Route(v, table)
	if err != nil {
		return nil, err
	}
	var changes []*storagepb.RegionChange
	node := registered.once(v)
	for _, region := range route.Regions {
		elect := writerReplica(region, node)
		if elect == nil || elect.ReplicaId == region.LeaderReplicaId {
			continue
		}
		changes = append(changes, &storagepb.RegionChange{
			RegionId: region.RegionId, LeaderEpoch: region.LeaderEpoch, ConfVersion: region.ConfVersion,
			Change: &storagepb.RegionChange_Elect{Elect: &storagepb.ElectReplica{ReplicaId: elect.ReplicaId}},
		})
	}
	return changes, nil
}

// writerReplica returns the replica on the writer of the group whose node leads the region, nil where there is none.
func writerReplica(region *storagepb.RegionRecord, node func(metasrv.NodeID) (metasrv.Registration, bool)) *storagepb.ReplicaRecord {
	group := ""
	for _, r := range region.Replicas {
		if r.ReplicaId == region.LeaderReplicaId {
			present, _ := node(metasrv.NodeID(r.NodeId))
			group = present.Group
		}
	}
	if group == "" {
		return nil
	}
	for _, r := range region.Replicas {
		if present, ok := node(metasrv.NodeID(r.NodeId)); ok && present.GroupWriter && present.Group == group {
			return r
		}
	}
	return nil
}
