package server

import (
	"context"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
	"github.com/metasrv/metasrv/scheduler"
)

// conditions tells what is known of replicas besides the state, at one moment.
type conditions struct {
	view state.View
	// tracker is nil on a member that is not the metasrv leader: what is silent is not known there.
	tracker *heartbeat.Tracker
	now     time.Time
	// statuses are those of all registered nodes, nodes the same by id.
	statuses []heartbeat.NodeStatus
	nodes    map[metasrv.NodeID]heartbeat.NodeStatus
	absent   absences
}

func conditionsOf(view state.View, t *heartbeat.Tracker, statuses []heartbeat.NodeStatus, now time.Time) *conditions {
	c := &conditions{view: view, tracker: t, now: now, statuses: statuses, nodes: make(map[metasrv.NodeID]heartbeat.NodeStatus, len(statuses))}
	for _, s := range statuses {
		c.nodes[s.ID] = s
	}
	if t != nil {
		c.absent = absencesOf(t)
	}
	return c
}

func (c *conditions) registration(node metasrv.NodeID) (metasrv.Registration, bool) {
	return heartbeat.Registration(c.view, node)
}

// of returns the condition of a replica.
func (c *conditions) of(replica *storagepb.ReplicaRecord) router.Condition {
	node := metasrv.NodeID(replica.GetNodeId())
	status, ok := c.nodes[node]
	present, registered := c.registration(node)
	switch {
	case !ok || !registered:
		return router.Removed
	case router.Lost(replica, present, true):
		return router.OtherStorage
	case c.tracker == nil && present.KeepsLeases:
		return router.Reachable
	case present.Group != "" && c.tracker != nil && c.tracker.HasFailed(node, c.now):
		return router.GroupSilent
	case !present.KeepsLeases && c.tracker != nil && c.tracker.HasFailed(node, c.now):
		return router.UnleasedSilent
	case !present.KeepsLeases:
		return router.Unleased
	case c.tracker.HasFailed(node, c.now):
		if status.State == metasrvpb.NodeState_NODE_STATE_DOWN {
			return router.Down
		}
		return router.Failed
	case c.isAbsent(replica) && c.absent[metasrv.ReplicaID(replica.GetReplicaId())].SetBack:
		return router.SetBack
	case c.isAbsent(replica):
		return router.Absent
	case status.State != metasrvpb.NodeState_NODE_STATE_LIVE && status.State != metasrvpb.NodeState_NODE_STATE_SUSPECT:
		return router.Silent
	}
	return router.Reachable
}

func (c *conditions) isAbsent(replica *storagepb.ReplicaRecord) bool {
	_, is := c.absent[metasrv.ReplicaID(replica.GetReplicaId())]
	return is
}

// lead returns the conditions of a region's replicas where another one is to lead. One that its node doesn't report, be it only
// yet, may not be there: it is waited for. Who fails leaves the in-sync set with the election, so that a leader without its rows
// would keep those out that have them.
func (c *conditions) lead(region *storagepb.RegionRecord) func(*storagepb.ReplicaRecord) router.Condition {
	return func(r *storagepb.ReplicaRecord) router.Condition {
		found := c.of(r)
		has := c.tracker.Has(metasrv.NodeID(r.GetNodeId()), metasrv.RegionID(region.GetRegionId()), metasrv.ReplicaID(r.GetReplicaId()))
		if found == router.Reachable && !has {
			return router.Silent
		}
		return found
	}
}

// electionPlan chooses new leaders, in one look.
type electionPlan struct {
	*conditions
	elector *scheduler.Elector
}

func (f *failover) plan(ctx context.Context, view state.View, now time.Time) (*electionPlan, error) {
	statuses, err := f.term.tracker.Nodes(view, now)
	if err != nil {
		return nil, err
	}
	placed, err := f.placed.at(ctx, view)
	if err != nil {
		return nil, err
	}
	return &electionPlan{
		conditions: conditionsOf(view, f.term.tracker, statuses, now),
		elector:    scheduler.NewElector(each(statuses, placed.load)),
	}, nil
}

// successor returns the election of the one who leads a region next; nil where nobody can, and why.
func (p *electionPlan) successor(route *storagepb.RouteRecord, region *storagepb.RegionRecord) (change *storagepb.RegionChange, why string) {
	condition := p.lead(region)
	s := router.Succeed(route, region, condition)
	among := each(s.Candidates, func(r *storagepb.ReplicaRecord) metasrv.NodeID { return metasrv.NodeID(r.GetNodeId()) })
	i := p.elector.Choose(leaderNode(region), among)
	if i < 0 {
		return nil, router.Standstill(region, condition)
	}
	return &storagepb.RegionChange{
		RegionId: region.GetRegionId(), LeaderEpoch: region.GetLeaderEpoch(), ConfVersion: region.GetConfVersion(),
		Change: &storagepb.RegionChange_Elect{Elect: &storagepb.ElectReplica{
			ReplicaId: s.Candidates[i].GetReplicaId(), FailedReplicaIds: s.Failed, Unclean: s.Unclean,
		}},
	}, ""
}
