package server

import (
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestHeartbeatRegistersNode(t *testing.T) {
	m := startLeader(t)
	d := m.addDatanode(t, 7)
	if d.incarnation == 0 {
		t.Error("the first beat got no incarnation")
	}
	before := m.node.View().Revision()
	resp := d.beat(t)
	if resp.GetSequence() != 2 || resp.GetIncarnation() != d.incarnation || resp.GetHeader().GetMember() != testMember {
		t.Errorf("second beat was answered %v", resp)
	}
	if after := m.node.View().Revision(); after != before {
		t.Errorf("a beat changed the state: revision %d, was %d", after, before)
	}
	got, err := m.cluster().GetNode(timeout(t), &metasrvpb.GetNodeRequest{NodeId: 7})
	if err != nil {
		t.Fatal(err)
	}
	if n := got.GetNode(); n.GetState() != metasrvpb.NodeState_NODE_STATE_LIVE || n.GetStat().GetWcus() != 4 {
		t.Errorf("node is %v", n)
	}
}

func TestHeartbeatIgnoresWhatItDoesNotKnow(t *testing.T) {
	m := startLeader(t)
	stream, err := metasrvpb.NewHeartbeatClient(m.conn).Heartbeat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	req := &metasrvpb.HeartbeatRequest{
		Peer: &metasrvpb.Peer{Id: 1, Addr: "127.0.0.1:1"}, Node: &metasrvpb.NodeInfo{Version: "next"}, Sequence: 1,
	}
	addUnknown(req.GetNode())
	addUnknown(req.GetPeer())
	if err := stream.Send(req); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	got, err := m.cluster().GetNode(timeout(t), &metasrvpb.GetNodeRequest{NodeId: 1})
	if err != nil || got.GetNode().GetInfo().GetVersion() != "next" {
		t.Errorf("node is %v, %v", got, err)
	}
}

func TestHeartbeatEndsWithLeadership(t *testing.T) {
	m := startLeader(t)
	d := m.addDatanode(t, 1)
	m.node.follow(otherMember())
	_, err := d.stream.Recv()
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NOT_LEADER", Leader: otherAddr})

	m.lead(t)
	again := m.addDatanode(t, 1)
	if again.incarnation != d.incarnation {
		t.Errorf("the same process got incarnation %d in the next term, had %d", again.incarnation, d.incarnation)
	}
}

func TestHeartbeatIsReplacedByLaterStream(t *testing.T) {
	m := startLeader(t)
	first := m.addDatanode(t, 1)
	second := m.addDatanode(t, 1)
	_, err := first.stream.Recv()
	wantRefusal(t, err, refusal{Code: codes.Aborted, Reason: "STREAM_REPLACED"})
	second.beat(t)
}

func TestHeartbeatRefusesOtherStorageOfLiveNode(t *testing.T) {
	m := startLeader(t)
	open := func(nonce uint64, storage string) error {
		stream, err := metasrvpb.NewHeartbeatClient(m.conn).Heartbeat(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		req := &metasrvpb.HeartbeatRequest{
			Peer: &metasrvpb.Peer{Id: 1, Addr: "127.0.0.1:1"}, Sequence: 1,
			Node: &metasrvpb.NodeInfo{RegistrationNonce: nonce, StorageUuid: storage},
		}
		if err := stream.Send(req); err != nil {
			t.Fatal(err)
		}
		_, err = stream.Recv()
		return err
	}
	if err := open(1, "a"); err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, open(2, "b"), refusal{Code: codes.FailedPrecondition, Reason: "NODE_ID_TAKEN"})
	if err := open(2, "a"); err != nil {
		t.Errorf("a restart on the same storage: %v", err)
	}
}

func TestDroppedTableIsDroppedOnDatanodes(t *testing.T) {
	m := startLeader(t)
	d := m.addDatanode(t, 1)
	route := m.createTable(t, "t", d).GetTableRoutes()[0]
	var have []*metasrvpb.RegionStat
	for _, r := range route.GetRegionRoutes() {
		have = append(have, &metasrvpb.RegionStat{
			RegionId: r.GetRegion().GetId(), ReplicaId: r.GetLeaderReplicaId(), LeaderEpoch: r.GetLeaderEpoch(), ConfVersion: r.GetConfVersion(),
		})
	}
	if n := len(d.beat(t, have...).GetPayload()); n != 0 {
		t.Fatalf("%d instructions for a table that is there", n)
	}
	if _, err := m.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("t")}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // repeated until confirmed
		payload := d.beat(t, have...).GetPayload()
		if len(payload) != len(have) {
			t.Fatalf("%d instructions, want %d", len(payload), len(have))
		}
		var instruction metasrvpb.Instruction
		if err := proto.Unmarshal(payload[0], &instruction); err != nil || instruction.GetDropRegion().GetRegionId() != have[0].GetRegionId() {
			t.Errorf("instruction is %v, %v", &instruction, err)
		}
	}
	d.beat(t)
	resp, err := m.catalog().ListTables(timeout(t), &metasrvpb.ListTablesRequest{AllStates: true})
	if err != nil || len(resp.GetTables()) != 0 {
		t.Errorf("after the confirmation there are %v, %v", resp.GetTables(), err)
	}
}

// A node that doesn't read its answers must not keep the member from ending its term, and so from leading again.
func TestDeafNodeDoesNotHoldTheTerm(t *testing.T) {
	m := startLeader(t)
	conn, err := grpc.NewClient(m.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	deaf := testMemberServer{Server: m.Server, node: m.node, conn: conn}
	d := deaf.addDatanode(t, 1)
	// Until the answers fill every buffer between, and the handler stands in Send.
	sending := make(chan struct{})
	go func() {
		defer close(sending)
		for i := uint64(2); i < 100_000; i++ {
			if d.stream.Send(&metasrvpb.HeartbeatRequest{Peer: &metasrvpb.Peer{Id: 1, Addr: "127.0.0.1:1"}, Sequence: i, Incarnation: d.incarnation}) != nil {
				return
			}
		}
	}()
	time.Sleep(200 * time.Millisecond) // nothing tells that a buffer is full
	ended := make(chan struct{})
	go func() {
		m.node.follow(otherMember())
		close(ended)
	}()
	select {
	case <-ended:
	case <-time.After(waitLimit):
		t.Error("the term did not end")
	}
	if err := conn.Close(); err != nil {
		t.Fatal(err)
	}
	<-sending
	<-ended
}

// Rule 4: what a duty planned in one term is refused in the next.
func TestDutyOfAnEarlierTermIsRefused(t *testing.T) {
	m := startLeader(t)
	earlier, _ := m.node.Leadership()
	m.node.follow(nil)
	m.lead(t)
	err := m.duties.propose(timeout(t), earlier, storagepb.CommandKind_COMMAND_KIND_CREATE_CATALOG, &storagepb.CreateCatalog{Name: "late"})
	if !errors.Is(err, metasrv.ErrStaleTerm) {
		t.Errorf("a plan of term %d was answered with %v", earlier.Term, err)
	}
}
