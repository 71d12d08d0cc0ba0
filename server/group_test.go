package server

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

// testGroupNode is a node of group g that takes the office whenever it is elected, as often as it beats.
type testGroupNode struct {
	*testDatanode
	status *metasrvpb.GroupStatus
	// others are reported as in sync while the node writes.
	others []uint64
}

func (m *testMemberServer) addGroupNode(t *testing.T, id uint64, others ...uint64) *testGroupNode {
	t.Helper()
	stream, err := metasrvpb.NewHeartbeatClient(m.conn).Heartbeat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := &testGroupNode{testDatanode: &testDatanode{id: id, stream: stream}, others: others}
	n.beat(t)
	return n
}

func (n *testGroupNode) beat(t *testing.T) {
	t.Helper()
	n.sequence++
	req := &metasrvpb.HeartbeatRequest{
		Peer: &metasrvpb.Peer{Id: n.id, Addr: fmt.Sprintf("127.0.0.1:%d", n.id)}, Sequence: n.sequence, Incarnation: n.incarnation,
		Node:  &metasrvpb.NodeInfo{RegistrationNonce: n.id, KeepsLeases: true, StorageUuid: fmt.Sprint(n.id), Group: "g"},
		Group: &metasrvpb.GroupReport{Epoch: n.status.GetEpoch(), Version: n.status.GetVersion()}, FullReport: true,
	}
	if n.status.GetWriter().GetId() == n.id && !n.status.GetHandingOver() {
		req.IsLeader = true
		for _, id := range n.others {
			req.ReplicaStats = append(req.ReplicaStats, &metasrvpb.ReplicaStat{Peer: &metasrvpb.Peer{Id: id}, InSync: true})
		}
	}
	if err := n.stream.Send(req); err != nil {
		t.Fatal(err)
	}
	for {
		resp, err := n.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		n.incarnation = resp.GetIncarnation()
		if resp.GetGroup().GetVersion() >= n.status.GetVersion() {
			n.status = resp.GetGroup()
		}
		if resp.GetSequence() == n.sequence {
			return
		}
	}
}

// mutates returns the node that writes for the regions of table t, and those that are only read, where they are the same for
// all regions.
func (m *testMemberServer) mutates(t *testing.T) (writer uint64, readers int) {
	t.Helper()
	resp, err := m.router().Route(timeout(t), &metasrvpb.RouteRequest{TableNames: []*metasrvpb.TableName{tableName("t")}})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range resp.GetTableRoutes()[0].GetRegionRoutes() {
		leader := resp.GetPeers()[r.GetLeaderPeerIndex()].GetId()
		if writer != 0 && writer != leader {
			return 0, 0
		}
		writer, readers = leader, len(r.GetFollowerPeerIndexes())
	}
	return writer, readers
}

// Routes name the writer of a group as the mutate endpoint and its other nodes as select endpoints, whoever writes, also
// under the next metasrv leader.
func TestRoutesNameTheWriterOfAGroup(t *testing.T) {
	m := startLeader(t, func(c *Config) { c.HeartbeatInterval, c.RegionLease = 50*time.Millisecond, 200*time.Millisecond })
	_, err := m.router().Create(timeout(t), createRequest("t", func(r *metasrvpb.CreateRequest) { r.Group = "g" }))
	wantRefusal(t, err, refusal{Code: codes.NotFound, Reason: "GROUP_NOT_FOUND"})
	nodes := []*testGroupNode{m.addGroupNode(t, 1, 2, 3), m.addGroupNode(t, 2, 3), m.addGroupNode(t, 3)}
	_, err = m.router().Create(timeout(t), createRequest("t"))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "TOO_FEW_DATANODES"}) // nobody writes yet
	eventually(t, "node 1 has the lease", func() bool {
		for _, n := range nodes {
			n.beat(t)
		}
		return nodes[0].status.GetLeaseMs() == 200
	})
	eventually(t, "all are in sync", func() bool {
		nodes[0].beat(t)
		for _, member := range nodes[0].status.GetMembers() {
			if !member.GetInSync() {
				return false
			}
		}
		return true
	})
	created, err := m.router().Create(timeout(t), createRequest("t"))
	if err != nil {
		t.Fatal(err)
	}
	m.commit(t, created, nodes[0].testDatanode, nodes[1].testDatanode, nodes[2].testDatanode)
	if writer, readers := m.mutates(t); writer != 1 || readers != 2 {
		t.Fatalf("node %d writes, %d are read only", writer, readers)
	}

	// Node 1 is silent.
	eventually(t, "node 2 writes", func() bool {
		nodes[1].beat(t)
		nodes[2].beat(t)
		writer, readers := m.mutates(t)
		return writer == 2 && readers == 2 && nodes[1].status.GetLeaseMs() > 0
	})
	nodes[0].beat(t)
	if nodes[0].status.GetWriter().GetId() != 2 || nodes[0].status.GetLeaseMs() != 0 {
		t.Errorf("the old writer is told %v", nodes[0].status)
	}
	if _, err := m.cluster().ElectGroupWriter(timeout(t), &metasrvpb.ElectGroupWriterRequest{Group: "g", NodeId: 1}); refusalOf(err).Reason != "NODE_NOT_IN_SYNC" {
		t.Errorf("a node that is not in sync: %v", err)
	}

	// It is handed over, and done by the next metasrv leader. Only node 3 goes on to beat.
	nodes[1].beat(t)
	if _, err := m.cluster().ElectGroupWriter(timeout(t), &metasrvpb.ElectGroupWriterRequest{Group: "g", NodeId: 3}); err != nil {
		t.Fatal(err)
	}
	m.node.follow(nil)
	m.lead(t)
	third := m.addGroupNode(t, 3)
	eventually(t, "node 3 writes", func() bool {
		third.beat(t)
		writer, readers := m.mutates(t)
		return writer == 3 && readers == 2 && third.status.GetLeaseMs() > 0
	})
	resp, err := m.cluster().ListGroups(timeout(t), &metasrvpb.ListGroupsRequest{})
	if err != nil || len(resp.GetGroups()) != 1 {
		t.Fatalf("groups are %v, %v", resp.GetGroups(), err)
	}
	if g := resp.GetGroups()[0]; !g.GetWriting() || g.GetStatus().GetWriter().GetId() != 3 || g.GetLeaseLeftMs() == 0 || g.GetProblem() != "" {
		t.Errorf("the group is %v", g)
	}
}

// A writer that is silent is not taken for a node that keeps no leases: the group gets another one, if one of its nodes is there.
func TestSilentWriterOfAGroup(t *testing.T) {
	m := startLeader(t, func(c *Config) { c.HeartbeatInterval, c.RegionLease = 50*time.Millisecond, 200*time.Millisecond })
	m.configure(t, &metasrvpb.ConfigureRequest{Change: &metasrvpb.ConfigureRequest_MaxFailedPercent{MaxFailedPercent: 100}})
	regions, _ := groupOnTable(t, m) // whose nodes beat no more
	eventually(t, "the regions' problem is that of the group", func() bool {
		resp, err := m.cluster().ListRegions(timeout(t), &metasrvpb.ListRegionsRequest{OnlyProblems: true})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range resp.GetRegions() {
			if !strings.Contains(r.GetProblem(), "as the writer of its group") || strings.Contains(r.GetProblem(), "keeps no leases") {
				return false
			}
		}
		return len(resp.GetRegions()) == len(regions)
	})
	eventually(t, "they are counted so", func() bool {
		look := m.services.term.Load().failover.Load()
		return look != nil && len(look.leaderless) == 1 && look.leaderless[router.StandstillGroup] == len(regions)
	})
}
