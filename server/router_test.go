package server

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func tableName(name string) *metasrvpb.TableName {
	return &metasrvpb.TableName{CatalogName: "greptime", SchemaName: "public", TableName: name}
}

func hostSchema() *metasrvpb.TableSchema {
	return &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{
		{Name: "host", Type: metasrvpb.DataType_DATA_TYPE_STRING},
		{Name: "ts", Type: metasrvpb.DataType_DATA_TYPE_TIMESTAMP},
	}, PrimaryKey: []string{"host"}, TimeIndex: "ts"}
}

func bound(v *metasrvpb.Value) *metasrvpb.RangeBound {
	return &metasrvpb.RangeBound{Values: []*metasrvpb.Value{v}}
}

func text(s string) *metasrvpb.Value {
	return &metasrvpb.Value{Kind: &metasrvpb.Value_StringValue{StringValue: s}}
}

func maxValue() *metasrvpb.Value {
	return &metasrvpb.Value{Kind: &metasrvpb.Value_MaxValue{MaxValue: true}}
}

func rangeRule(columns []string, bounds ...*metasrvpb.RangeBound) *metasrvpb.PartitionRule {
	return &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: &metasrvpb.RangeRule{Columns: columns, Bounds: bounds}}}
}

func hashRule(columns []string, n uint32) *metasrvpb.PartitionRule {
	return &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{Hash: &metasrvpb.HashRule{Columns: columns, Partitions: n}}}
}

// createRequest asks for a table of three regions.
func createRequest(name string, change ...func(*metasrvpb.CreateRequest)) *metasrvpb.CreateRequest {
	req := &metasrvpb.CreateRequest{
		TableName: tableName(name), Schema: hostSchema(), TableInfo: []byte("opaque"),
		PartitionRule: rangeRule([]string{"host"}, bound(text("g")), bound(text("p")), bound(maxValue())),
	}
	for _, c := range change {
		c(req)
	}
	return req
}

// createdBy reports every replica of a route as created.
func createdBy(resp *metasrvpb.RouteResponse, incarnations map[uint64]uint64) []*metasrvpb.CreatedReplica {
	var created []*metasrvpb.CreatedReplica
	add := func(region, replica uint64, peer uint64) {
		node := resp.GetPeers()[peer].GetId()
		created = append(created, &metasrvpb.CreatedReplica{
			RegionId: region, ReplicaId: replica, NodeId: node, Incarnation: incarnations[node],
		})
	}
	for _, r := range resp.GetTableRoutes()[0].GetRegionRoutes() {
		add(r.GetRegion().GetId(), r.GetLeaderReplicaId(), r.GetLeaderPeerIndex())
		for i, peer := range r.GetFollowerPeerIndexes() {
			add(r.GetRegion().GetId(), r.GetFollowerReplicaIds()[i], peer)
		}
	}
	return created
}

// createTable creates and commits a table and returns its route.
func (m *testMemberServer) createTable(t *testing.T, name string, nodes ...*testDatanode) *metasrvpb.RouteResponse {
	t.Helper()
	resp, err := m.router().Create(timeout(t), createRequest(name))
	if err != nil {
		t.Fatal(err)
	}
	m.commit(t, resp, nodes...)
	return resp
}

func (m *testMemberServer) commit(t *testing.T, resp *metasrvpb.RouteResponse, nodes ...*testDatanode) {
	t.Helper()
	incarnations := map[uint64]uint64{}
	for _, n := range nodes {
		incarnations[n.id] = n.incarnation
	}
	route := resp.GetTableRoutes()[0]
	if _, err := m.catalog().CommitTable(timeout(t), &metasrvpb.CommitTableRequest{
		TableId: route.GetTable().GetId(), CreationToken: route.GetCreationToken(), Replicas: createdBy(resp, incarnations),
	}); err != nil {
		t.Fatal(err)
	}
}

