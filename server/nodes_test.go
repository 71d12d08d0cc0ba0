package server

import (
	"testing"

	"google.golang.org/grpc/codes"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestClusterShowsNodesAndRegions(t *testing.T) {
	m := startLeader(t)
	a, b := m.addDatanode(t, 1), m.addDatanode(t, 2)
	created := m.createTable(t, "t", a, b)
	first := created.GetTableRoutes()[0].GetRegionRoutes()[0]
	leader := created.GetPeers()[first.GetLeaderPeerIndex()].GetId()
	on := map[uint64]*testDatanode{1: a, 2: b}[leader]
	on.beat(t, &metasrvpb.RegionStat{RegionId: first.GetRegion().GetId(), ReplicaId: first.GetLeaderReplicaId(), ApproximateRows: 42})

	nodes, err := m.cluster().ListNodes(timeout(t), &metasrvpb.ListNodesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var replicas, leaders uint32
	for _, n := range nodes.GetNodes() {
		replicas, leaders = replicas+n.GetReplicas(), leaders+n.GetRegionLeaders()
	}
	if len(nodes.GetNodes()) != 2 || replicas != 6 || leaders != 3 {
		t.Errorf("%d nodes with %d replicas, %d of them region leaders; want 2, 6, 3", len(nodes.GetNodes()), replicas, leaders)
	}
	frontends, err := m.cluster().ListNodes(timeout(t), &metasrvpb.ListNodesRequest{Role: metasrvpb.NodeRole_NODE_ROLE_FRONTEND})
	if err != nil || len(frontends.GetNodes()) != 0 {
		t.Errorf("frontends: %v, %v", frontends.GetNodes(), err)
	}
	regions, err := m.cluster().ListRegions(timeout(t), &metasrvpb.ListRegionsRequest{TableName: tableName("t")})
	if err != nil || len(regions.GetRegions()) != 3 {
		t.Fatalf("regions: %v, %v", regions, err)
	}
	replica := regions.GetRegions()[0].GetReplicas()[0]
	if replica.GetRole() != metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER || replica.GetStat().GetApproximateRows() != 42 || !replica.GetInSync() {
		t.Errorf("leading replica of region 0 is %v", replica)
	}
	none, err := m.cluster().ListRegions(timeout(t), &metasrvpb.ListRegionsRequest{NodeId: 9})
	if err != nil || len(none.GetRegions()) != 0 {
		t.Errorf("regions of a node without any: %v, %v", none.GetRegions(), err)
	}
	_, err = m.cluster().GetNode(timeout(t), &metasrvpb.GetNodeRequest{NodeId: 9})
	wantRefusal(t, err, refusal{Code: codes.NotFound, Reason: "NODE_NOT_FOUND"})
}

func TestStats(t *testing.T) {
	m := startLeader(t)
	m.createTable(t, "t", m.addDatanode(t, 1))
	stats, err := m.cluster().Stats(timeout(t), &metasrvpb.StatsRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if stats.GetCatalogs() != 1 || stats.GetSchemas() != 1 || stats.GetTables() != 1 || stats.GetRegions() != 3 || stats.GetLiveNodes() != 1 {
		t.Errorf("stats are %v", stats)
	}

	// A follower knows what is replicated, and says of the rest that it does not know.
	m.node.follow(otherMember())
	stale := &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE}
	stats, err = m.cluster().Stats(timeout(t), &metasrvpb.StatsRequest{Header: stale})
	if err != nil || stats.GetTables() != 1 || stats.GetLiveNodes() != 0 {
		t.Errorf("stats of a follower are %v, %v", stats, err)
	}
	node, err := m.cluster().GetNode(timeout(t), &metasrvpb.GetNodeRequest{Header: stale, NodeId: 1})
	if err != nil || node.GetNode().GetState() != metasrvpb.NodeState_NODE_STATE_UNKNOWN || node.GetNode().GetReplicas() != 3 {
		t.Errorf("node on a follower is %v, %v", node, err)
	}
}

func TestStatusAndMembers(t *testing.T) {
	m := startLeader(t)
	status, err := m.cluster().Status(timeout(t), &metasrvpb.StatusRequest{})
	if err != nil || !status.GetLeaderReady() || status.GetMember().GetGrpcAddr() != m.GRPCAddr() || status.GetLeader().GetId() != testMember {
		t.Errorf("status of the leader is %v, %v", status, err)
	}
	m.node.follow(otherMember())
	status, err = m.cluster().Status(timeout(t), &metasrvpb.StatusRequest{})
	if err != nil || status.GetLeaderReady() || status.GetLeader().GetGrpcAddr() != otherAddr {
		t.Errorf("status of a follower is %v, %v", status, err)
	}
	members, err := m.cluster().ListMembers(timeout(t), &metasrvpb.ListMembersRequest{})
	if err != nil || len(members.GetMembers()) != 2 || members.GetMembers()[0].GetId() != testMember || !members.GetMembers()[1].GetLeader() {
		t.Errorf("members are %v, %v", members.GetMembers(), err)
	}
}
