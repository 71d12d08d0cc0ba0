package server

import (
	"context"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/scheduler"
)

// choose returns the node for one more replica of a region; leaves is the node whose replica it replaces, 0 for none. extra
// counts what was chosen and is not in the state yet.
func (s *sight) choose(ctx context.Context, svc *services, region *storagepb.RegionRecord, leaves uint64, extra placement) (uint64, error) {
	statuses, err := s.term.tracker.Nodes(s.View, s.now)
	if err != nil {
		return 0, err
	}
	count, err := svc.placed.at(ctx, s.View)
	if err != nil {
		return 0, err
	}
	for node, more := range extra {
		n := count[node]
		count[node] = replicaCount{n.replicas + more.replicas, n.leaders + more.leaders}
	}
	var nodes []scheduler.NodeLoad
	for _, status := range statuses {
		if r := heartbeat.RegistrationIn(heartbeat.Value(s.View, status.ID)); r.KeepsLeases || replicaOn(region, uint64(status.ID)) != nil {
			nodes = append(nodes, count.load(status))
		}
	}
	request := scheduler.Addition{Leaves: metasrv.NodeID(leaves), Table: map[metasrv.NodeID]int{}, Rotation: region.RegionId}
	for _, r := range region.Replicas {
		request.Have = append(request.Have, metasrv.NodeID(r.NodeId))
	}
	route, err := s.route(metasrv.RegionID(region.RegionId).Table())
	if err != nil {
		return 0, err
	}
	for _, other := range route.GetRegions() {
		for _, r := range other.Replicas {
			request.Table[metasrv.NodeID(r.NodeId)]++
		}
	}
	chosen, err := scheduler.Policy{}.Add(nodes, request)
	return uint64(chosen.Node), err
}

// successor returns the replica of a region that leads it best instead of the present one, nil where none can: in sync on a
// live node, of those that are not being drained if there are such, that which has the fewest region leaders of the table.
func (s *sight) successor(region *storagepb.RegionRecord) *storagepb.ReplicaRecord {
	var best *storagepb.ReplicaRecord
	for _, r := range region.Replicas {
		node := s.node(metasrv.NodeID(r.NodeId))
		if r.ReplicaId == region.LeaderReplicaId || !r.InSync || s.lost(r) || !node.Live {
			continue
		}
		if best == nil || s.ledOn(region, r) < s.ledOn(region, best) {
			best = r
		}
	}
	return best
}

// ledOn returns how many regions of a region's table are led on the node of one of its replicas; a node that is being
// drained comes last.
func (s *sight) ledOn(region *storagepb.RegionRecord, r *storagepb.ReplicaRecord) int {
	route, _ := s.route(metasrv.RegionID(region.RegionId).Table())
	led := 0
	for _, other := range route.GetRegions() {
		if uint64(leaderNode(other)) == r.NodeId {
			led++
		}
	}
	if s.node(metasrv.NodeID(r.NodeId)).Draining {
		led += 1 << 30
	}
	return led
}
