package server

import (
	"context"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

func (s clusterService) ListNodes(ctx context.Context, req *metasrvpb.ListNodesRequest) (*metasrvpb.ListNodesResponse, error) {
	view, err := s.readHeard(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	statuses, err := s.nodes(view)
	if err != nil {
		return nil, err
	}
	placed, err := s.placed.at(ctx, view)
	if err != nil {
		return nil, err
	}
	resp := &metasrvpb.ListNodesResponse{Header: view.header()}
	for _, status := range statuses {
		if req.GetRole() == metasrvpb.NodeRole_NODE_ROLE_UNSPECIFIED || req.GetRole() == status.Role {
			resp.Nodes = append(resp.Nodes, s.showNode(placed, status))
		}
	}
	return resp, nil
}

func (s clusterService) GetNode(ctx context.Context, req *metasrvpb.GetNodeRequest) (*metasrvpb.GetNodeResponse, error) {
	view, err := s.readHeard(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	id := metasrv.NodeID(req.GetNodeId())
	var status heartbeat.NodeStatus
	if t := s.term.Load(); t != nil {
		status, err = t.tracker.Node(view, id, time.Now())
	} else {
		var record *storagepb.NodeRecord
		record, err = heartbeat.Node(view, id)
		status = unheard(record)
	}
	if err != nil {
		return nil, err
	}
	placed, err := s.placed.at(ctx, view)
	if err != nil {
		return nil, err
	}
	node := s.showNode(placed, status)
	node.LostReplicas, err = lostReplicas(view, id)
	return &metasrvpb.GetNodeResponse{Header: view.header(), Node: node}, err
}

// showNode returns a node as the API shows it, with what the metasrv leader knows of it.
func (s *services) showNode(placed placement, status heartbeat.NodeStatus) *metasrvpb.Node {
	node := placed.node(status)
	if t := s.term.Load(); t != nil && node.KeepsLeases {
		node.LeaseLeftMs = leftOf(t.tracker.LeaseEnd(status.ID), time.Now())
	}
	return node
}

// lostReplicas counts the replicas that the routes have on a node and that are gone with its earlier storage.
func lostReplicas(view state.View, id metasrv.NodeID) (uint32, error) {
	present, ok := heartbeat.Registration(view, id)
	if !ok || present.StorageGeneration == 0 {
		return 0, nil
	}
	lost := uint32(0)
	for route, err := range router.Routes(view) {
		if err != nil {
			return 0, err
		}
		for _, region := range route.GetRegions() {
			for _, r := range region.GetReplicas() {
				if r.GetNodeId() == uint64(id) && router.Lost(r, present, ok) {
					lost++
				}
			}
		}
	}
	return lost, nil
}

// nodes returns the registered nodes: on the metasrv leader with what it has heard, elsewhere in state UNKNOWN.
func (s *services) nodes(view state.View) ([]heartbeat.NodeStatus, error) {
	if t := s.term.Load(); t != nil {
		return t.tracker.Nodes(view, time.Now())
	}
	records, err := heartbeat.Nodes(view)
	if err != nil {
		return nil, err
	}
	return each(records, unheard), nil
}

// unheard is what a member that is not the metasrv leader knows of a node.
func unheard(record *storagepb.NodeRecord) heartbeat.NodeStatus {
	return heartbeat.NodeStatus{
		ID: metasrv.NodeID(record.GetPeer().GetId()), Record: record, Role: heartbeat.RoleOf(record),
		State: metasrvpb.NodeState_NODE_STATE_UNKNOWN,
	}
}

// node returns a node as the API shows it.
func (p placement) node(status heartbeat.NodeStatus) *metasrvpb.Node {
	node := &metasrvpb.Node{
		Peer:               status.Record.GetPeer(),
		Info:               status.Record.GetInfo(),
		Incarnation:        status.Record.GetIncarnation(),
		State:              status.State,
		LastHeartbeatAgeMs: uint64(status.Age.Milliseconds()), //nolint:gosec // never negative
		Stat:               status.Stat,
		Legacy:             status.Record.GetLegacy(),
		Drain:              status.Record.GetDrain(),
		KeepsLeases:        status.Record.GetInfo().GetKeepsLeases() && status.Record.GetInfo().GetStorageUuid() != "",
		StorageGeneration:  status.Record.GetStorageGeneration(),
		RegisteredAtMs:     status.Record.GetRegisteredAtMs(),
		IsLeader:           status.Group.Leads,
		ReplicaStats:       status.Group.Followers,
		ReportedReplicas:   uint32(status.Replicas), //nolint:gosec // never negative
		RcusPerSecond:      status.Rates.RCUs,
		WcusPerSecond:      status.Rates.WCUs,
	}
	n := p[uint64(status.ID)]
	node.Replicas, node.RegionLeaders = uint32(n.replicas), uint32(n.leaders) //nolint:gosec // never negative
	return node
}

func (s clusterService) ListRegions(ctx context.Context, req *metasrvpb.ListRegionsRequest) (*metasrvpb.ListRegionsResponse, error) {
	after, err := tableBehind(req)
	if err != nil {
		return nil, err
	}
	view, err := s.readHeard(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	regions, err := s.regionList(view, req)
	if err != nil {
		return nil, err
	}
	resp := &metasrvpb.ListRegionsResponse{Header: view.header()}
	if req.GetTableName() != nil {
		record, err := router.Find(view, catalog.NameOf(req.GetTableName()))
		if err != nil {
			return nil, err
		}
		resp.Regions = regions.append(nil, record)
		return resp, nil
	}
	limit, scanned := pageLimit(req.GetLimit()), 0
	for record, err := range router.TablesBehind(view, after) {
		if err != nil {
			return nil, err
		}
		if len(resp.Regions) >= limit || req.GetLimit() > 0 && scanned == catalog.MaxScanned {
			resp.NextPageToken = nextPage(after)
			break
		}
		scanned++
		after = metasrv.TableID(record.Table.GetId())
		resp.Regions = regions.append(resp.Regions, record)
	}
	return resp, nil
}

// regionList makes the regions of an answer.
type regionList struct {
	view      state.View
	term      *term
	node      uint64
	addresses func(metasrv.NodeID) string
	health    router.Health
	// onlyProblems leaves out the regions with which nothing is wrong.
	onlyProblems bool
}

func (s *services) regionList(view state.View, req *metasrvpb.ListRegionsRequest) (regionList, error) {
	now := time.Now()
	statuses, err := s.nodes(view)
	if err != nil {
		return regionList{}, err
	}
	l := regionList{
		view: view, term: s.term.Load(), node: req.GetNodeId(), addresses: addresses(view), onlyProblems: req.GetOnlyProblems(),
	}
	var tracker *heartbeat.Tracker
	if l.term != nil {
		tracker = l.term.tracker
	}
	l.health = router.Health{Condition: conditionsOf(view, tracker, statuses, now).of, Paused: s.pausedWhy(view)}
	return l, nil
}

// append adds the regions of a table that have a replica on the node asked for.
func (l regionList) append(regions []*metasrvpb.RegionInfo, r router.Record) []*metasrvpb.RegionInfo {
	for _, region := range r.Route.GetRegions() {
		info := &metasrvpb.RegionInfo{
			RegionId:        region.GetRegionId(),
			TableName:       r.Table.GetName(),
			TableState:      r.Table.GetState(),
			PartitionNumber: region.GetPartitionNumber(),
			LeaderEpoch:     region.GetLeaderEpoch(),
			ConfVersion:     region.GetConfVersion(),
			Demoting:        region.GetDemoting(),
			Problem:         l.health.Problem(r, region),
		}
		if l.onlyProblems && info.Problem == "" {
			continue
		}
		wanted := l.node == 0
		for _, replica := range region.GetReplicas() {
			wanted = wanted || replica.GetNodeId() == l.node
			info.Replicas = append(info.Replicas, l.replica(region, replica))
		}
		if wanted {
			regions = append(regions, info)
		}
	}
	return regions
}

// lost reports whether the node of a replica came back with other storage.
func (l regionList) lost(r *storagepb.ReplicaRecord) bool {
	present, ok := heartbeat.Registration(l.view, metasrv.NodeID(r.GetNodeId()))
	return router.Lost(r, present, ok)
}

func (l regionList) replica(region *storagepb.RegionRecord, r *storagepb.ReplicaRecord) *metasrvpb.Replica {
	node := metasrv.NodeID(r.GetNodeId())
	replica := &metasrvpb.Replica{
		ReplicaId: r.GetReplicaId(),
		Peer:      &metasrvpb.Peer{Id: r.GetNodeId(), Addr: l.addresses(node)},
		Role:      metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER,
		InSync:    r.GetInSync(),
	}
	replica.Lost = l.lost(r)
	if r.GetLearner() {
		replica.Role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
	}
	if r.GetReplicaId() == region.GetLeaderReplicaId() {
		replica.Role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
	}
	if l.term != nil {
		if report, ok := l.term.tracker.Region(node, metasrv.RegionID(region.GetRegionId()), metasrv.ReplicaID(r.GetReplicaId())); ok {
			replica.Stat = report.Stat()
		}
	}
	return replica
}

func (s clusterService) Stats(ctx context.Context, req *metasrvpb.StatsRequest) (*metasrvpb.StatsResponse, error) {
	view, err := s.readHeard(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	counts := catalog.Count(view)
	resp := &metasrvpb.StatsResponse{
		Header: view.header(), Catalogs: counts.Catalogs, Schemas: counts.Schemas, Tables: counts.PublicTables,
	}
	for record, err := range router.Tables(view) {
		if err != nil {
			return nil, err
		}
		if record.Table.GetState() == metasrvpb.TableState_TABLE_STATE_PUBLIC {
			resp.Regions += uint64(len(record.Route.GetRegions()))
		}
	}
	statuses, err := s.nodes(view)
	if err != nil {
		return nil, err
	}
	for _, status := range statuses {
		switch status.State {
		case metasrvpb.NodeState_NODE_STATE_LIVE:
			resp.LiveNodes++
		case metasrvpb.NodeState_NODE_STATE_SUSPECT:
			resp.SuspectNodes++
		case metasrvpb.NodeState_NODE_STATE_DOWN:
			resp.DownNodes++
		}
		resp.RcusPerSecond += status.Rates.RCUs
		resp.WcusPerSecond += status.Rates.WCUs
	}
	return resp, nil
}
