package main

import (
	"context"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// fakeCluster answers with fixed data, so that the transcripts under testdata are the same on every run. What
// members really answer is tested with real ones, in the tests of the server.
type fakeCluster struct {
	// state is healthy, takeover, leaderless, or slow: healthy, but nobody answers callers that wait for less
	// than half of patience; or broken: healthy, but for the state of the last member;
	// or waiting or fed: healthy, but the last member has no state yet, or only a later one than those that it can be
	// compared at.
	state   string
	members []*fakeMember
	dropped []string
	// leads is the index of the metasrv leader.
	leads atomic.Int32
	// empty: it says that it has no nodes and tables.
	empty atomic.Bool
	store fakeStore
	// configured is what was set, nil while nothing was.
	configured atomic.Pointer[metasrvpb.ClusterConfig]
}

// patience is the time that explain has for asking the endpoints in transcripts: so much that the speed of the machine
// doesn't matter.
const patience = time.Minute

type fakeMember struct {
	metasrvpb.UnimplementedClusterServer
	metasrvpb.UnimplementedCatalogServer
	metasrvpb.UnimplementedRouterServer
	metasrvpb.UnimplementedStoreServer

	cluster *fakeCluster
	index   int
	addr    string
	listen  net.Listener
	server  *grpc.Server
}

// The RPCs of several services have the same name.
type (
	fakeCatalogService struct{ *fakeMember }
	fakeRouter         struct{ *fakeMember }
	fakeStoreService   struct{ *fakeMember }
	fakeMaintenance    struct {
		metasrvpb.UnimplementedMaintenanceServer
		*fakeMember
	}
)

func (f fakeCatalogService) Watch(r *metasrvpb.WatchCatalogRequest, s grpc.ServerStreamingServer[metasrvpb.WatchCatalogResponse]) error {
	return f.UnimplementedCatalogServer.Watch(r, s)
}

func (f fakeRouter) Watch(r *metasrvpb.WatchRoutesRequest, s grpc.ServerStreamingServer[metasrvpb.WatchRoutesResponse]) error {
	return f.UnimplementedRouterServer.Watch(r, s)
}

func (f fakeStoreService) Watch(r *metasrvpb.WatchRequest, s grpc.ServerStreamingServer[metasrvpb.WatchResponse]) error {
	return f.UnimplementedStoreServer.Watch(r, s)
}

// startCluster starts three members, of which the first leads unless state says otherwise.
func startCluster(t testing.TB, state string) *fakeCluster {
	t.Helper()
	c := &fakeCluster{state: state}
	for i := range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		m := &fakeMember{cluster: c, index: i, addr: l.Addr().String(), listen: l}
		m.server = grpc.NewServer(grpc.UnaryInterceptor(c.delay))
		metasrvpb.RegisterClusterServer(m.server, m)
		metasrvpb.RegisterCatalogServer(m.server, fakeCatalogService{m})
		metasrvpb.RegisterRouterServer(m.server, fakeRouter{m})
		metasrvpb.RegisterStoreServer(m.server, fakeStoreService{m})
		metasrvpb.RegisterMaintenanceServer(m.server, fakeMaintenance{fakeMember: m})
		c.members = append(c.members, m)
		go func() {
			if err := m.server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
				t.Errorf("serve: %v", err)
			}
		}()
	}
	return c
}

func (c *fakeCluster) stop() {
	for _, m := range c.members {
		m.stop()
	}
}

// stop ends a member. Its port refuses connections from then on, also if the server has not begun to serve.
func (m *fakeMember) stop() {
	m.listen.Close()
	m.server.Stop()
}

