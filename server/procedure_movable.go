package server

import (
	"fmt"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/router"
)

// movable returns ErrNodeKeepsNoLease for a region that gets no other leader and no more replicas by a procedure: its leader
// would go on whatever is decided, or is the writer of a group, which elects who leads and copies the rows by its own means.
func (s *sight) movable(region *storagepb.RegionRecord) error {
	id := metasrv.RegionID(region.RegionId)
	for _, leader := range region.Replicas {
		if leader.ReplicaId != region.LeaderReplicaId {
			continue
		}
		present, ok := heartbeat.Registration(s.View, metasrv.NodeID(leader.NodeId))
		switch {
		case !ok || present.KeepsLeases || router.Lost(leader, present, ok):
		case present.Group != "":
			return metasrv.ErrNodeKeepsNoLease.With("region %s is led on node %d of group %q, whose nodes replicate it by their own means: "+
				"to have another node write, use metactl group elect", id, leader.NodeId, present.Group)
		default:
			return metasrv.ErrNodeKeepsNoLease.With(
				"region %s is led on node %d, which keeps no leases: it would acknowledge writes whatever is decided elsewhere", id, leader.NodeId)
		}
	}
	return nil
}

// drainable returns ErrNodeKeepsNoLease where a node has replicas that would never leave it.
func (s *sight) drainable(node metasrv.NodeID) error {
	var first error
	total := 0
	_, err := router.OnNode(s.View, node, func(_ *storagepb.RouteRecord, region *storagepb.RegionRecord) bool {
		if err := s.movable(region); err != nil {
			if total++; first == nil {
				first = err
			}
		}
		return true
	})
	switch {
	case err != nil:
		return err
	case total == 0:
		return nil
	}
	advice := "drop their tables, or restart the nodes that lead them with a version that keeps leases"
	if present, _ := heartbeat.Registration(s.View, node); present.Group != "" {
		advice = fmt.Sprintf("have another node write, stop this one and, when it is down, forget it with: metactl node remove %d --force", node)
	}
	return metasrv.ErrNodeKeepsNoLease.With("node %d has replicas of %d regions that can't be moved: %v; %s", node, total, first, advice)
}