func TestCreateErrors(t *testing.T) {
	tests := []struct {
		name  string
		nodes int
		req   *metasrvpb.CreateRequest
		want  refusal
	}{
		{"no datanode", 0, createRequest("t"), refusal{Code: codes.FailedPrecondition, Reason: "NO_LIVE_DATANODE"}},
		{"too few datanodes", 1, createRequest("t", func(r *metasrvpb.CreateRequest) { r.Replicas = 3 }),
			refusal{Code: codes.FailedPrecondition, Reason: "TOO_FEW_DATANODES"}},
		{"unknown catalog", 1, createRequest("t", func(r *metasrvpb.CreateRequest) { r.TableName.CatalogName = "x" }),
			refusal{Code: codes.NotFound, Reason: "CATALOG_NOT_FOUND"}},
		{"unknown schema", 1, createRequest("t", func(r *metasrvpb.CreateRequest) { r.TableName.SchemaName = "x" }),
			refusal{Code: codes.NotFound, Reason: "SCHEMA_NOT_FOUND"}},
		{"existing table", 1, createRequest("there"), refusal{Code: codes.AlreadyExists, Reason: "TABLE_ALREADY_EXISTS"}},
		{"no name", 1, createRequest(""), invalid("table_name.table_name")},
		{"bad name", 1, createRequest("a/b"), invalid("table_name.table_name")},
		{"rule without schema", 1, createRequest("t", func(r *metasrvpb.CreateRequest) { r.Schema = nil }), invalid("schema")},
		{"rule beside partitions", 1, createRequest("t", func(r *metasrvpb.CreateRequest) {
			r.Partitions = []*metasrvpb.Partition{{}}
		}), invalid("partitions")},
		{"no max value", 1, createRequest("t", func(r *metasrvpb.CreateRequest) {
			r.PartitionRule = rangeRule([]string{"host"}, bound(text("a")))
		}), invalid("partition_rule.range.bounds[0]")},
		{"falling bounds", 1, createRequest("t", func(r *metasrvpb.CreateRequest) {
			r.PartitionRule = rangeRule([]string{"host"}, bound(text("m")), bound(text("a")), bound(maxValue()))
		}), invalid("partition_rule.range.bounds[1]")},
		{"unknown column", 1, createRequest("t", func(r *metasrvpb.CreateRequest) { r.PartitionRule = hashRule([]string{"nope"}, 2) }),
			invalid("partition_rule.hash.columns[0]")},
		{"no partitions", 1, createRequest("t", func(r *metasrvpb.CreateRequest) { r.PartitionRule = hashRule([]string{"host"}, 0) }),
			invalid("partition_rule.hash.partitions")},
		{"request id without session", 1, createRequest("t", func(r *metasrvpb.CreateRequest) {
			r.Header = &metasrvpb.RequestHeader{RequestId: &metasrvpb.RequestId{Sequence: 1}}
		}), invalid("header.request_id.session")},
		{"unknown session", 1, createRequest("t", func(r *metasrvpb.CreateRequest) {
			r.Header = &metasrvpb.RequestHeader{RequestId: &metasrvpb.RequestId{Session: 99, Sequence: 1}}
		}), refusal{Code: codes.FailedPrecondition, Reason: "SESSION_EXPIRED"}},
		{"other cluster", 1, createRequest("t", func(r *metasrvpb.CreateRequest) {
			r.Header = &metasrvpb.RequestHeader{ClusterId: 78}
		}), refusal{Code: codes.FailedPrecondition, Reason: "CLUSTER_MISMATCH"}},
		{"schema of the future", 1, createRequest("t", func(r *metasrvpb.CreateRequest) { addUnknown(r.Schema) }),
			refusal{Code: codes.InvalidArgument, Reason: "INVALID_ARGUMENT"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m := startLeader(t)
			var nodes []*testDatanode
			for id := range tt.nodes {
				nodes = append(nodes, m.addDatanode(t, uint64(id)+1))
			}
			if tt.nodes > 0 {
				m.createTable(t, "there", nodes...)
			}
			before := m.node.View().Revision()
			_, err := m.router().Create(timeout(t), tt.req)
			wantRefusal(t, err, tt.want)
			if after := m.node.View().Revision(); after != before {
				t.Errorf("a refused request changed the state: revision %d, was %d", after, before)
			}
		})
	}
}

