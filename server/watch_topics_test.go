package server

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func shortCatalogEvent(e *metasrvpb.CatalogEvent) string {
	table := func(t *metasrvpb.Table) string {
		return fmt.Sprintf("%s %s v%d", t.GetTableName().GetTableName(), strings.TrimPrefix(t.GetState().String(), "TABLE_STATE_"), t.GetSchemaVersion())
	}
	switch c := e.GetChange().(type) {
	case *metasrvpb.CatalogEvent_Catalog:
		return "catalog " + c.Catalog.GetName()
	case *metasrvpb.CatalogEvent_Schema:
		return "schema " + c.Schema.GetSchemaName()
	case *metasrvpb.CatalogEvent_Table:
		return "table " + table(c.Table)
	case *metasrvpb.CatalogEvent_CatalogDropped:
		return "-catalog " + c.CatalogDropped.GetName()
	case *metasrvpb.CatalogEvent_SchemaDropped:
		return "-schema " + c.SchemaDropped.GetSchemaName()
	case *metasrvpb.CatalogEvent_TableDropped:
		return "-table " + table(c.TableDropped)
	}
	return "nothing"
}

func TestWatchCatalog(t *testing.T) {
	m := startLeader(t)
	node := m.addDatanode(t, 1)
	m.createTable(t, "before", node)
	watch, err := m.catalog().Watch(timeout(t), &metasrvpb.WatchCatalogRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	var revision uint64
	read := func(n int) {
		t.Helper()
		for len(got) < n {
			resp, err := watch.Recv()
			if err != nil {
				t.Fatalf("after %q: %v", got, err)
			}
			for _, e := range resp.GetEvents() {
				got = append(got, shortCatalogEvent(e))
				if e.GetRevision() < revision {
					t.Errorf("revision %d follows %d", e.GetRevision(), revision)
				}
				revision = e.GetRevision()
			}
		}
	}
	read(3)
	if want := []string{"catalog greptime", "schema public", "table before PUBLIC v1"}; !slices.Equal(got, want) {
		t.Errorf("begins with %q, want %q", got, want)
	}
	got = nil
	if _, err := m.catalog().CreateSchema(timeout(t), &metasrvpb.CreateSchemaRequest{CatalogName: "greptime", SchemaName: "s"}); err != nil {
		t.Fatal(err)
	}
	m.createTable(t, "t", node)
	if _, err := m.catalog().RenameTable(timeout(t), &metasrvpb.RenameTableRequest{TableName: tableName("t"), NewTableName: "u"}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("u")}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.catalog().DropSchema(timeout(t), &metasrvpb.DropSchemaRequest{CatalogName: "greptime", SchemaName: "s"}); err != nil {
		t.Fatal(err)
	}
	node.beat(t) // shows that the replicas are gone
	want := []string{
		"schema s", "table t CREATING v1", "table t PUBLIC v1", "table u PUBLIC v1", "table u DROPPING v1", "-schema s", "-table u DROPPING v1",
	}
	if read(len(want)); !slices.Equal(got, want) {
		t.Errorf("changes %q, want %q", got, want)
	}
}

// A node that registers under another address is told of to those who watch nodes and to those who watch routes.
func TestWatchNodesAndTheirAddresses(t *testing.T) {
	m := startLeader(t)
	node := m.addDatanode(t, 1)
	m.createTable(t, "t", node)
	nodes, err := m.cluster().WatchNodes(timeout(t), &metasrvpb.WatchNodesRequest{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE})
	if err != nil {
		t.Fatal(err)
	}
	frontends, err := m.cluster().WatchNodes(timeout(t), &metasrvpb.WatchNodesRequest{Role: metasrvpb.NodeRole_NODE_ROLE_FRONTEND})
	if err != nil {
		t.Fatal(err)
	}
	routes, err := m.router().Watch(timeout(t), &metasrvpb.WatchRoutesRequest{ChangesOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	begin, err := nodes.Recv()
	if err != nil || len(begin.GetEvents()) != 1 || begin.GetEvents()[0].GetRegistered().GetPeer().GetAddr() != "127.0.0.1:1" {
		t.Fatalf("nodes begin with %v, %v", begin, err)
	}
	if resp, err := frontends.Recv(); err != nil || len(resp.GetEvents()) != 0 || resp.GetRevision() == 0 {
		t.Errorf("frontends begin with %v, %v", resp, err)
	}
	if resp, err := routes.Recv(); err != nil || len(resp.GetEvents()) != 0 {
		t.Errorf("changes of routes begin with %v, %v", resp, err)
	}
	node.sequence++
	if err := node.stream.Send(&metasrvpb.HeartbeatRequest{
		Peer: &metasrvpb.Peer{Id: 1, Addr: "127.0.0.1:2"}, Node: &metasrvpb.NodeInfo{RegistrationNonce: 1}, Sequence: node.sequence, Incarnation: node.incarnation,
	}); err != nil {
		t.Fatal(err)
	}
	changed, err := nodes.Recv()
	if err != nil || changed.GetEvents()[0].GetRegistered().GetPeer().GetAddr() != "127.0.0.1:2" ||
		changed.GetEvents()[0].GetRegistered().GetIncarnation() != node.incarnation {
		t.Errorf("nodes go on with %v, %v", changed, err)
	}
	moved, err := routes.Recv()
	if err != nil || moved.GetEvents()[0].GetMoved().GetAddr() != "127.0.0.1:2" || moved.GetEvents()[0].GetRevision() != changed.GetRevision() {
		t.Errorf("routes go on with %v, %v", moved, err)
	}
}
