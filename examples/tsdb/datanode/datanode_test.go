package datanode_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/examples/tsdb/batch"
	"github.com/metasrv/metasrv/examples/tsdb/datanode"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	leader   = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
	follower = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
)

var region = metasrv.NewRegionID(1024, 0)

// node is a running datanode.
type node struct {
	tsdbpb.DatanodeClient
	config datanode.Config
	addr   string
	cancel context.CancelFunc
	ended  chan error
	conn   *grpc.ClientConn
}

func start(t *testing.T, c datanode.Config) *node {
	t.Helper()
	n := &node{config: c, ended: make(chan error, 1)}
	listening := make(chan string, 1)
	c.OnListen = func(addr string) { listening <- addr }
	var ctx context.Context
	ctx, n.cancel = context.WithCancel(context.Background())
	go func() { n.ended <- datanode.Run(ctx, c) }()
	select {
	case n.addr = <-listening:
	case err := <-n.ended:
		n.cancel()
		t.Fatalf("datanode %s ended: %v", c.NodeID, err)
	}
	n.config.Listen = n.addr // a restarted node is where it was
	var err error
	n.conn, err = grpc.NewClient(n.addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	n.DatanodeClient = tsdbpb.NewDatanodeClient(n.conn)
	t.Cleanup(func() { n.stop(t) })
	return n
}

func (n *node) stop(t *testing.T) {
	t.Helper()
	if n.conn == nil {
		return
	}
	_ = n.conn.Close()
	n.conn = nil
	n.cancel()
	if err := <-n.ended; err != nil {
		t.Errorf("datanode %s: %v", n.config.NodeID, err)
	}
}

func (n *node) restart(t *testing.T) *node {
	t.Helper()
	n.stop(t)
	return start(t, n.config)
}

func config(t *testing.T, m *metasrvScript, id metasrv.NodeID) datanode.Config {
	t.Helper()
	return datanode.Config{
		NodeID: id, Listen: "127.0.0.1:0", Metasrv: []string{m.addr}, DataDir: t.TempDir(), Zone: "a",
		Interval: 50 * time.Millisecond, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// startAll starts nodes 1 to n and waits until they are registered.
func startAll(t *testing.T, m *metasrvScript, n int) []*node {
	t.Helper()
	var nodes []*node
	for i := range n {
		nodes = append(nodes, start(t, config(t, m, metasrv.NodeID(i+1))))
	}
	for _, node := range nodes {
		m.registered(t, node)
	}
	return nodes
}

// registered waits until the node knows its incarnation.
func (m *metasrvScript) registered(t *testing.T, n *node) {
	t.Helper()
	m.await(t, "registration", func() bool { return m.last[uint64(n.config.NodeID)].GetIncarnation() != 0 })
}

func schema(key ...string) *metasrvpb.TableSchema {
	return &metasrvpb.TableSchema{PrimaryKey: key, Columns: []*metasrvpb.Column{
		{Name: "host", Type: metasrvpb.DataType_DATA_TYPE_STRING},
		{Name: "t", Type: metasrvpb.DataType_DATA_TYPE_TIMESTAMP},
		{Name: "v", Type: metasrvpb.DataType_DATA_TYPE_FLOAT64, Nullable: true},
	}, TimeIndex: "t"}
}

// route names the replica of the region on the i-th node.
func route(i int) *tsdbpb.Route {
	return &tsdbpb.Route{RegionId: uint64(region), ReplicaId: uint64(10 + i), LeaderEpoch: 3, RouteVersion: 5}
}

// createAll creates the region on the nodes, the leader on the first.
func createAll(t *testing.T, s *metasrvpb.TableSchema, nodes ...*node) {
	t.Helper()
	for i, n := range nodes {
		d := &tsdbpb.CreateRegionRequest{
			Route: route(i), ConfVersion: 4, Role: follower, Schema: s, LeaderReplicaId: route(0).GetReplicaId(),
			TableName: &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: "cpu"},
		}
		if i == 0 {
			d.Role = leader
		}
		for j, other := range nodes {
			if i != j {
				d.Peers = append(d.Peers, &tsdbpb.ReplicaPeer{ReplicaId: route(j).GetReplicaId(),
					Peer: &metasrvpb.Peer{Id: uint64(other.config.NodeID), Addr: other.addr}})
			}
		}
		for range 2 { // a retry changes nothing
			if r, err := n.CreateRegion(t.Context(), d); err != nil || r.GetIncarnation() == 0 {
				t.Fatalf("create on node %d: %v, %v", i+1, r, err)
			}
		}
	}
}

func rows(t *testing.T, values ...[]any) *tsdbpb.RowBatch {
	t.Helper()
	b := batch.New(schema().GetColumns())
	for _, v := range values {
		if err := b.Append(v); err != nil {
			t.Fatal(err)
		}
	}
	return b.Take()
}

func (n *node) write(t *testing.T, id string, values ...[]any) (repeated bool, err error) {
	t.Helper()
	r, err := n.Write(t.Context(), &tsdbpb.WriteRequest{Route: route(0), WriteId: []byte(id), Rows: rows(t, values...)})
	return r.GetRepeatedWrite(), err
}

// mustWrite writes until the node has a lease.
func (n *node) mustWrite(t *testing.T, id string, values ...[]any) {
	t.Helper()
	eventually(t, "a write", func() bool {
		_, err := n.write(t, id, values...)
		if err != nil && status.Code(err) != codes.Unavailable {
			t.Fatal(err)
		}
		return err == nil
	})
}

// awaitLease waits until the node may acknowledge writes to a region.
func (n *node) awaitLease(t *testing.T, region uint64) {
	t.Helper()
	eventually(t, "a lease", func() bool {
		s, err := n.Status(t.Context(), &tsdbpb.StatusRequest{})
		return err == nil && slices.ContainsFunc(s.GetReplicas(), func(r *tsdbpb.ReplicaStatus) bool {
			return r.GetRegionId() == region && r.GetLeased()
		})
	})
}

// awaitNoLease waits until the lease of the node's only replica is over.
func (n *node) awaitNoLease(t *testing.T) {
	t.Helper()
	eventually(t, "the end of the lease", func() bool {
		s, err := n.Status(t.Context(), &tsdbpb.StatusRequest{})
		return err == nil && !s.GetReplicas()[0].GetLeased()
	})
}

func (n *node) query(t *testing.T, q *tsdbpb.QueryRequest) ([][]any, error) {
	t.Helper()
	stream, err := n.Query(t.Context(), q)
	if err != nil {
		return nil, err
	}
	var out [][]any
	for {
		response, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		for row := range int(response.GetRows().GetRowCount()) {
			var values []any
			for _, c := range response.GetRows().GetColumns() {
				values = append(values, batch.Value(c, row))
			}
			out = append(out, values)
		}
	}
}

// expect compares all rows of the i-th node, in order of t.
func (n *node) expect(t *testing.T, i int, want ...[]any) {
	t.Helper()
	got, err := n.query(t, &tsdbpb.QueryRequest{Route: route(i), Columns: []string{"host", "t", "v"},
		Order: []*tsdbpb.Order{{Column: "t"}, {Column: "v"}}})
	if err != nil {
		t.Fatal(err)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("node %d: %s", i+1, diff)
	}
}

func row(at int, v float64) []any { return []any{"a", int64(at), v} }

// TestReplication: an acknowledged row is on all replicas, and stays there over restarts.
func TestReplication(t *testing.T) {
	nodes := startAll(t, startMetasrv(t), 3)
	createAll(t, schema("host", "t"), nodes...)
	nodes[0].mustWrite(t, "1", row(1, 1), row(2, 2))
	nodes[0].mustWrite(t, "2", row(2, 3))
	for i, n := range nodes {
		n.expect(t, i, row(1, 1), row(2, 3))
	}
	for i := range nodes {
		nodes[i] = nodes[i].restart(t)
		nodes[i].awaitServing(t)
	}
	nodes[0].awaitLease(t, uint64(region))
	for i, n := range nodes {
		n.expect(t, i, row(1, 1), row(2, 3))
	}
	nodes[0].mustWrite(t, "3", row(3, 3))
	for i, n := range nodes {
		n.expect(t, i, row(1, 1), row(2, 3), row(3, 3))
	}
	got, err := nodes[2].query(t, &tsdbpb.QueryRequest{Route: route(2), Columns: []string{"v"}, Limit: 1,
		Filters: []*tsdbpb.Filter{{Column: "t", Comparison: tsdbpb.Comparison_COMPARISON_GE, Values: []*metasrvpb.Value{
			{Kind: &metasrvpb.Value_TimestampValue{TimestampValue: 2}}}}}})
	if diff := gocmp.Diff([][]any{{3.0}}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// TestFollowerAway: writes fail while a follower is away, leaving at most one on the leader alone. With its
// return retries succeed, in the first order on every replica, and store nothing twice.
func TestFollowerAway(t *testing.T) {
	nodes := startAll(t, startMetasrv(t), 3)
	createAll(t, schema(), nodes...)
	nodes[0].mustWrite(t, "0", row(0, 0))
	nodes[2].stop(t)
	for i := range 2 {
		if _, err := nodes[0].write(t, fmt.Sprint("w", i), row(1, float64(i))); status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "replica 12") {
			t.Fatalf("write %d: %v, want UNAVAILABLE naming replica 12", i, err)
		}
	}
	nodes[0].expect(t, 0, row(0, 0), row(1, 0))
	nodes[0] = nodes[0].restart(t) // what the leader knew of its followers is gone
	nodes[2] = start(t, nodes[2].config)
	nodes[0].awaitServing(t)
	nodes[2].awaitServing(t)
	for i := range 4 {
		repeated := false
		for {
			var err error
			if repeated, err = nodes[0].write(t, fmt.Sprint("w", i), row(1, float64(i))); err == nil {
				break
			}
			if status.Code(err) != codes.Unavailable {
				t.Fatal(err)
			}
		}
		if repeated != (i == 0) {
			t.Errorf("write %d: repeated %t", i, repeated)
		}
	}
	for i, n := range nodes {
		n.expect(t, i, row(0, 0), row(1, 0), row(1, 1), row(1, 2), row(1, 3))
	}
}

// TestConcurrentWrites of the same rows end the same on all replicas, each acknowledged once.
func TestConcurrentWrites(t *testing.T) {
	nodes := startAll(t, startMetasrv(t), 2)
	createAll(t, schema("host", "t"), nodes...)
	nodes[0].awaitLease(t, uint64(region))
	var writers sync.WaitGroup
	for w := range 8 {
		writers.Go(func() {
			for i := range 25 {
				if _, err := nodes[0].write(t, fmt.Sprint(w, "/", i), row(i, float64(w))); err != nil {
					t.Error(err)
				}
			}
		})
	}
	writers.Wait()
	all := &tsdbpb.QueryRequest{Route: route(0), Columns: []string{"t", "v"}}
	first, err := nodes[0].query(t, all)
	if err != nil || len(first) != 25 {
		t.Fatalf("%d rows, %v; want 25", len(first), err)
	}
	all.Route = route(1)
	second, err := nodes[1].query(t, all)
	if diff := gocmp.Diff(first, second); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// TestInvalidRoute: requests by another route are refused with what the node has.
func TestInvalidRoute(t *testing.T) {
	nodes := startAll(t, startMetasrv(t), 2)
	createAll(t, schema(), nodes...)
	here := &routing.Invalid{Region: region, Replica: 10, LeaderEpoch: 3, ConfVersion: 4, RouteVersion: 5}
	there := &routing.Invalid{Region: region, Replica: 11, LeaderEpoch: 3, ConfVersion: 4, RouteVersion: 5}
	for name, c := range map[string]struct {
		node  int
		spoil func(*tsdbpb.Route)
		want  *routing.Invalid
	}{
		"other region":     {0, func(r *tsdbpb.Route) { r.RegionId++ }, &routing.Invalid{Region: region + 1}},
		"other replica":    {0, func(r *tsdbpb.Route) { r.ReplicaId = 99 }, here},
		"old epoch":        {0, func(r *tsdbpb.Route) { r.LeaderEpoch = 2 }, here},
		"new epoch":        {0, func(r *tsdbpb.Route) { r.LeaderEpoch = 4 }, here},
		"old version":      {0, func(r *tsdbpb.Route) { r.RouteVersion = 4 }, here},
		"no region leader": {1, func(r *tsdbpb.Route) { r.ReplicaId = 11 }, there},
	} {
		r := route(0)
		c.spoil(r)
		_, err := nodes[c.node].Write(t.Context(), &tsdbpb.WriteRequest{Route: r, WriteId: []byte("x"), Rows: rows(t, row(1, 1))})
		expectInvalid(t, name+", write", err, c.want)
		if c.node == 0 {
			_, err = nodes[0].query(t, &tsdbpb.QueryRequest{Route: r})
			expectInvalid(t, name+", query", err, c.want)
		}
	}
	newer := route(0)
	newer.RouteVersion = 9
	if _, err := nodes[0].query(t, &tsdbpb.QueryRequest{Route: newer}); err != nil {
		t.Errorf("newer route_version: %v", err)
	}
	for name, c := range map[string]struct {
		node  int
		epoch uint64
		want  *routing.Invalid
	}{"to the leader": {0, 3, here}, "old epoch": {1, 2, there}} {
		r := route(c.node)
		r.LeaderEpoch = c.epoch
		_, err := nodes[c.node].Replicate(t.Context(), &tsdbpb.ReplicateRequest{Route: r,
			Records: []*tsdbpb.LogRecord{{Seq: 1, WriteId: []byte("x"), Rows: rows(t, row(1, 1))}}})
		expectInvalid(t, "replicate "+name, err, c.want)
	}
}

// TestNewerEpoch: a follower keeps a newer epoch over a restart, and the leader before it can't write any more.
func TestNewerEpoch(t *testing.T) {
	nodes := startAll(t, startMetasrv(t), 2)
	createAll(t, schema(), nodes...)
	nodes[0].mustWrite(t, "1", row(1, 1))
	newer := route(1)
	newer.LeaderEpoch = 7
	if _, err := nodes[1].Replicate(t.Context(), &tsdbpb.ReplicateRequest{Route: newer}); err != nil {
		t.Fatal(err)
	}
	nodes[1] = nodes[1].restart(t)
	nodes[1].awaitServing(t)
	_, err := nodes[0].write(t, "2", row(2, 2))
	for status.Code(err) == codes.Unavailable { // until the leader has reached the restarted follower
		_, err = nodes[0].write(t, "2", row(2, 2))
	}
	expectInvalid(t, "write by the old leader", err,
		&routing.Invalid{Region: region, Replica: 10, LeaderEpoch: 7, ConfVersion: 4, RouteVersion: 5})
}

func expectInvalid(t *testing.T, name string, err error, want *routing.Invalid) {
	t.Helper()
	got, ok := routing.FromError(err)
	if !ok || status.Code(err) != codes.FailedPrecondition {
		t.Errorf("%s: %v, want INVALID_ROUTE", name, err)
		return
	}
	got.Message = ""
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("%s: %s", name, diff)
	}
}

// TestRefusedWrites: each wrong write is an INVALID_ARGUMENT, and stores nothing.
func TestRefusedWrites(t *testing.T) {
	nodes := startAll(t, startMetasrv(t), 1)
	createAll(t, schema("host", "t"), nodes...)
	for name, spoil := range map[string]func(*tsdbpb.WriteRequest){
		"no rows":        func(w *tsdbpb.WriteRequest) { w.Rows = nil },
		"no id":          func(w *tsdbpb.WriteRequest) { w.WriteId = nil },
		"long id":        func(w *tsdbpb.WriteRequest) { w.WriteId = make([]byte, 65) },
		"unknown column": func(w *tsdbpb.WriteRequest) { w.Rows.Columns[2].Name = "x" },
		"wrong type":     func(w *tsdbpb.WriteRequest) { w.Rows.Columns[1].Type = metasrvpb.DataType_DATA_TYPE_INT64 },
		"short column":   func(w *tsdbpb.WriteRequest) { w.Rows.Columns[2].Float64S = nil },
		"twice":          func(w *tsdbpb.WriteRequest) { w.Rows.Columns[2] = w.Rows.Columns[1] },
		"missing key":    func(w *tsdbpb.WriteRequest) { w.Rows.Columns = w.Rows.Columns[1:] },
		"null key":       func(w *tsdbpb.WriteRequest) { w.Rows.Columns[0].Nulls = []byte{1} },
	} {
		w := &tsdbpb.WriteRequest{Route: route(0), WriteId: []byte(name), Rows: rows(t, row(1, 1))}
		spoil(w)
		if _, err := nodes[0].Write(t.Context(), w); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v, want INVALID_ARGUMENT", name, err)
		}
	}
	nodes[0].expect(t, 0)
}

// TestHeartbeats: the node registers with what it is, reports its replicas, counts, and drops what it is told to.
func TestHeartbeats(t *testing.T) {
	m := startMetasrv(t)
	n := startAll(t, m, 1)[0]
	createAll(t, schema("host", "t"), n)
	n.mustWrite(t, "1", row(1, 1), row(2, 2), row(2, 3))
	var wcus, rcus uint64
	m.await(t, "report", func() bool {
		request := m.last[1]
		for _, r := range request.GetRegionStats() {
			wcus += r.GetWcus()
			want := &metasrvpb.RegionStat{RegionId: uint64(region), ReplicaId: 10, Role: leader, LeaderEpoch: 3,
				ConfVersion: 4, TableName: &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: "cpu"}}
			got := proto.CloneOf(r)
			got.Rcus, got.Wcus, got.ApproximateSize, got.ApproximateRows, got.LogEpoch, got.LogSequence = 0, 0, 0, 0, 0, 0
			if !proto.Equal(want, got) {
				t.Fatalf("reported %v, want %v", got, want)
			}
			if wcus > 0 && r.GetApproximateRows() == 2 {
				return r.GetApproximateSize() > 0 && request.GetFullReport() && request.GetNodeStat().GetRegionNum() == 1
			}
		}
		return false
	})
	if wcus != 1 {
		t.Errorf("%d write capacity units, want 1", wcus)
	}
	n.expect(t, 0, row(1, 1), row(2, 3))
	m.await(t, "read units", func() bool {
		rcus += m.last[1].GetRegionStats()[0].GetRcus()
		return rcus == 1
	})
	m.mu.Lock()
	info := m.nodes[1]
	m.mu.Unlock()
	if info.GetRole() != metasrvpb.NodeRole_NODE_ROLE_DATANODE || info.GetLabels()["zone"] != "a" ||
		info.GetStorageUuid() == "" || info.GetCapacity().GetCpuCores() == 0 || info.GetCapacity().GetMemoryBytes() == 0 {
		t.Errorf("registered as %v", info)
	}

	m.drop(1, &metasrvpb.DropRegion{RegionId: uint64(region), ReplicaId: 99, LeaderEpoch: 3, Reason: "test"})
	m.await(t, "refusal", func() bool { return len(m.replies) > 0 && m.replies[0].GetReplicaId() == 99 })
	n.expect(t, 0, row(1, 1), row(2, 3))
	m.drop(1, &metasrvpb.DropRegion{RegionId: uint64(region), ReplicaId: 10, LeaderEpoch: 3, ConfVersion: 3, Reason: "test"})
	m.await(t, "refusal of what is too old", func() bool {
		return slices.ContainsFunc(m.replies, func(r *metasrvpb.InstructionReply) bool { return r.GetReplicaId() == 10 })
	})
	n.expect(t, 0, row(1, 1), row(2, 3))
	m.drop(1, &metasrvpb.DropRegion{RegionId: uint64(region), ReplicaId: 10, LeaderEpoch: 3, ConfVersion: 4, Reason: "test"})
	m.await(t, "drop", func() bool { return m.last[1].GetFullReport() && len(m.last[1].GetRegionStats()) == 0 })
	_, err := n.query(t, &tsdbpb.QueryRequest{Route: route(0)})
	expectInvalid(t, "after drop", err, &routing.Invalid{Region: region})
	// The report is without the replica before its files are gone.
	m.await(t, "files removed", func() bool {
		left, _ := filepath.Glob(filepath.Join(n.config.DataDir, "region-*"))
		return len(left) == 0
	})
}

// TestDamagedReplica is told by requests and Status, left out of the reports, and dropped only when asked.
func TestDamagedReplica(t *testing.T) {
	m := startMetasrv(t)
	n := startAll(t, m, 1)[0]
	createAll(t, schema(), n)
	n.stop(t)
	path := filepath.Join(n.config.DataDir, "region-1024-0-10.db")
	if err := os.WriteFile(path, []byte("damaged"), 0o600); err != nil {
		t.Fatal(err)
	}
	n = start(t, n.config)
	n.awaitServing(t)
	m.await(t, "report", func() bool { return m.last[1].GetSequence() > 0 && len(m.last[1].GetRegionStats()) == 0 })
	_, err := n.query(t, &tsdbpb.QueryRequest{Route: route(0)})
	if status.Code(err) != codes.DataLoss || !strings.Contains(err.Error(), path) {
		t.Errorf("%v, want DATA_LOSS naming %s", err, path)
	}
	s, err := n.Status(t.Context(), &tsdbpb.StatusRequest{})
	if err != nil || len(s.GetReplicas()) != 1 || s.GetReplicas()[0].GetDamage() == "" {
		t.Errorf("status %v, %v", s, err)
	}
	if _, err := n.DropRegion(t.Context(), &tsdbpb.DropRegionRequest{RegionId: uint64(region), ReplicaId: 10, LeaderEpoch: 3}); err != nil {
		t.Error(err)
	}
}

// TestCannotStart: what keeps a datanode from serving ends it with an error that says so.
func TestCannotStart(t *testing.T) {
	m := startMetasrv(t)
	n := startAll(t, m, 1)[0]
	second := n.config
	second.Listen = "127.0.0.1:0"
	if err := datanode.Run(t.Context(), second); !errors.Is(err, store.ErrLocked) ||
		!strings.Contains(err.Error(), second.DataDir) {
		t.Errorf("second start: %v, want ErrLocked naming %s", err, second.DataDir)
	}
	for field, spoil := range map[string]func(*datanode.Config){
		"node-id":   func(c *datanode.Config) { c.NodeID = 0 },
		"listen":    func(c *datanode.Config) { c.Listen = "x" },
		"advertise": func(c *datanode.Config) { c.Listen = "0.0.0.0:0" },
		"metasrv":   func(c *datanode.Config) { c.Metasrv = nil },
		"data-dir":  func(c *datanode.Config) { c.DataDir = "" },
	} {
		c := config(t, m, 2)
		spoil(&c)
		err := datanode.Run(t.Context(), c)
		if e, ok := errors.AsType[*metasrv.Error](err); !ok || e.Field != field {
			t.Errorf("%s: %v", field, err)
		}
	}
	m.mu.Lock()
	m.stale = true
	m.mu.Unlock()
	err := <-n.ended
	if !errors.Is(err, metasrv.ErrStaleIncarnation) || !strings.Contains(err.Error(), "node 1") {
		t.Errorf("%v, want STALE_INCARNATION naming node 1", err)
	}
	n.ended <- nil
}

// TestNotRegistered: without an incarnation nobody could vouch for a created replica.
func TestNotRegistered(t *testing.T) {
	c := config(t, &metasrvScript{addr: "127.0.0.1:1"}, 1)
	_, err := start(t, c).CreateRegion(t.Context(), &tsdbpb.CreateRegionRequest{Route: route(0)})
	if status.Code(err) != codes.Unavailable {
		t.Errorf("%v, want UNAVAILABLE", err)
	}
}

// TestReadsNeedALease: a leader that may have been replaced shows nothing, since rows may be acknowledged elsewhere, and so
// doesn't a follower that can't ask. While all who could replace it say that they haven't, both do.
func TestReadsNeedALease(t *testing.T) {
	m := startMetasrv(t)
	nodes := startAll(t, m, 2)
	createAll(t, schema(), nodes...)
	nodes[0].mustWrite(t, "one", row(1, 1))
	m.grant(0)
	nodes[0].awaitNoLease(t)
	nodes[0].expect(t, 0, row(1, 1))
	nodes[1].expect(t, 1, row(1, 1))
	for i := range nodes {
		nodes[1-i].stop(t)
		if got, err := nodes[i].query(t, &tsdbpb.QueryRequest{Route: route(i), Columns: []string{"v"}}); status.Code(err) != codes.Unavailable {
			t.Errorf("node %d alone: %v, %v, want UNAVAILABLE", i+1, got, err)
		}
		nodes[1-i] = start(t, nodes[1-i].config)
		nodes[1-i].awaitServing(t)
	}
	m.grant(3 * time.Second)
	nodes[0].awaitLease(t, uint64(region))
	m.grant(0)
	nodes[0].awaitNoLease(t)
	nodes[0].expect(t, 0, row(1, 1))
	newer := route(1)
	newer.LeaderEpoch = 4
	if _, err := nodes[1].Replicate(t.Context(), &tsdbpb.ReplicateRequest{Route: newer}); err != nil {
		t.Fatal(err)
	}
	if got, err := nodes[0].query(t, &tsdbpb.QueryRequest{Route: route(0), Columns: []string{"v"}}); status.Code(err) != codes.Unavailable {
		t.Errorf("the follower knows a newer leader: %v, %v, want UNAVAILABLE", got, err)
	}
	if got, err := nodes[1].query(t, &tsdbpb.QueryRequest{Route: newer, Columns: []string{"v"}}); status.Code(err) != codes.Unavailable {
		t.Errorf("a follower that doesn't know its leader: %v, %v, want UNAVAILABLE", got, err)
	}

	alone := startMetasrv(t)
	node := startAll(t, alone, 1)[0]
	createAll(t, schema(), node)
	node.mustWrite(t, "one", row(1, 1))
	alone.grant(0)
	node.awaitNoLease(t)
	node.expect(t, 0, row(1, 1))
}