func invalid(field string) refusal {
	return refusal{Code: codes.InvalidArgument, Reason: "INVALID_ARGUMENT", Field: field}
}

// addUnknown gives a message a field that no version has.
func addUnknown(m proto.Message) {
	m.ProtoReflect().SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 9999, protowire.VarintType), 1))
}

func TestCreateThenCommitMakesTableVisible(t *testing.T) {
	m := startLeader(t)
	a, b := m.addDatanode(t, 1), m.addDatanode(t, 2)
	created, err := m.router().Create(timeout(t), createRequest("t"))
	if err != nil {
		t.Fatal(err)
	}
	route := created.GetTableRoutes()[0]
	if n := len(route.GetRegionRoutes()); n != 3 || len(created.GetPeers()) != 2 {
		t.Errorf("created %d regions on %d nodes, want 3 on 2", n, len(created.GetPeers()))
	}
	if ms := route.GetCreationDeadlineMs(); ms == 0 || ms > 60_000 {
		t.Errorf("deadline in %d ms, want the default of a minute", ms)
	}
	h := created.GetHeader()
	if h.GetClusterId() != 77 || h.GetMember() != testMember || h.GetRevision() == 0 {
		t.Errorf("header %v is not filled", h)
	}
	_, err = m.router().Route(timeout(t), &metasrvpb.RouteRequest{TableNames: []*metasrvpb.TableName{tableName("t")}})
	wantRefusal(t, err, refusal{Code: codes.NotFound, Reason: "TABLE_NOT_FOUND"})

	m.commit(t, created, a, b)
	resp, err := m.router().Route(timeout(t), &metasrvpb.RouteRequest{
		TableNames: []*metasrvpb.TableName{tableName("t")}, TableIds: []uint64{route.GetTable().GetId()},
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(resp.GetTableRoutes()) != 2 || len(resp.GetPeers()) != 2 {
		t.Fatalf("route of the same table by name and id: %v", resp)
	}
	if diff := cmp.Diff(resp.GetTableRoutes()[0], resp.GetTableRoutes()[1], protocmp.Transform()); diff != "" {
		t.Errorf("by name and by id differ: %s", diff)
	}
	if got := resp.GetTableRoutes()[0].GetTable(); string(got.GetTableSchema()) != "opaque" || got.GetState() != metasrvpb.TableState_TABLE_STATE_PUBLIC {
		t.Errorf("table is %v", got)
	}
}

func TestRetriedCreateReturnsFirstResult(t *testing.T) {
	m := startLeader(t)
	m.addDatanode(t, 1)
	session, err := m.cluster().OpenSession(timeout(t), &metasrvpb.OpenSessionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	req := createRequest("t")
	req.Header = &metasrvpb.RequestHeader{RequestId: &metasrvpb.RequestId{Session: session.GetSession(), Sequence: 1}}
	first, err := m.router().Create(timeout(t), req)
	if err != nil {
		t.Fatal(err)
	}
	again, err := m.router().Create(timeout(t), req)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, again, protocmp.Transform()); diff != "" {
		t.Errorf("the retry was answered differently: %s", diff)
	}
	if _, err := m.cluster().CloseSession(timeout(t), &metasrvpb.CloseSessionRequest{Session: session.GetSession()}); err != nil {
		t.Fatal(err)
	}
	_, err = m.router().Create(timeout(t), req)
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "SESSION_EXPIRED"})
}

