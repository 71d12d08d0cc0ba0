package server

import (
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// everyMember are the RPCs that a member answers for itself, whoever leads. Of the others, reads of the state are
// answered by every member that reaches the metasrv leader; what only that one hears, elsewhere where a stale answer
// will do; all else belongs to the metasrv leader.
var everyMember = []string{
	metasrvpb.Maintenance_Hash_FullMethodName,
	metasrvpb.Heartbeat_AskLeader_FullMethodName,
	metasrvpb.Router_Watch_FullMethodName,
	metasrvpb.Election_Observe_FullMethodName,
	metasrvpb.Store_Watch_FullMethodName,
	metasrvpb.Catalog_Watch_FullMethodName,
	metasrvpb.Cluster_WatchNodes_FullMethodName,
	metasrvpb.Cluster_Status_FullMethodName,
}

var stateReads = []string{
	metasrvpb.Cluster_ListMembers_FullMethodName,
	metasrvpb.Router_Route_FullMethodName,
	metasrvpb.Lock_ListLocks_FullMethodName,
	metasrvpb.Election_Leader_FullMethodName,
	metasrvpb.Catalog_GetCatalog_FullMethodName,
	metasrvpb.Catalog_ListCatalogs_FullMethodName,
	metasrvpb.Catalog_GetSchema_FullMethodName,
	metasrvpb.Catalog_ListSchemas_FullMethodName,
	metasrvpb.Catalog_GetTable_FullMethodName,
	metasrvpb.Catalog_ListTables_FullMethodName,
	metasrvpb.Store_Range_FullMethodName,
	metasrvpb.Store_BatchGet_FullMethodName,
	metasrvpb.Store_Txn_FullMethodName,
	metasrvpb.Maintenance_Snapshot_FullMethodName,
}

var heardReads = []string{
	metasrvpb.Cluster_GetConfig_FullMethodName,
	metasrvpb.Cluster_ListNodes_FullMethodName,
	metasrvpb.Cluster_GetNode_FullMethodName,
	metasrvpb.Cluster_ListRegions_FullMethodName,
	metasrvpb.Cluster_Stats_FullMethodName,
	metasrvpb.Cluster_GetRegion_FullMethodName,
	metasrvpb.Cluster_ListProcedures_FullMethodName,
	metasrvpb.Cluster_GetProcedure_FullMethodName,
	metasrvpb.Cluster_ListGroups_FullMethodName,
}

// eachMethod calls f for every RPC that the server offers in metasrv.v1.
func eachMethod(t *testing.T, s *Server, f func(t *testing.T, method string, d protoreflect.MethodDescriptor)) {
	t.Helper()
	found := 0
	for service := range s.grpc.GetServiceInfo() {
		if !strings.HasPrefix(service, "metasrv.v1.") {
			continue
		}
		d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service))
		if err != nil {
			t.Fatal(err)
		}
		rpcs := d.(protoreflect.ServiceDescriptor).Methods()
		for i := range rpcs.Len() {
			method := "/" + service + "/" + string(rpcs.Get(i).Name())
			found++
			t.Run(strings.TrimPrefix(method, nativePackage), func(t *testing.T) { f(t, method, rpcs.Get(i)) })
		}
	}
	if found < 30 {
		t.Errorf("only %d RPCs were found", found)
	}
}