// delay keeps impatient callers of a slow cluster waiting for longer than they do.
func (c *fakeCluster) delay(
	ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler,
) (any, error) {
	if d, ok := ctx.Deadline(); c.state == "slow" && ok && time.Until(d) < patience/2 {
		<-ctx.Done()
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return next(ctx, req)
}

// Hash answers as a member that has executed one entry less than the one before it.
func (f fakeMaintenance) Hash(context.Context, *metasrvpb.HashRequest) (*metasrvpb.HashResponse, error) {
	index := uint64(1200 - f.index) //nolint:gosec // small
	resp := &metasrvpb.HashResponse{
		Present: &metasrvpb.StateHash{Index: index, Hash: index}, Build: "v0.1.0/1", ComparedIndex: 1024,
		Earlier: []*metasrvpb.StateHash{{Index: 768, Hash: 0x768}, {Index: 1024, Hash: 0x1024}},
	}
	if f.cluster.state == "broken" && f.index == 2 {
		resp.Earlier[1].Hash = 0xbad
	}
	if f.cluster.state == "young" {
		resp.Earlier, resp.ComparedIndex = nil, 0
	}
	if f.index == 2 {
		switch f.cluster.state {
		case "waiting":
			return &metasrvpb.HashResponse{Build: "v0.1.0/1"}, nil
		case "fed":
			resp.Earlier, resp.ComparedIndex = nil, 0
		}
	}
	return resp, nil
}

func (f fakeMaintenance) AddMember(context.Context, *metasrvpb.AddMemberRequest) (*metasrvpb.AddMemberResponse, error) {
	return &metasrvpb.AddMemberResponse{Header: f.header(), ConfigurationIndex: 7}, nil
}

func (f fakeMaintenance) Sessions(context.Context, *metasrvpb.SessionsRequest) (*metasrvpb.SessionsResponse, error) {
	return &metasrvpb.SessionsResponse{
		TtlMs: 600_000, ConfiguredTtlMs: 60_000, Open: 2, Sessions: []*metasrvpb.SessionInfo{
			{Session: 3, IdleMs: 1500, Results: 2, ResultBytes: 80}, {Session: 9, IdleMs: 590_000, Results: 1, ResultBytes: 2048},
		},
	}, nil
}

func (f fakeMaintenance) ConfigureSessions(
	_ context.Context, r *metasrvpb.ConfigureSessionsRequest,
) (*metasrvpb.ConfigureSessionsResponse, error) {
	if r.GetTtlMs() < 10_000 {
		return nil, statusOf(codes.InvalidArgument, metasrv.InvalidArgument("ttl_ms", "sessions can be forgotten from 10s to 168h0m0s after their last use, not %d ms", r.GetTtlMs()))
	}
	return &metasrvpb.ConfigureSessionsResponse{}, nil
}

func (m *fakeMember) leads() bool { return m.index == int(m.cluster.leads.Load()) }

func (c *fakeCluster) isHealthy() bool {
	return slices.Contains([]string{"healthy", "slow", "broken", "waiting", "fed", "young"}, c.state)
}

func (c *fakeCluster) hasLeader() bool { return c.state != "leaderless" }

func (m *fakeMember) header() *metasrvpb.ResponseHeader {
	return &metasrvpb.ResponseHeader{ClusterId: 77, Revision: 42, Member: m.pb().Id}
}

// staleHeader tells the age of the answer to a stale read.
func (m *fakeMember) staleHeader(h *metasrvpb.RequestHeader) *metasrvpb.ResponseHeader {
	resp := m.header()
	if h.GetReadLevel() == metasrvpb.ReadLevel_READ_LEVEL_STALE {
		resp.AgeMs = proto.Uint64(1234)
	}
	return resp
}

func (m *fakeMember) pb() *metasrvpb.Member {
	return &metasrvpb.Member{
		Id: []string{"m1", "m2", "m3"}[m.index], GrpcAddr: m.addr, Voter: m.index < 2, Version: "v0.1.0",
		RaftAddr: "10.0.0.1:3003", HttpAddr: "10.0.0.1:3004", Leader: m.leads() && m.cluster.hasLeader(),
	}
}

// refuse returns the error of a request that only the metasrv leader answers, nil on the leader.
func (m *fakeMember) refuse(h *metasrvpb.RequestHeader) error {
	stale := h.GetReadLevel() == metasrvpb.ReadLevel_READ_LEVEL_STALE
	switch {
	case stale || m.leads() && m.cluster.isHealthy():
		return nil
	case m.leads() && m.cluster.state == "takeover":
		return statusOf(codes.Unavailable, metasrv.ErrNotReady.With("the metasrv leader m1 has not taken over yet"))
	}
	detail := &metasrvpb.NotLeader{}
	if m.cluster.hasLeader() {
		detail.Leader = m.cluster.members[m.cluster.leads.Load()].pb()
	}
	return statusOf(codes.FailedPrecondition, metasrv.ErrNotLeader.With("%s is not the metasrv leader", m.pb().Id), detail)
}

func statusOf(code codes.Code, e *metasrv.Error, details ...protoadapt.MessageV1) error {
	details = append(details, &errdetails.ErrorInfo{Reason: e.Reason, Domain: "metasrv"})
	st, err := status.New(code, e.Message).WithDetails(details...)
	if err != nil {
		panic(err)
	}
	return st.Err()
}

func (m *fakeMember) Status(context.Context, *metasrvpb.StatusRequest) (*metasrvpb.StatusResponse, error) {
	resp := &metasrvpb.StatusResponse{
		Header: m.header(), Member: m.pb(), Term: 3, AppliedIndex: 1200 - uint64(m.index), FlushedIndex: 1100,
		ImageBytes: 5 << 20, UptimeMs: 93_784_000, LeaderReady: m.leads() && m.cluster.isHealthy(),
	}
	if m.cluster.hasLeader() {
		resp.Leader = m.cluster.members[m.cluster.leads.Load()].pb()
	}
	return resp, nil
}

func (m *fakeMember) ListMembers(
	_ context.Context, r *metasrvpb.ListMembersRequest,
) (*metasrvpb.ListMembersResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	resp := &metasrvpb.ListMembersResponse{Header: m.header()}
	for _, other := range m.cluster.members {
		resp.Members = append(resp.Members, other.pb())
	}
	return resp, nil
}

func (m *fakeMember) Stats(_ context.Context, r *metasrvpb.StatsRequest) (*metasrvpb.StatsResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	if m.cluster.empty.Load() {
		return &metasrvpb.StatsResponse{Header: m.header()}, nil
	}
	return &metasrvpb.StatsResponse{
		Header: m.header(), Catalogs: 1, Schemas: 2, Tables: 3, Regions: 8, LiveNodes: 2, DownNodes: 1,
		RcusPerSecond: 120.4, WcusPerSecond: 900,
	}, nil
}

func (m *fakeMember) OpenSession(
	context.Context, *metasrvpb.OpenSessionRequest,
) (*metasrvpb.OpenSessionResponse, error) {
	if err := m.refuse(nil); err != nil {
		return nil, err
	}
	return &metasrvpb.OpenSessionResponse{Header: m.header(), Session: 1}, nil
}

func (m *fakeMember) CloseSession(
	context.Context, *metasrvpb.CloseSessionRequest,
) (*metasrvpb.CloseSessionResponse, error) {
	return &metasrvpb.CloseSessionResponse{Header: m.header()}, nil
}

func (m *fakeMember) ListNodes(
	_ context.Context, r *metasrvpb.ListNodesRequest,
) (*metasrvpb.ListNodesResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	nodes := slices.DeleteFunc(fakeNodes(), func(n *metasrvpb.Node) bool {
		return r.Role != metasrvpb.NodeRole_NODE_ROLE_UNSPECIFIED && n.GetInfo().GetRole() != r.Role
	})
	return &metasrvpb.ListNodesResponse{Header: m.header(), Nodes: nodes}, nil
}

func (m *fakeMember) GetNode(_ context.Context, r *metasrvpb.GetNodeRequest) (*metasrvpb.GetNodeResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	for _, n := range fakeNodes() {
		if n.Peer.Id == r.NodeId {
			return &metasrvpb.GetNodeResponse{Header: m.header(), Node: n}, nil
		}
	}
	return nil, statusOf(codes.NotFound, metasrv.ErrNodeNotFound.With("node %d is not registered", r.NodeId))
}

func (m *fakeMember) ListRegions(
	_ context.Context, r *metasrvpb.ListRegionsRequest,
) (*metasrvpb.ListRegionsResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	if r.GetOnlyProblems() {
		regions := fakeRegions()[:1]
		regions[0].Problem = "nobody leads it, nobody can write"
		return &metasrvpb.ListRegionsResponse{Header: m.staleHeader(r.Header), Regions: regions}, nil
	}
	return &metasrvpb.ListRegionsResponse{Header: m.staleHeader(r.Header), Regions: fakeRegions()}, nil
}

func (m *fakeMember) ListGroups(_ context.Context, r *metasrvpb.ListGroupsRequest) (*metasrvpb.ListGroupsResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	return &metasrvpb.ListGroupsResponse{Header: m.staleHeader(r.Header), Groups: fakeGroups()}, nil
}

func (m *fakeMember) ElectGroupWriter(
	_ context.Context, r *metasrvpb.ElectGroupWriterRequest,
) (*metasrvpb.ElectGroupWriterResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	info := fakeGroups()[0]
	info.Successor = &metasrvpb.Peer{Id: r.GetNodeId()}
	return &metasrvpb.ElectGroupWriterResponse{Header: m.header(), Group: info}, nil
}

// fakeGroups are one that is written, and one that can't be.
func fakeGroups() []*metasrvpb.GroupInfo {
	member := func(id uint64, inSync bool) *metasrvpb.GroupMember {
		return &metasrvpb.GroupMember{Peer: &metasrvpb.Peer{Id: id}, InSync: inSync}
	}
	return []*metasrvpb.GroupInfo{
		{
			Status: &metasrvpb.GroupStatus{
				Name: "shard-1", Epoch: 3, Version: 9, Writer: &metasrvpb.Peer{Id: 1, Addr: "10.0.0.1:4001"},
				Members: []*metasrvpb.GroupMember{member(1, true), member(2, true), member(5, false)},
			},
			LeaseLeftMs: 2600, Writing: true,
		},
		{
			Status: &metasrvpb.GroupStatus{
				Name: "shard-2", Epoch: 1, Version: 4, Writer: &metasrvpb.Peer{Id: 3, Addr: "10.0.0.1:4003"},
				Members: []*metasrvpb.GroupMember{member(3, true), member(4, false)},
			},
			Problem: "its writer, node 3, sends no heartbeats, and none of the others that are in sync is live and keeps leases",
		},
	}
}

func (m *fakeMember) ListCatalogs(
	_ context.Context, r *metasrvpb.ListCatalogsRequest,
) (*metasrvpb.ListCatalogsResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	return &metasrvpb.ListCatalogsResponse{Header: m.header(), Catalogs: []*metasrvpb.CatalogInfo{fakeCatalog}}, nil
}

func (m *fakeMember) GetCatalog(
	_ context.Context, r *metasrvpb.GetCatalogRequest,
) (*metasrvpb.GetCatalogResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	if r.CatalogName != fakeCatalog.Name {
		return nil, statusOf(codes.NotFound, metasrv.ErrCatalogNotFound.With("catalog %q does not exist", r.CatalogName))
	}
	return &metasrvpb.GetCatalogResponse{Header: m.header(), Catalog: fakeCatalog}, nil
}

func (m *fakeMember) ListSchemas(
	_ context.Context, r *metasrvpb.ListSchemasRequest,
) (*metasrvpb.ListSchemasResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	return &metasrvpb.ListSchemasResponse{Header: m.header(), Schemas: []*metasrvpb.SchemaInfo{fakeSchema}}, nil
}

func (m *fakeMember) GetSchema(
	_ context.Context, r *metasrvpb.GetSchemaRequest,
) (*metasrvpb.GetSchemaResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	if r.CatalogName != fakeSchema.CatalogName || r.SchemaName != fakeSchema.SchemaName {
		return nil, statusOf(codes.NotFound,
			metasrv.ErrSchemaNotFound.With("schema %s.%s does not exist", r.CatalogName, r.SchemaName))
	}
	return &metasrvpb.GetSchemaResponse{Header: m.header(), Schema: fakeSchema}, nil
}

func (m *fakeMember) ListTables(
	_ context.Context, r *metasrvpb.ListTablesRequest,
) (*metasrvpb.ListTablesResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	tables := slices.DeleteFunc(fakeTables(), func(t *metasrvpb.Table) bool {
		return !r.AllStates && t.State != metasrvpb.TableState_TABLE_STATE_PUBLIC ||
			r.CatalogName != "" && t.TableName.CatalogName != r.CatalogName ||
			r.SchemaName != "" && t.TableName.SchemaName != r.SchemaName
	})
	return &metasrvpb.ListTablesResponse{Header: m.header(), Tables: tables}, nil
}

func (m *fakeMember) GetTable(_ context.Context, r *metasrvpb.GetTableRequest) (*metasrvpb.GetTableResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	t, err := findTable(r.TableName)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.GetTableResponse{Header: m.header(), Table: t}, nil
}

func (m *fakeMember) Route(_ context.Context, r *metasrvpb.RouteRequest) (*metasrvpb.RouteResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	t, err := findTable(r.TableNames[0])
	if err != nil {
		return nil, err
	}
	return m.route(t), nil
}

func (m *fakeMember) Delete(_ context.Context, r *metasrvpb.DeleteRequest) (*metasrvpb.RouteResponse, error) {
	if err := m.refuse(nil); err != nil {
		return nil, err
	}
	t, err := findTable(r.TableName)
	if err != nil {
		return nil, err
	}
	if r.Header.GetRequestId() == nil {
		return nil, status.Error(codes.InvalidArgument, "a drop without a request id could be executed twice")
	}
	m.cluster.dropped = append(m.cluster.dropped, tableName(r.TableName))
	return m.route(t), nil
}

func (m *fakeMember) route(t *metasrvpb.Table) *metasrvpb.RouteResponse {
	route := &metasrvpb.TableRoute{Table: t, RouteVersion: 5}
	for i := range regionCount(t.PartitionRule) {
		route.RegionRoutes = append(route.RegionRoutes, &metasrvpb.RegionRoute{
			Region:          &metasrvpb.Region{Id: t.Id<<32 | i, PartitionNumber: uint32(i)},
			LeaderPeerIndex: i % 2, FollowerPeerIndexes: []uint64{(i + 1) % 2},
			LeaderEpoch: 1 + i, ConfVersion: 2, LeaderReplicaId: 2*i + 1, FollowerReplicaIds: []uint64{2*i + 2},
		})
	}
	return &metasrvpb.RouteResponse{
		Header: m.header(), TableRoutes: []*metasrvpb.TableRoute{route},
		Peers: []*metasrvpb.Peer{fakeNodes()[0].Peer, fakeNodes()[1].Peer},
	}
}

func findTable(name *metasrvpb.TableName) (*metasrvpb.Table, error) {
	for _, t := range fakeTables() {
		if tableName(t.TableName) == tableName(name) {
			return t, nil
		}
	}
	return nil, statusOf(codes.NotFound, metasrv.ErrTableNotFound.With("table %s does not exist", tableName(name)))
}
