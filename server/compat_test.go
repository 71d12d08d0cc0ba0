package server

import (
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// early calls an RPC by its early public name.
func (m *testMemberServer) early(t *testing.T, method string, req, resp proto.Message) {
	t.Helper()
	if err := m.conn.Invoke(timeout(t), "/greptime.v1.meta."+method, req, resp); err != nil {
		t.Fatalf("%s has no status in the early protocol: %v", method, err)
	}
}

func TestEarlyErrorsTravelInHeader(t *testing.T) {
	m := startFollower(t)
	var created metasrvpb.RouteResponse
	m.early(t, "Router/Create", &metasrvpb.CreateRequest{TableName: tableName("t")}, &created)
	if e := created.GetHeader().GetError(); codes.Code(e.GetCode()) != codes.FailedPrecondition || e.GetErrMsg() == "" { //nolint:gosec // a code
		t.Errorf("Create on a follower: %v", created.GetHeader())
	}
	if created.GetHeader().GetMember() != testMember {
		t.Errorf("header is not filled: %v", created.GetHeader())
	}
	var leader metasrvpb.AskLeaderResponse
	m.early(t, "Heartbeat/AskLeader", &metasrvpb.AskLeaderRequest{}, &leader)
	if leader.GetLeader().GetAddr() != otherAddr || leader.GetHeader().GetError() != nil {
		t.Errorf("AskLeader: %v", &leader)
	}

	stream, err := m.conn.NewStream(timeout(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/greptime.v1.meta.Heartbeat/Heartbeat")
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(&metasrvpb.HeartbeatRequest{Peer: &metasrvpb.Peer{Id: 1, Addr: "a:1"}}); err != nil {
		t.Fatal(err)
	}
	var beat metasrvpb.HeartbeatResponse
	if err := stream.RecvMsg(&beat); err != nil || beat.GetHeader().GetError() == nil {
		t.Errorf("Heartbeat on a follower: %v, %v", &beat, err)
	}
}

func TestEarlyTableIsPublicAtOnce(t *testing.T) {
	m := startLeader(t)
	m.addDatanode(t, 1)
	partition := &metasrvpb.Partition{ColumnList: [][]byte{[]byte("k")}, ValueList: [][]byte{[]byte("k1")}}
	var created, routed, again metasrvpb.RouteResponse
	// The early client sends the cluster id of its own configuration.
	h := &metasrvpb.RequestHeader{ClusterId: 1000, MemberId: 2000}
	m.early(t, "Router/Create", &metasrvpb.CreateRequest{
		Header: h, TableName: tableName("t"), Partitions: []*metasrvpb.Partition{partition}, TableInfo: []byte("info"),
	}, &created)
	if e := created.GetHeader().GetError(); e != nil {
		t.Fatal(e)
	}
	m.early(t, "Router/Route", &metasrvpb.RouteRequest{Header: h, TableNames: []*metasrvpb.TableName{tableName("t")}}, &routed)
	if e := routed.GetHeader().GetError(); e != nil {
		t.Fatal(e)
	}
	route := routed.GetTableRoutes()[0]
	if got := route.GetRegionRoutes()[0].GetRegion().GetPartition(); !proto.Equal(got, partition) {
		t.Errorf("partition came back as %v", got)
	}
	if string(route.GetTable().GetTableSchema()) != "info" {
		t.Errorf("table info came back as %q", route.GetTable().GetTableSchema())
	}
	m.early(t, "Router/Create", &metasrvpb.CreateRequest{Header: h, TableName: tableName("t")}, &again)
	if e := again.GetHeader().GetError(); codes.Code(e.GetCode()) != codes.AlreadyExists { //nolint:gosec // a code
		t.Errorf("second Create: %v", e)
	}
}

func TestEarlyNamesHaveOnlyTheEarlyRPCs(t *testing.T) {
	m := startLeader(t)
	err := m.conn.Invoke(timeout(t), "/greptime.v1.meta.Catalog/ListCatalogs", &metasrvpb.ListCatalogsRequest{}, &metasrvpb.ListCatalogsResponse{})
	wantRefusal(t, err, refusal{Code: codes.Unimplemented})
	stream, err := m.conn.NewStream(timeout(t), &grpc.StreamDesc{ServerStreams: true}, "/greptime.v1.meta.Router/Watch")
	if err != nil {
		t.Fatal(err)
	}
	wantRefusal(t, stream.RecvMsg(&metasrvpb.WatchRoutesResponse{}), refusal{Code: codes.Unimplemented})
}
