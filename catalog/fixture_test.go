package catalog_test

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	createCatalog = storagepb.CommandKind_COMMAND_KIND_CREATE_CATALOG
	dropCatalog   = storagepb.CommandKind_COMMAND_KIND_DROP_CATALOG
	createSchema  = storagepb.CommandKind_COMMAND_KIND_CREATE_SCHEMA
	dropSchema    = storagepb.CommandKind_COMMAND_KIND_DROP_SCHEMA
	alterTable    = storagepb.CommandKind_COMMAND_KIND_ALTER_TABLE
	renameTable   = storagepb.CommandKind_COMMAND_KIND_RENAME_TABLE

	reserve = storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE
	publish = storagepb.CommandKind_COMMAND_KIND_COMMIT_TABLE
	abort   = storagepb.CommandKind_COMMAND_KIND_ABORT_TABLE
	remove  = storagepb.CommandKind_COMMAND_KIND_CONFIRM_DROPPED
)

// lifecycle stands in for package router, which stands on this one: its commands do what router's do to a
// table's record, and nothing else. remove takes an AbortTable.
type lifecycle struct{}

func (lifecycle) Kinds() []storagepb.CommandKind {
	return []storagepb.CommandKind{reserve, publish, abort, remove}
}

func (lifecycle) Apply(tx state.Tx, kind storagepb.CommandKind, payload []byte) (proto.Message, error) {
	switch kind {
	case reserve:
		cmd := &storagepb.CreateTable{}
		if err := state.Decode(payload, cmd); err != nil {
			return nil, err
		}
		table, err := catalog.Reserve(tx, cmd)
		return &storagepb.TableResult{Table: table}, err
	case publish:
		cmd := &storagepb.CommitTable{}
		if err := state.Decode(payload, cmd); err != nil {
			return nil, err
		}
		table, err := catalog.GetTable(tx, metasrv.TableID(cmd.TableId))
		if err != nil {
			return nil, err
		}
		return &storagepb.TableResult{Table: table}, catalog.Publish(tx, table, cmd.Schema)
	}
	cmd := &storagepb.AbortTable{}
	if err := state.Decode(payload, cmd); err != nil {
		return nil, err
	}
	table, err := catalog.GetTable(tx, metasrv.TableID(cmd.TableId))
	if err != nil {
		return nil, err
	}
	if kind == remove {
		catalog.Remove(tx, metasrv.TableID(cmd.TableId))
	} else {
		catalog.Retire(tx, table, metasrvpb.TableState_TABLE_STATE_ABORTING, cmd.Reason)
	}
	return &storagepb.TableResult{Table: table}, nil
}

// cluster is a state machine with the catalog "c" and the schema "s" in it.
type cluster struct {
	*memory.Node
	t *testing.T
}

func newCluster(t *testing.T) cluster {
	t.Helper()
	c := cluster{memory.New(catalog.NewApplier(), lifecycle{}), t}
	c.must(createCatalog, &storagepb.CreateCatalog{Name: "c", WallTimeMs: 7})
	c.must(createSchema, &storagepb.CreateSchema{CatalogName: "c", SchemaName: "s", WallTimeMs: 8})
	return c
}

func (c cluster) propose(kind storagepb.CommandKind, payload proto.Message) (state.Result, error) {
	return c.Propose(c.t.Context(), state.Proposal{Kind: kind, Payload: payload})
}

func (c cluster) must(kind storagepb.CommandKind, payload proto.Message) state.Result {
	c.t.Helper()
	result, err := c.propose(kind, payload)
	if err != nil {
		c.t.Fatalf("%s %v: %v", kind, payload, err)
	}
	return result
}

// refuse expects an error, and that nothing changed.
func (c cluster) refuse(want error, kind storagepb.CommandKind, payload proto.Message) *metasrv.Error {
	c.t.Helper()
	before := c.View().Revision()
	_, err := c.propose(kind, payload)
	if !errors.Is(err, want) {
		c.t.Fatalf("%s %v = %v, want %v", kind, payload, err, want)
	}
	if after := c.View().Revision(); after != before {
		c.t.Errorf("%s %v was refused, but changed the state", kind, payload)
	}
	e, _ := errors.AsType[*metasrv.Error](err)
	return e
}

// reserve adds a table in state CREATING to c.s.
func (c cluster) reserve(table string) *storagepb.TableRecord {
	c.t.Helper()
	return c.table(c.must(reserve, createTable(table)))
}

// public adds a table in state PUBLIC to c.s.
func (c cluster) public(table string) *storagepb.TableRecord {
	c.t.Helper()
	return c.table(c.must(publish, &storagepb.CommitTable{TableId: c.reserve(table).Id}))
}

func (c cluster) table(r state.Result) *storagepb.TableRecord {
	c.t.Helper()
	result := &storagepb.TableResult{}
	if err := state.Decode(r.Payload, result); err != nil {
		c.t.Fatal(err)
	}
	return result.Table
}

func createTable(table string) *storagepb.CreateTable {
	return &storagepb.CreateTable{
		Name:              tableName(table),
		Schema:            schema(),
		PartitionRule:     &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{Hash: &metasrvpb.HashRule{Columns: []string{"host"}, Partitions: 2}}},
		TableInfo:         []byte("info"),
		CreationToken:     99,
		CreationTimeoutMs: 1000,
		WallTimeMs:        9,
	}
}

func tableName(table string) *metasrvpb.TableName {
	return &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: table}
}

func named(table string) metasrv.TableName {
	return metasrv.TableName{Catalog: "c", Schema: "s", Table: table}
}

func schema() *metasrvpb.TableSchema {
	return &metasrvpb.TableSchema{
		Columns: []*metasrvpb.Column{
			{Name: "host", Type: metasrvpb.DataType_DATA_TYPE_STRING},
			{Name: "ts", Type: metasrvpb.DataType_DATA_TYPE_TIMESTAMP},
			{Name: "v", Type: metasrvpb.DataType_DATA_TYPE_FLOAT64, Nullable: true},
		},
		PrimaryKey: []string{"host", "ts"},
		TimeIndex:  "ts",
	}
}
