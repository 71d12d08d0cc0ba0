package server

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// waitLimit bounds every wait for a condition.
const waitLimit = 10 * time.Second

// testMemberServer is a served member with a client connection.
type testMemberServer struct {
	*Server
	node *testNode
	conn *grpc.ClientConn
}

func testConfig(t testing.TB) Config {
	t.Helper()
	cfg := Default()
	cfg.NodeID, cfg.DataDir = testMember, t.TempDir()
	cfg.GRPCAddr, cfg.RaftAddr, cfg.HTTPAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.Logger = slog.New(slog.DiscardHandler)
	// Test datanodes beat only when told to, and a busy machine must not make them suspect.
	cfg.SuspectAfter, cfg.DownAfter = time.Minute, 2*time.Minute
	cfg.RepairAfter = 0 // what a test takes away stays away
	return cfg
}

// startMember serves a member that has no metasrv leader yet.
func startMember(t *testing.T, change ...func(*Config)) *testMemberServer {
	t.Helper()
	cfg := testConfig(t)
	for _, c := range change {
		c(&cfg)
	}
	m := &testMemberServer{}
	s, err := start(cfg, func(s *Server) (Node, error) {
		m.node = newTestNode(s)
		return m.node, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m.Server = s
	conn, err := grpc.NewClient(s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	m.conn = conn
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
		if err := s.Close(); err != nil && m.node.Err() == nil {
			t.Error(err)
		}
	})
	return m
}

// startLeader serves a member that is the metasrv leader and ready.
func startLeader(t *testing.T, change ...func(*Config)) *testMemberServer {
	t.Helper()
	m := startMember(t, change...)
	m.lead(t)
	return m
}

func (m *testMemberServer) lead(t *testing.T) {
	t.Helper()
	m.node.lead(t)
	if err := m.WaitReady(timeout(t)); err != nil {
		t.Fatal(err)
	}
}

// startFollower serves a member that knows another one as the metasrv leader.
func startFollower(t *testing.T) *testMemberServer {
	t.Helper()
	m := startMember(t)
	m.node.follow(otherMember())
	return m
}

func (m *testMemberServer) router() metasrvpb.RouterClient { return metasrvpb.NewRouterClient(m.conn) }
func (m *testMemberServer) catalog() metasrvpb.CatalogClient {
	return metasrvpb.NewCatalogClient(m.conn)
}
func (m *testMemberServer) store() metasrvpb.StoreClient { return metasrvpb.NewStoreClient(m.conn) }
func (m *testMemberServer) cluster() metasrvpb.ClusterClient {
	return metasrvpb.NewClusterClient(m.conn)
}

// timeout returns a context that ends before the test is given up.
func timeout(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until a condition holds.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("did not happen within %s: %s", waitLimit, what)
		}
	}
}

// refusal is what a client sees of an error.
type refusal struct {
	Code   codes.Code
	Reason string
	Field  string
	Retry  bool
	Leader string // address in the NotLeader detail
}

func refusalOf(err error) refusal {
	s := status.Convert(err)
	r := refusal{Code: s.Code()}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == errorDomain {
				r.Reason = d.GetReason()
			}
		case *errdetails.BadRequest:
			r.Field = d.GetFieldViolations()[0].GetField()
		case *errdetails.RetryInfo:
			r.Retry = d.GetRetryDelay().AsDuration() > 0
		case *metasrvpb.NotLeader:
			r.Leader = d.GetLeader().GetGrpcAddr()
		}
	}
	return r
}

// revisionOf returns the revision that an error names, 0 where it names none.
func revisionOf(err error) uint64 {
	for _, detail := range status.Convert(err).Details() {
		if d, ok := detail.(*metasrvpb.RevisionInfo); ok {
			return d.GetRevision()
		}
	}
	return 0
}

func wantRefusal(t *testing.T, err error, want refusal) {
	t.Helper()
	if got := refusalOf(err); got != want {
		t.Errorf("refused with %+v (%v), want %+v", got, err, want)
	}
}

// testDatanode is a datanode with an open heartbeat stream.
type testDatanode struct {
	id          uint64
	incarnation uint64
	sequence    uint64
	stream      grpc.BidiStreamingClient[metasrvpb.HeartbeatRequest, metasrvpb.HeartbeatResponse]
}

// addDatanode registers a datanode, which is live from then on.
func (m *testMemberServer) addDatanode(t *testing.T, id uint64) *testDatanode {
	t.Helper()
	stream, err := metasrvpb.NewHeartbeatClient(m.conn).Heartbeat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	d := &testDatanode{id: id, stream: stream}
	d.incarnation = d.beat(t).GetIncarnation()
	return d
}

// beat sends a full report of replicas and returns the answer.
func (d *testDatanode) beat(t *testing.T, replicas ...*metasrvpb.RegionStat) *metasrvpb.HeartbeatResponse {
	t.Helper()
	d.sequence++
	req := &metasrvpb.HeartbeatRequest{
		Peer:        &metasrvpb.Peer{Id: d.id, Addr: "127.0.0.1:1"},
		Node:        &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, RegistrationNonce: d.id},
		NodeStat:    &metasrvpb.NodeStat{Rcus: 3, Wcus: 4},
		Sequence:    d.sequence,
		Incarnation: d.incarnation,
		FullReport:  true,
		RegionStats: replicas,
	}
	if err := d.stream.Send(req); err != nil {
		t.Fatal(err)
	}
	resp, err := d.stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	return resp
}
