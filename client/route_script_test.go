package client

import (
	"context"
	"math"
	"net"
	"slices"
	"sync"
	"testing"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router/partition"
)

// scriptedRouter is a Router that holds the routes that a test gives it. A real cluster can't be made to answer
// late, or with an old route, at a chosen moment.
type scriptedRouter struct {
	metasrvpb.UnimplementedRouterServer

	mu       sync.Mutex
	revision uint64
	tables   map[metasrv.TableName]*metasrvpb.TableRoute
	calls    [][]metasrv.TableName
	// gate is called by Route without mu, after it read the tables and before it answers.
	gate func(ctx context.Context, call int)
	// watches are told of each Watch; each serves it.
	watch func(request *metasrvpb.WatchRoutesRequest, stream grpc.ServerStreamingServer[metasrvpb.WatchRoutesResponse]) error
}

// scriptPeers are the nodes 1 to 3.
var scriptPeers = []*metasrvpb.Peer{{Id: 1, Addr: "node-1:1"}, {Id: 2, Addr: "node-2:1"}, {Id: 3, Addr: "node-3:1"}}

func newScriptedRouter() *scriptedRouter {
	return &scriptedRouter{revision: 100, tables: make(map[metasrv.TableName]*metasrvpb.TableRoute)}
}

func tableNamed(name string) metasrv.TableName {
	return metasrv.TableName{Catalog: "c", Schema: "s", Table: name}
}

// put makes a change of the state that routes a table like this.
func (s *scriptedRouter) put(r *metasrvpb.TableRoute) (revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	s.tables[nameOf(r.Table.TableName)] = r
	return s.revision
}

func (s *scriptedRouter) remove(name metasrv.TableName) (revision uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.revision++
	delete(s.tables, name)
	return s.revision
}

// fetches returns the tables of each call of Route so far.
func (s *scriptedRouter) fetches() [][]metasrv.TableName {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *scriptedRouter) Route(ctx context.Context, request *metasrvpb.RouteRequest) (*metasrvpb.RouteResponse, error) {
	s.mu.Lock()
	var names []metasrv.TableName
	for _, n := range request.GetTableNames() {
		names = append(names, nameOf(n))
	}
	s.calls = append(s.calls, names)
	gate, call := s.gate, len(s.calls)
	answer := &metasrvpb.RouteResponse{Header: &metasrvpb.ResponseHeader{Revision: s.revision}, Peers: scriptPeers}
	var refused error
	for _, name := range names {
		r := s.tables[name]
		if r == nil {
			refused = statusOf(metasrv.ErrTableNotFound.With("table %s does not exist", name))
		}
		answer.TableRoutes = append(answer.TableRoutes, r)
	}
	s.mu.Unlock()
	if gate != nil {
		gate(ctx, call)
	}
	if refused != nil {
		return nil, refused
	}
	return answer, nil
}

func (s *scriptedRouter) Watch(
	request *metasrvpb.WatchRoutesRequest, stream grpc.ServerStreamingServer[metasrvpb.WatchRoutesResponse],
) error {
	s.mu.Lock()
	watch := s.watch
	s.mu.Unlock()
	if watch == nil {
		return status.Error(codes.Unimplemented, "no watch")
	}
	return watch(request, stream)
}

func statusOf(e *metasrv.Error) error {
	code := codes.NotFound
	if e.Kind == metasrv.KindOutOfRange {
		code = codes.OutOfRange
	}
	st, err := status.New(code, e.Message).WithDetails(&errdetails.ErrorInfo{Reason: e.Reason, Domain: errorDomain})
	if err != nil {
		panic(err)
	}
	return st.Err()
}

type stubSource struct{ stub metasrvpb.RouterClient }

func (s stubSource) Router() metasrvpb.RouterClient { return s.stub }

// serve serves the script on a loopback port and returns the address.
func (s *scriptedRouter) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.serveOn(t, l)
	return l.Addr().String()
}

func (s *scriptedRouter) serveOn(t *testing.T, l net.Listener) {
	server := grpc.NewServer()
	metasrvpb.RegisterRouterServer(server, s)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

// cache returns a cache of the script over a loopback connection.
func (s *scriptedRouter) cache(t *testing.T, options ...RouteCacheOption) *RouteCache {
	t.Helper()
	return s.cacheOver(t, "passthrough:///"+s.serve(t), nil, options...)
}

// cacheInBubble returns a cache of the script over a connection in memory, which works in a synctest bubble.
func (s *scriptedRouter) cacheInBubble(t *testing.T, options ...RouteCacheOption) *RouteCache {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s.serveOn(t, l)
	dial := func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }
	return s.cacheOver(t, "passthrough:///script", dial, options...)
}

func (s *scriptedRouter) cacheOver(
	t *testing.T, target string, dial func(context.Context, string) (net.Conn, error), options ...RouteCacheOption,
) *RouteCache {
	t.Helper()
	with := []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}
	if dial != nil {
		with = append(with, grpc.WithContextDialer(dial))
	}
	conn, err := grpc.NewClient(target, with...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	return NewRouteCache(stubSource{metasrvpb.NewRouterClient(conn)}, options...)
}

// routeOf returns the route of a table that is partitioned by ranges of its column "host" at the given bounds.
// Region i has its leader on node i mod 3 + 1 and followers on the other nodes.
func routeOf(name string, id, version uint64, bounds ...string) *metasrvpb.TableRoute {
	rule := &metasrvpb.RangeRule{Columns: []string{"host"}}
	for _, b := range bounds {
		rule.Bounds = append(rule.Bounds, &metasrvpb.RangeBound{Values: []*metasrvpb.Value{partition.String(b).Proto()}})
	}
	rule.Bounds = append(rule.Bounds, &metasrvpb.RangeBound{Values: []*metasrvpb.Value{partition.MaxValue().Proto()}})
	r := &metasrvpb.TableRoute{
		Table: &metasrvpb.Table{
			Id: id, TableName: protoOf(tableNamed(name)), SchemaVersion: 1,
			Schema: &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{
				{Name: "host", Type: metasrvpb.DataType_DATA_TYPE_STRING},
				{Name: "usage", Type: metasrvpb.DataType_DATA_TYPE_FLOAT64},
			}},
			PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: rule}},
		},
		RouteVersion: version,
	}
	for i := range uint64(len(rule.Bounds)) {
		r.RegionRoutes = append(r.RegionRoutes, &metasrvpb.RegionRoute{
			Region:              &metasrvpb.Region{Id: id<<32 | i, PartitionNumber: uint32(i)},
			LeaderPeerIndex:     i % 3,
			FollowerPeerIndexes: []uint64{(i + 1) % 3, (i + 2) % 3},
			LeaderEpoch:         version,
			ConfVersion:         1,
			LeaderReplicaId:     10*i + 1,
			FollowerReplicaIds:  []uint64{10*i + 2, 10*i + 3},
		})
	}
	return r
}

// withoutLeader takes the leader of a region away.
func withoutLeader(r *metasrvpb.TableRoute, region int) *metasrvpb.TableRoute {
	r.RegionRoutes[region].LeaderPeerIndex = math.MaxUint64
	r.RegionRoutes[region].LeaderReplicaId = 0
	return r
}
