package cluster_test

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/server"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const waitLimit = 10 * time.Second

// script is a datanode that fails as it is told: a real one can't be made to. It is registered with a real member.
type script struct {
	tsdbpb.UnimplementedDatanodeServer
	task *client.HeartbeatTask

	mu sync.Mutex
	// creates, writes and queries are the answers to the next calls; nil is success, which is also the answer behind
	// the last one.
	creates, writes, queries []error
	// replaced: another process is to take the node id.
	replaced bool
	// stuck writes wait until their callers give up.
	stuck bool
	// midway ends queries behind their first batch.
	midway error
	// frozen queries wait until it is closed, without a word.
	frozen   chan struct{}
	writeIDs []string
	rows     int
	asked    int
}

func next(list *[]error) error {
	if len(*list) == 0 {
		return nil
	}
	err := (*list)[0]
	*list = (*list)[1:]
	return err
}

func (s *script) CreateRegion(context.Context, *tsdbpb.CreateRegionRequest) (*tsdbpb.CreateRegionResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &tsdbpb.CreateRegionResponse{Incarnation: s.task.Incarnation()}, next(&s.creates)
}

func (s *script) Write(ctx context.Context, r *tsdbpb.WriteRequest) (*tsdbpb.WriteResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stuck {
		s.mu.Unlock()
		<-ctx.Done()
		s.mu.Lock()
		return nil, ctx.Err()
	}
	s.writeIDs = append(s.writeIDs, string(r.GetWriteId()))
	err := next(&s.writes)
	if err == nil {
		s.rows += int(r.GetRows().GetRowCount())
	}
	return &tsdbpb.WriteResponse{}, err
}

func (s *script) Query(_ *tsdbpb.QueryRequest, stream grpc.ServerStreamingServer[tsdbpb.QueryResponse]) error {
	s.mu.Lock()
	frozen := s.frozen
	s.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if err := next(&s.queries); err != nil {
		return err
	}
	for range 2 {
		if err := stream.Send(&tsdbpb.QueryResponse{Rows: &tsdbpb.RowBatch{RowCount: 2}}); err != nil {
			return err
		}
		if s.midway != nil {
			return s.midway
		}
	}
	return nil
}

func (s *script) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

type bed struct {
	*cluster.Cluster
	client *client.Client
	member *server.Server
	nodes  []*script
}

// begin starts a member, scripted datanodes and a Cluster.
func begin(t *testing.T, nodes int) *bed {
	t.Helper()
	cfg := server.Default()
	cfg.NodeID, cfg.DataDir, cfg.Logger = "m1", t.TempDir(), slog.New(slog.DiscardHandler)
	cfg.GRPCAddr, cfg.RaftAddr, cfg.HTTPAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	m, err := server.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() }) // a test may have closed it
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	if err := m.WaitReady(ctx); err != nil {
		t.Fatal(err)
	}
	c, err := client.New(client.Config{Endpoints: []string{m.GRPCAddr()}})
	if err != nil {
		t.Fatal(err)
	}
	b := &bed{client: c, member: m, Cluster: cluster.New(cluster.Config{
		Client: c, Timeout: 2 * time.Second, AnswerTimeout: 500 * time.Millisecond, SchemaAge: time.Nanosecond,
	})}
	t.Cleanup(func() {
		if err := errors.Join(b.Close(), c.Close()); err != nil {
			t.Error(err)
		}
	})
	for i := range nodes {
		b.nodes = append(b.nodes, startScript(t, c, uint64(i+1)))
	}
	return b
}

func startScript(t *testing.T, c *client.Client, id uint64) *script {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &script{}
	registered := make(chan struct{}, 1)
	s.task = client.NewHeartbeatTask(c, client.HeartbeatConfig{
		Peer:         &metasrvpb.Peer{Id: id, Addr: listener.Addr().String()},
		NodeInfo:     &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, StorageUuid: "script"},
		OnRegistered: func(uint64) { registered <- struct{}{} },
	})
	g := grpc.NewServer()
	tsdbpb.RegisterDatanodeServer(g, s)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { _ = g.Serve(listener) })
	running.Go(func() {
		err := s.task.Run(ctx)
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil && !s.replaced {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		cancel()
		g.Stop()
		running.Wait()
	})
	select {
	case <-registered:
	case <-time.After(waitLimit):
		t.Fatalf("datanode %d is not registered", id)
	}
	return s
}