// What is refused before the log, for want of datanodes say, must not be the answer to the retry of a creation that
// was executed.
func TestRetriedCreateNeedsNoDatanodes(t *testing.T) {
	m := startLeader(t, func(c *Config) {
		c.HeartbeatInterval, c.SuspectAfter, c.DownAfter = time.Millisecond, 500*time.Millisecond, time.Minute
	})
	d := m.addDatanode(t, 1)
	session, err := m.cluster().OpenSession(timeout(t), &metasrvpb.OpenSessionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	d.beat(t)
	req := createRequest("t")
	req.Header = &metasrvpb.RequestHeader{RequestId: &metasrvpb.RequestId{Session: session.GetSession(), Sequence: 1}}
	first, err := m.router().Create(timeout(t), req)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "a new table is refused for want of datanodes", func() bool {
		_, err := m.router().Create(timeout(t), createRequest("u"))
		return err != nil
	})
	again, err := m.router().Create(timeout(t), req)
	if err != nil {
		t.Fatalf("the retry was refused: %v", err)
	}
	if diff := cmp.Diff(first.GetTableRoutes()[0].GetTable(), again.GetTableRoutes()[0].GetTable(), protocmp.Transform()); diff != "" {
		t.Errorf("the retry was answered differently: %s", diff)
	}
}

func TestCreationIsAbortedAtDeadline(t *testing.T) {
	m := startLeader(t)
	node := m.addDatanode(t, 1)
	created, err := m.router().Create(timeout(t), createRequest("t", func(r *metasrvpb.CreateRequest) { r.CreationTimeoutMs = 5000 }))
	if err != nil {
		t.Fatal(err)
	}
	m.node.Advance(5 * time.Second)
	eventually(t, "the name is free", func() bool {
		resp, err := m.catalog().ListTables(timeout(t), &metasrvpb.ListTablesRequest{AllStates: true})
		return err == nil && len(resp.GetTables()) == 1 && resp.GetTables()[0].GetState() == metasrvpb.TableState_TABLE_STATE_ABORTING
	})
	_, err = m.catalog().CommitTable(timeout(t), &metasrvpb.CommitTableRequest{
		TableId: created.GetTableRoutes()[0].GetTable().GetId(), CreationToken: created.GetTableRoutes()[0].GetCreationToken(),
		Replicas: createdBy(created, map[uint64]uint64{1: node.incarnation}),
	})
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "CREATION_ENDED"})
	if _, err := m.router().Create(timeout(t), createRequest("t")); err != nil {
		t.Errorf("the name is still taken: %v", err)
	}
}