// call sends a request with the given header and returns the error of the answer.
func call(t *testing.T, conn *grpc.ClientConn, method string, d protoreflect.MethodDescriptor, h *metasrvpb.RequestHeader) error {
	t.Helper()
	req, resp := newMessage(t, d.Input()), newMessage(t, d.Output())
	m := req.ProtoReflect()
	m.Set(m.Descriptor().Fields().ByName("header"), protoreflect.ValueOfMessage(h.ProtoReflect()))
	if key := m.Descriptor().Fields().ByName("key"); key != nil && key.Kind() == protoreflect.BytesKind {
		m.Set(key, protoreflect.ValueOfBytes([]byte("k")))
	}
	if !d.IsStreamingClient() && !d.IsStreamingServer() {
		return conn.Invoke(timeout(t), method, req, resp)
	}
	stream, err := conn.NewStream(timeout(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.SendMsg(req); err != nil {
		t.Fatal(err)
	}
	if !d.IsStreamingClient() {
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
	}
	return stream.RecvMsg(resp)
}

func newMessage(t *testing.T, d protoreflect.MessageDescriptor) proto.Message {
	t.Helper()
	mt, err := protoregistry.GlobalTypes.FindMessageByName(d.FullName())
	if err != nil {
		t.Fatal(err)
	}
	return mt.New().Interface()
}

func TestEveryMethodIsClassed(t *testing.T) {
	m := startFollower(t)
	seen := 0
	eachMethod(t, m.Server, func(t *testing.T, method string, _ protoreflect.MethodDescriptor) {
		seen++
		if _, ok := methods[method]; !ok {
			t.Error("is missing in methods")
		}
	})
	if seen != len(methods) {
		t.Errorf("methods has %d RPCs, the server %d", len(methods), seen)
	}
}

func TestFollowerRedirects(t *testing.T) {
	m := startFollower(t)
	eachMethod(t, m.Server, func(t *testing.T, method string, d protoreflect.MethodDescriptor) {
		err := call(t, m.conn, method, d, &metasrvpb.RequestHeader{})
		if slices.Contains(everyMember, method) || slices.Contains(stateReads, method) {
			if refusalOf(err).Reason == "NOT_LEADER" {
				t.Errorf("a follower refused it: %v", err)
			}
			return
		}
		wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NOT_LEADER", Leader: otherAddr})
	})
}

func TestFollowerAnswersStaleReads(t *testing.T) {
	m := startFollower(t)
	eachMethod(t, m.Server, func(t *testing.T, method string, d protoreflect.MethodDescriptor) {
		err := call(t, m.conn, method, d, &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE})
		redirected := refusalOf(err).Reason == "NOT_LEADER"
		answers := slices.Contains(stateReads, method) || slices.Contains(heardReads, method) || slices.Contains(everyMember, method)
		if answers == redirected {
			t.Errorf("redirected: %t (%v)", redirected, err)
		}
	})
}

// A member that follows and has no way to tell how current its state is answers nothing that must be.
func TestFollowerWithoutLeaderRefusesReads(t *testing.T) {
	m := startMember(t)
	eachMethod(t, m.Server, func(t *testing.T, method string, d protoreflect.MethodDescriptor) {
		if !slices.Contains(stateReads, method) {
			return
		}
		wantRefusal(t, call(t, m.conn, method, d, &metasrvpb.RequestHeader{}),
			refusal{Code: codes.FailedPrecondition, Reason: "NOT_LEADER", Retry: true})
	})
}

func TestWithoutLeaderCallersRetry(t *testing.T) {
	m := startMember(t)
	_, err := m.store().Put(timeout(t), &metasrvpb.PutRequest{Key: []byte("k")})
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "NOT_LEADER", Retry: true})

	m.node.follow(m.node.self) // elected, but not ready
	_, err = m.store().Put(timeout(t), &metasrvpb.PutRequest{Key: []byte("k")})
	wantRefusal(t, err, refusal{Code: codes.Unavailable, Reason: "NOT_READY", Retry: true})
}

func TestAskLeader(t *testing.T) {
	m := startFollower(t)
	hb := metasrvpb.NewHeartbeatClient(m.conn)
	resp, err := hb.AskLeader(timeout(t), &metasrvpb.AskLeaderRequest{})
	if err != nil || resp.GetLeader().GetAddr() != otherAddr {
		t.Errorf("AskLeader = %v, %v, want %s", resp, err, otherAddr)
	}
	m.node.follow(nil)
	resp, err = hb.AskLeader(timeout(t), &metasrvpb.AskLeaderRequest{})
	if err != nil || resp.GetLeader() != nil {
		t.Errorf("AskLeader without a leader = %v, %v", resp, err)
	}
}

// Where the disks of too many members are full nobody leads for long, and a write is told why.
func TestShortageIsToldWhereNobodyLeads(t *testing.T) {
	m := startMember(t)
	write := func() error {
		_, err := m.store().Put(timeout(t), &metasrvpb.PutRequest{Key: []byte("k")})
		return err
	}
	if reason := refusalOf(write()).Reason; reason != "NOT_LEADER" {
		t.Errorf("without a metasrv leader: %s", reason)
	}
	m.node.mu.Lock()
	m.node.shortage = metasrv.ErrDiskFull.With("the disks of b and c are full")
	m.node.mu.Unlock()
	if r := refusalOf(write()); r.Reason != "DISK_FULL" || !r.Retry {
		t.Errorf("while the disks of a majority are full: %+v", r)
	}
	m.node.follow(otherMember())
	if r := refusalOf(write()); r.Reason != "NOT_LEADER" || r.Leader != otherAddr {
		t.Errorf("where another member leads: %+v", r)
	}
}
