package router

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Lost reports whether a replica was on other storage than its node has now, given the node's registration and whether it
// has one. What such a replica had is gone, whatever the node reports.
func Lost(replica *storagepb.ReplicaRecord, present metasrv.Registration, registered bool) bool {
	return isLost(replica, present, registered)
}

// Why a region whose leader can't serve it gets no other one, for metrics.
const (
	// StandstillUnleased: the leader's node keeps no leases, so it may serve the region whatever is decided elsewhere.
	StandstillUnleased = "node_keeps_no_leases"
	// StandstillGroup: the leader's node was the writer of its group, which has no other one yet.
	StandstillGroup = "group_has_no_writer"
	// StandstillSilent: a node is waited for that has an in-sync replica and is not heard.
	StandstillSilent = "in_sync_replica_silent"
	// StandstillLost: each in-sync replica is lost or absent, or its node was removed.
	StandstillLost = "in_sync_replicas_lost"
)

// Standstill says why nobody can lead a region whose leader can't.
func Standstill(region *storagepb.RegionRecord, condition func(*storagepb.ReplicaRecord) Condition) string {
	why := StandstillLost
	for _, r := range region.GetReplicas() {
		switch c := condition(r); {
		case r.GetReplicaId() == region.GetLeaderReplicaId() && c == GroupSilent:
			return StandstillGroup
		case r.GetReplicaId() == region.GetLeaderReplicaId() && c >= Unleased:
			return StandstillUnleased
		case r.GetInSync() && !c.gone():
			why = StandstillSilent
		}
	}
	return why
}

// Health is what is known of the replicas of regions besides the state.
type Health struct {
	// Condition returns that of a replica.
	Condition func(*storagepb.ReplicaRecord) Condition
	// Paused says why no region gets another leader now, "" where nothing keeps it.
	Paused string
}

// Problem returns what is wrong with a region of a table, for people; "" where nothing is known to be.
func (h Health) Problem(r Record, region *storagepb.RegionRecord) string {
	if r.Table.GetState() != metasrvpb.TableState_TABLE_STATE_PUBLIC {
		return ""
	}
	p := problem{Health: h, route: r.Route, region: region}
	p.leader(replicaOf(region, region.LeaderReplicaId))
	there := 0
	for _, replica := range region.Replicas {
		if replica.ReplicaId != region.LeaderReplicaId {
			p.follower(replica)
		}
		if c := h.Condition(replica); !replica.Learner && c != OtherStorage && c != Removed {
			there++
		}
	}
	if region.Demoting {
		p.add("its leadership is being handed over, nobody can write")
	}
	if wanted := int(r.Route.GetReplicas()); there < wanted {
		p.add("it has %d of %d replicas", there, wanted)
	}
	return strings.Join(p.found, "; ")
}

// problem gathers what is wrong with a region.
type problem struct {
	Health
	route  *storagepb.RouteRecord
	region *storagepb.RegionRecord
	found  []string
}

func (p *problem) add(format string, args ...any) {
	p.found = append(p.found, fmt.Sprintf(format, args...))
}

// follower says what is wrong with a replica that doesn't lead.
func (p *problem) follower(r *storagepb.ReplicaRecord) {
	switch c := p.Condition(r); {
	case c == OtherStorage:
		p.add("replica %d is lost: node %d came back with other storage", r.ReplicaId, r.NodeId)
	case c == Removed:
		p.add("replica %d is lost: node %d was removed", r.ReplicaId, r.NodeId)
	case r.Learner:
	case c == Absent && r.InSync:
		p.add("node %d doesn't have replica %d, which is in sync", r.NodeId, r.ReplicaId)
	case c == Absent:
		p.add("node %d doesn't have replica %d", r.NodeId, r.ReplicaId)
	case !r.InSync && (c == Failed || c == Down):
		p.add("replica %d on node %d is not in sync, and nothing is heard of the node", r.ReplicaId, r.NodeId)
	case !r.InSync:
		p.add("replica %d on node %d is not in sync", r.ReplicaId, r.NodeId)
	case c == Failed || c == Down:
		p.add("nothing is heard of node %d, whose replica %d is in sync: until the region's leader goes on without it nobody can write", r.NodeId, r.ReplicaId)
	}
}

// leader says what is wrong with the replica that leads, nil where there is none.
func (p *problem) leader(r *storagepb.ReplicaRecord) {
	if r == nil {
		p.add("nobody leads it, nobody can write")
		return
	}
	switch p.Condition(r) {
	case OtherStorage:
		p.add("its leader, replica %d, is lost: node %d came back with other storage; nobody can write; %s", r.ReplicaId, r.NodeId, p.successor())
	case Removed:
		p.add("its leader, replica %d, is lost: node %d was removed; nobody can write; %s", r.ReplicaId, r.NodeId, p.successor())
	case SetBack:
		p.add("node %d has the region's leader, replica %d, with fewer writes than it had before: its disk was set back to an earlier state, put the "+
			"newer one back; nobody can write; %s", r.NodeId, r.ReplicaId, p.successor())
	case Absent:
		p.add("node %d doesn't have the region's leader, replica %d; nobody can write; %s", r.NodeId, r.ReplicaId, p.successor())
	case Failed, Down:
		p.add("nothing is heard of node %d, which leads it with replica %d; nobody can write; %s", r.NodeId, r.ReplicaId, p.successor())
	case UnleasedSilent:
		p.add("nothing is heard of node %d, which leads it with replica %d and keeps no leases: no other node is given the region, start that one again",
			r.NodeId, r.ReplicaId)
	case GroupSilent:
		p.add("nothing is heard of node %d, which leads it with replica %d as the writer of its group; nobody can write; %s", r.NodeId, r.ReplicaId, p.writer())
	}
}

// writer says how the region's group gets another writer.
func (p *problem) writer() string {
	if p.Paused != "" {
		return "the group gets no other writer, because " + p.Paused
	}
	return "the node that the group's nodes get as their next writer leads it then; see: metactl group list"
}

// successor says who will lead the region, or what must happen first.
func (p *problem) successor() string {
	s := Succeed(p.route, p.region, p.Condition)
	switch {
	case len(s.Candidates) > 0 && p.Paused != "":
		return "another replica could lead it, but " + p.Paused
	case len(s.Candidates) > 0:
		return "another replica is about to lead it"
	}
	var nodes []string
	for _, r := range p.region.Replicas {
		if c := p.Condition(r); r.InSync && !c.gone() {
			nodes = append(nodes, fmt.Sprint(r.NodeId))
		}
	}
	slices.Sort(nodes)
	switch {
	case len(nodes) > 0 && p.route.GetUncleanFailover():
		return fmt.Sprintf("no other replica is in sync and can be reached: start node %s again, or once they count as down one that may lack rows is elected",
			strings.Join(nodes, " or "))
	case len(nodes) > 0:
		return fmt.Sprintf("no other replica is in sync and can be reached: start node %s again", strings.Join(nodes, " or "))
	case p.route.GetUncleanFailover():
		return "no replica that was in sync is left, and none of the others can be reached"
	}
	return "no replica that was in sync is left, and the table was not created with unclean_failover: restore it from a backup"
}