func TestCreationIsAbortedWhenNodeRegistersAnew(t *testing.T) {
	m := startLeader(t)
	m.addDatanode(t, 1)
	if _, err := m.router().Create(timeout(t), createRequest("t")); err != nil {
		t.Fatal(err)
	}
	stream, err := metasrvpb.NewHeartbeatClient(m.conn).Heartbeat(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.Send(&metasrvpb.HeartbeatRequest{
		Peer: &metasrvpb.Peer{Id: 1, Addr: "127.0.0.1:1"}, Node: &metasrvpb.NodeInfo{RegistrationNonce: 4711}, Sequence: 1,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the creation is aborted", func() bool {
		resp, err := m.catalog().ListTables(timeout(t), &metasrvpb.ListTablesRequest{AllStates: true})
		return err == nil && len(resp.GetTables()) == 1 && resp.GetTables()[0].GetState() == metasrvpb.TableState_TABLE_STATE_ABORTING
	})
}

func TestWatch(t *testing.T) {
	m := startLeader(t)
	node := m.addDatanode(t, 1)
	m.createTable(t, "before", node)

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	watch, err := m.router().Watch(ctx, &metasrvpb.WatchRoutesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	begin, err := watch.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if len(begin.GetEvents()) != 1 || begin.GetEvents()[0].GetUpdated().GetTable().GetTableName().GetTableName() != "before" {
		t.Fatalf("watch began with %v", begin)
	}
	if begin.GetRevision() == 0 || begin.GetHeader().GetMember() != testMember {
		t.Errorf("beginning has revision %d, header %v", begin.GetRevision(), begin.GetHeader())
	}
	m.createTable(t, "after", node)
	if _, err := m.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("before")}); err != nil {
		t.Fatal(err)
	}
	// One message or two: what happens while one is under way comes together.
	var events []*metasrvpb.RouteEvent
	for len(events) < 2 {
		resp, err := watch.Recv()
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, resp.GetEvents()...)
		if len(resp.GetEvents()) > 0 && resp.GetEvents()[0].GetUpdated() != nil && len(resp.GetPeers()) != 1 {
			t.Errorf("peers are %v", resp.GetPeers())
		}
	}
	added, removed := events[0], events[1]
	if added.GetUpdated().GetTable().GetTableName().GetTableName() != "after" {
		t.Errorf("want the new table, got %v", added)
	}
	if removed.GetRemoved().GetTableName().GetTableName() != "before" {
		t.Errorf("want the removal, got %v", removed)
	}
	m.node.follow(otherMember()) // a member goes on with what it has
	resumed, err := m.router().Watch(ctx, &metasrvpb.WatchRoutesRequest{StartRevision: removed.GetRevision()})
	if err != nil {
		t.Fatal(err)
	}
	if resp, err := resumed.Recv(); err != nil || resp.GetEvents()[0].GetRemoved() == nil {
		t.Errorf("resumed watch begins with %v, %v", resp, err)
	}
}

func TestWatchOfForgottenRevision(t *testing.T) {
	m := startLeader(t)
	value := make([]byte, 1<<20)
	for range 40 { // more than the feed keeps
		if _, err := m.store().Put(timeout(t), &metasrvpb.PutRequest{Key: []byte("k"), Value: value}); err != nil {
			t.Fatal(err)
		}
	}
	watch, err := m.router().Watch(timeout(t), &metasrvpb.WatchRoutesRequest{StartRevision: 1})
	if err != nil {
		t.Fatal(err)
	}
	_, err = watch.Recv()
	wantRefusal(t, err, refusal{Code: codes.OutOfRange, Reason: "COMPACTED"})
}

// However much a watch has to tell, each of its messages is of a size that any client takes, and each but the last of a
// beginning can be followed by the next.
func TestWatchMessagesAreBounded(t *testing.T) {
	m := startLeader(t)
	node := m.addDatanode(t, 1)
	const tables = 40
	for i := range tables {
		resp, err := m.router().Create(timeout(t), createRequest(fmt.Sprintf("wide_%d", i), func(r *metasrvpb.CreateRequest) {
			r.TableInfo = make([]byte, 100<<10)
		}))
		if err != nil {
			t.Fatal(err)
		}
		m.commit(t, resp, node)
	}
	for _, start := range []uint64{0, 1} {
		watch, err := m.router().Watch(timeout(t), &metasrvpb.WatchRoutesRequest{StartRevision: start})
		if err != nil {
			t.Fatal(err)
		}
		seen, messages := map[string]int{}, 0
		for len(seen) < tables {
			resp, err := watch.Recv()
			if err != nil {
				t.Fatalf("from revision %d, after %d messages: %v", start, messages, err)
			}
			messages++
			if size := proto.Size(resp); size > 2<<20 {
				t.Errorf("a message has %d bytes", size)
			}
			for _, e := range resp.GetEvents() {
				seen[e.GetUpdated().GetTable().GetTableName().GetTableName()]++
			}
		}
		for name, n := range seen {
			if n != 1 {
				t.Errorf("from revision %d: %s came %d times", start, name, n)
			}
		}
		if messages < 3 {
			t.Errorf("from revision %d: all came in %d messages", start, messages)
		}
	}
}