func newTable(b *bed, regions, replicas uint32) *cluster.NewTable {
	return &cluster.NewTable{
		Name: b.Name("public", "t"), Replicas: replicas,
		Schema: &metasrvpb.TableSchema{
			Columns: []*metasrvpb.Column{
				{Name: "k", Type: metasrvpb.DataType_DATA_TYPE_INT64},
				{Name: "v", Type: metasrvpb.DataType_DATA_TYPE_STRING, Nullable: true},
			},
			PrimaryKey: []string{"k"},
		},
		Rule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
			Hash: &metasrvpb.HashRule{Columns: []string{"k"}, Partitions: regions},
		}},
	}
}

func create(t *testing.T, b *bed, regions, replicas uint32) *cluster.Table {
	t.Helper()
	if err := b.CreateTable(t.Context(), newTable(b, regions, replicas)); err != nil {
		t.Fatal(err)
	}
	table, err := b.Table(t.Context(), b.Name("public", "t"))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

var unavailable = status.Error(codes.Unavailable, "scripted")

func invalidRoute(version uint64) error {
	return (&routing.Invalid{Message: "scripted", RouteVersion: version}).GRPCStatus().Err()
}

func rows(n int) [][]any {
	out := make([][]any, n)
	for i := range out {
		out[i] = []any{int64(i), "x"}
	}
	return out
}

// TestCreateRepeats: what passes is repeated, what doesn't gives the creation up and frees the name.
func TestCreateRepeats(t *testing.T) {
	b := begin(t, 2)
	b.nodes[0].set(func() { b.nodes[0].creates = []error{unavailable, unavailable} })
	create(t, b, 4, 2)
	if err := b.DropTable(t.Context(), b.Name("public", "t")); err != nil {
		t.Fatal(err)
	}
	b.nodes[1].set(func() { b.nodes[1].creates = []error{status.Error(codes.Internal, "disk is full")} })
	err := b.CreateTable(t.Context(), newTable(b, 4, 2))
	if err == nil || !strings.Contains(err.Error(), "disk is full") {
		t.Errorf("failed creation: %v", err)
	}
	if _, err := b.Table(t.Context(), b.Name("public", "t")); !errors.Is(err, metasrv.ErrTableNotFound) {
		t.Errorf("table of a failed creation: %v", err)
	}
	create(t, b, 4, 2) // the name is free at once
}

// TestWriteRepeats: a refused or unanswered write is sent again, under the same id, and rows of other regions are not.
func TestWriteRepeats(t *testing.T) {
	for name, fault := range map[string][]error{
		"unavailable":            {unavailable, unavailable},
		"route is older":         {invalidRoute(0)},
		"route version is named": {invalidRoute(1 << 40)},
	} {
		t.Run(name, func(t *testing.T) {
			b := begin(t, 1)
			table := create(t, b, 2, 1)
			n := b.nodes[0]
			n.set(func() { n.writes = fault })
			if err := b.Write(t.Context(), cluster.Insert{Table: table, Rows: rows(100)}); err != nil {
				t.Fatal(err)
			}
			n.mu.Lock()
			defer n.mu.Unlock()
			ids := map[string]bool{}
			for _, id := range n.writeIDs {
				ids[id] = true
			}
			if n.rows != 100 || len(ids) != 2 || len(n.writeIDs) != 2+len(fault) {
				t.Errorf("%d rows by %d ids in %d requests, want 100 by 2 in %d", n.rows, len(ids), len(n.writeIDs), 2+len(fault))
			}
		})
	}
}

// TestWriteMoves: a write to a node that stands still is not waited for once its region is led elsewhere.
func TestWriteMoves(t *testing.T) {
	b := begin(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { _ = b.Run(ctx) })
	t.Cleanup(watching.Wait)
	t.Cleanup(cancel)
	table := create(t, b, 1, 1)
	n := b.nodes[0]
	n.set(func() { n.stuck, n.replaced = true, true })
	written := make(chan error, 1)
	began := time.Now()
	go func() {
		written <- b.Write(t.Context(), cluster.Insert{Table: table, Rows: rows(1)})
	}()
	moved := startScript(t, b.client, 1)
	if err := <-written; err != nil {
		t.Error(err)
	}
	moved.mu.Lock()
	defer moved.mu.Unlock()
	if took := time.Since(began); moved.rows != 1 || took > time.Second {
		t.Errorf("%d rows on the node at its new address after %s", moved.rows, took)
	}
}

// TestWriteFails: a write without an acknowledgement fails, in time, and says that the outcome is unknown.
func TestWriteFails(t *testing.T) {
	b := begin(t, 1)
	table := create(t, b, 1, 1)
	n := b.nodes[0]
	n.set(func() {
		for range 1000 {
			n.writes = append(n.writes, unavailable)
		}
	})
	if err := b.Write(t.Context(), cluster.Insert{Table: table, Rows: rows(1)}); !errors.Is(err, metasrv.ErrOutcomeUnknown) {
		t.Errorf("write: %v", err)
	}
	n.set(func() { n.writes = []error{status.Error(codes.InvalidArgument, "column k")} })
	if err := b.Write(t.Context(), cluster.Insert{Table: table, Rows: rows(1)}); err == nil || !strings.Contains(err.Error(), "column k") {
		t.Errorf("refused write: %v", err)
	}
}

// TestTableReplaced: rows for a table that was dropped and created again are not written into the new one.
func TestTableReplaced(t *testing.T) {
	b := begin(t, 1)
	old := create(t, b, 1, 1)
	other := cluster.New(cluster.Config{Client: b.client})
	t.Cleanup(func() { _ = other.Close() })
	if err := other.DropTable(t.Context(), old.Name); err != nil {
		t.Fatal(err)
	}
	if err := other.CreateTable(t.Context(), newTable(b, 2, 1)); err != nil {
		t.Fatal(err)
	}
	n := b.nodes[0]
	n.set(func() { n.writes, n.queries = []error{invalidRoute(0)}, []error{invalidRoute(0)} })
	err := b.Write(t.Context(), cluster.Insert{Table: old, Rows: rows(10)})
	n.set(func() {
		if !errors.Is(err, metasrv.ErrSchemaVersionChanged) || n.rows != 0 {
			t.Errorf("write by an old route: %v, %d rows stored", err, n.rows)
		}
	})
	if _, err := scan(b, old); !errors.Is(err, metasrv.ErrSchemaVersionChanged) {
		t.Errorf("scan by an old route: %v", err)
	}
}

// scan counts the rows of a table.
func scan(b *bed, table *cluster.Table) (int, error) {
	iter, err := b.Scan(context.Background(), table, cluster.Query{})
	if err != nil {
		return 0, err
	}
	defer iter.Close()
	for n := 0; ; n++ {
		if _, err := iter.Next(); errors.Is(err, io.EOF) {
			return n, nil
		} else if err != nil {
			return n, err
		}
	}
}

// TestScanFallsBack: another replica is asked where one fails before its first row, also for good.
func TestScanFallsBack(t *testing.T) {
	for name, fault := range map[string]error{
		"unavailable": unavailable, "invalid route": invalidRoute(0), "damaged": status.Error(codes.Internal, "damage"),
	} {
		t.Run(name, func(t *testing.T) {
			b := begin(t, 2)
			table := create(t, b, 1, 2)
			for _, n := range b.nodes {
				n.set(func() { n.queries = []error{fault} })
				if rows, err := scan(b, table); err != nil || rows != 4 {
					t.Errorf("%d rows, %v; want 4", rows, err)
				}
				n.set(func() { n.queries = nil })
			}
		})
	}
}

// TestScanLeavesAFrozenDatanode: one that takes the query and says nothing must not hold a scan that another replica
// can answer.
func TestScanLeavesAFrozenDatanode(t *testing.T) {
	b := begin(t, 2)
	table := create(t, b, 1, 2)
	for _, n := range b.nodes {
		frozen := make(chan struct{})
		n.set(func() { n.frozen = frozen })
		for range 2 { // each replica is the first one once
			if rows, err := scan(b, table); err != nil || rows != 4 {
				t.Errorf("%d rows, %v; want 4", rows, err)
			}
		}
		n.set(func() { n.frozen = nil })
		close(frozen)
	}
}

// TestScanIsWhole: a scan that breaks behind its first rows is an error and is not begun again.
func TestScanIsWhole(t *testing.T) {
	for name, fault := range map[string]error{"unavailable": unavailable, "invalid route": invalidRoute(0)} {
		t.Run(name, func(t *testing.T) {
			b := begin(t, 2)
			table := create(t, b, 3, 2)
			for _, n := range b.nodes {
				n.set(func() { n.midway = fault })
			}
			if rows, err := scan(b, table); err == nil {
				t.Errorf("%d rows without an error", rows)
			}
			asked := 0
			for _, n := range b.nodes {
				n.set(func() { asked += n.asked })
			}
			if asked > 3 {
				t.Errorf("%d queries for 3 regions", asked)
			}
		})
	}
}

// TestScanEndsWithItsContext: a scan whose context ends before all regions were read is an error, not what was read by then.
func TestScanEndsWithItsContext(t *testing.T) {
	b := begin(t, 1)
	table := create(t, b, 3, 1)
	if rows, err := scan(b, table); err != nil || rows != 12 {
		t.Fatal(rows, err) // the route is known from here on
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	iter, err := b.Scan(ctx, table, cluster.Query{})
	if err == nil {
		_, err = iter.Next()
		iter.Close()
	}
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want canceled", err)
	}
}

// TestScanWaits: while no replica answers, it is tried again.
func TestScanWaits(t *testing.T) {
	b := begin(t, 1)
	table := create(t, b, 1, 1)
	n := b.nodes[0]
	n.set(func() { n.queries = []error{unavailable, invalidRoute(0), unavailable} })
	if rows, err := scan(b, table); err != nil || rows != 4 {
		t.Errorf("%d rows, %v; want 4", rows, err)
	}
	n.set(func() {
		for range 1000 {
			n.queries = append(n.queries, unavailable)
		}
	})
	if _, err := scan(b, table); err == nil {
		t.Error("a scan ended though no replica answers")
	}
}

// TestScanClose ends everything of a scan that isn't read to its end.
func TestScanClose(t *testing.T) {
	b := begin(t, 1)
	table := create(t, b, 8, 1)
	iter, err := b.Scan(t.Context(), table, cluster.Query{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := iter.Next(); err != nil {
		t.Fatal(err)
	}
	iter.Close()
	iter.Close()
}

// TestMetasrvAway: what is known stays readable and writable while no member answers.
func TestMetasrvAway(t *testing.T) {
	b := begin(t, 1)
	table := create(t, b, 2, 1)
	for _, away := range []bool{false, true} {
		if away {
			if err := b.member.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if ok, err := b.HasSchema(t.Context(), "public"); !ok || err != nil {
			t.Errorf("away %t: schema: %t, %v", away, ok, err)
		}
		if list, err := b.Schemas(t.Context()); len(list) != 1 || err != nil {
			t.Errorf("away %t: schemas: %v, %v", away, list, err)
		}
		if _, err := b.Table(t.Context(), table.Name); err != nil {
			t.Errorf("away %t: table: %v", away, err)
		}
		if err := b.Write(t.Context(), cluster.Insert{Table: table, Rows: rows(3)}); err != nil {
			t.Errorf("away %t: write: %v", away, err)
		}
		if n, err := scan(b, table); n != 8 || err != nil {
			t.Errorf("away %t: scan: %d, %v", away, n, err)
		}
	}
}

// TestMetasrvAwayIsQuick: statements don't wait for a member that doesn't answer, whether they ask for a schema that
// is there or, as the SQL engine does each time, for one that isn't. What needs a member says once why it fails.
func TestMetasrvAwayIsQuick(t *testing.T) {
	b := begin(t, 0)
	if ok, err := b.HasSchema(t.Context(), "public"); !ok || err != nil {
		t.Fatal(ok, err)
	}
	if err := b.member.Close(); err != nil {
		t.Fatal(err)
	}
	const limit = 3 * time.Second // a call of the client gives up after 10
	began := time.Now()
	for name, want := range map[string]bool{"public": true, "mysql": false} {
		if ok, err := b.HasSchema(t.Context(), name); ok != want || err != nil {
			t.Errorf("schema %s: %t, %v", name, ok, err)
		}
	}
	if took := time.Since(began); took > limit {
		t.Errorf("schemas took %s", took)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	_, err := b.TableNames(ctx, "public")
	if err == nil || strings.Count(err.Error(), "refused") != 1 || strings.Contains(err.Error(), "desc =") ||
		status.Code(err) == codes.OK || !strings.Contains(err.Error(), b.member.GRPCAddr()) {
		t.Errorf("tables: %v", err)
	}
}

// TestSchemasChangedHere are known at once, whatever the age of the list.
func TestSchemasChangedHere(t *testing.T) {
	b := begin(t, 0)
	c := cluster.New(cluster.Config{Client: b.client, SchemaAge: time.Hour})
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	for _, there := range []bool{false, true, false} {
		if ok, err := c.HasSchema(t.Context(), "s"); ok != there || err != nil {
			t.Errorf("want %t: %t, %v", there, ok, err)
		}
		change := c.CreateSchema
		if there {
			change = c.DropSchema
		}
		if err := change(t.Context(), "s"); err != nil {
			t.Fatal(err)
		}
	}
}
