package catalog_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestRefusals(t *testing.T) {
	tests := []struct {
		name    string
		kind    storagepb.CommandKind
		payload proto.Message
		want    error
		names   string // part of the message
	}{
		{"existing catalog", createCatalog, &storagepb.CreateCatalog{Name: "c"}, metasrv.ErrCatalogExists, `"c"`},
		{"unknown catalog", dropCatalog, &storagepb.DropCatalog{Name: "x"}, metasrv.ErrCatalogNotFound, `"x"`},
		{"catalog with a schema", dropCatalog, &storagepb.DropCatalog{Name: "c"}, metasrv.ErrCatalogNotEmpty, `"s"`},
		{"existing schema", createSchema, &storagepb.CreateSchema{CatalogName: "c", SchemaName: "s"}, metasrv.ErrSchemaExists, `"s"`},
		{"schema of unknown catalog", createSchema, &storagepb.CreateSchema{CatalogName: "x", SchemaName: "s"}, metasrv.ErrCatalogNotFound, `"x"`},
		{"schema of unknown catalog if not exists", createSchema, &storagepb.CreateSchema{CatalogName: "x", SchemaName: "s", IfNotExists: true}, metasrv.ErrCatalogNotFound, `"x"`},
		{"unknown schema", dropSchema, &storagepb.DropSchema{CatalogName: "c", SchemaName: "x"}, metasrv.ErrSchemaNotFound, `"x"`},
		{"unknown schema of unknown catalog", dropSchema, &storagepb.DropSchema{CatalogName: "x", SchemaName: "s"}, metasrv.ErrCatalogNotFound, `"x"`},
		{"schema with tables", dropSchema, &storagepb.DropSchema{CatalogName: "c", SchemaName: "s"}, metasrv.ErrSchemaNotEmpty, `"being_created"`},
		{"name of a public table", reserve, createTable("t"), metasrv.ErrTableExists, `"c.s.t"`},
		{"name of a table being created", reserve, createTable("being_created"), metasrv.ErrTableExists, "is being created"},
		{"alter unknown table", alterTable, &storagepb.AlterTable{TableId: 9, Schema: schema()}, metasrv.ErrTableNotFound, "9"},
		{"alter table being created", alterTable, &storagepb.AlterTable{TableId: 1025, ExpectedSchemaVersion: 1, Schema: schema()}, metasrv.ErrTableNotFound, "CREATING"},
		{"alter old version", alterTable, &storagepb.AlterTable{TableId: 1024, ExpectedSchemaVersion: 0, Schema: schema()}, metasrv.ErrSchemaVersionChanged, "version 1"},
		{"alter without partition column", alterTable, &storagepb.AlterTable{TableId: 1024, ExpectedSchemaVersion: 1, Schema: &metasrvpb.TableSchema{}}, metasrv.ErrInvalidArgument, `"host"`},
		{"alter type of partition column", alterTable, &storagepb.AlterTable{TableId: 1024, ExpectedSchemaVersion: 1, Schema: &metasrvpb.TableSchema{
			Columns: []*metasrvpb.Column{{Name: "host", Type: metasrvpb.DataType_DATA_TYPE_INT64}}}}, metasrv.ErrInvalidArgument, "must stay STRING"},
		{"commit with other partition column", publish, &storagepb.CommitTable{TableId: 1025, Schema: &metasrvpb.TableSchema{}}, metasrv.ErrInvalidArgument, `"host"`},
		{"rename unknown table", renameTable, &storagepb.RenameTable{Name: tableName("x"), NewTableName: "y"}, metasrv.ErrTableNotFound, `"c.s.x"`},
		{"rename table being created", renameTable, &storagepb.RenameTable{Name: tableName("being_created"), NewTableName: "y"}, metasrv.ErrTableNotFound, "not public yet"},
		{"rename to itself", renameTable, &storagepb.RenameTable{Name: tableName("t"), NewTableName: "t"}, metasrv.ErrTableExists, `"c.s.t"`},
		{"rename to reserved name", renameTable, &storagepb.RenameTable{Name: tableName("t"), NewTableName: "being_created"}, metasrv.ErrTableExists, "is being created"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			c.public("t")
			c.reserve("being_created")
			if err := c.refuse(tt.want, tt.kind, tt.payload); !strings.Contains(err.Message, tt.names) {
				t.Errorf("message %q doesn't say %s", err.Message, tt.names)
			}
		})
	}
}

func TestIfNotExists(t *testing.T) {
	c := newCluster(t)
	before := c.View().Revision()
	c.must(createCatalog, &storagepb.CreateCatalog{Name: "c", IfNotExists: true, WallTimeMs: 100})
	c.must(createSchema, &storagepb.CreateSchema{CatalogName: "c", SchemaName: "s", IfNotExists: true, WallTimeMs: 100})
	if after := c.View().Revision(); after != before {
		t.Errorf("revision %d, want %d: nothing was to be done", after, before)
	}
	record, err := catalog.GetSchema(c.View(), "c", "s")
	if err != nil || record.CreatedAtMs != 8 {
		t.Errorf("schema = %v, %v, want the first one", record, err)
	}
}

func TestReserve(t *testing.T) {
	c := newCluster(t)
	c.Advance(5 * time.Second)
	got := c.reserve("t")
	want := &storagepb.TableRecord{
		Id: 1024, Name: tableName("t"), State: metasrvpb.TableState_TABLE_STATE_CREATING, Schema: schema(), SchemaVersion: 1,
		PartitionRule: createTable("t").PartitionRule, TableInfo: []byte("info"), CreatedAtMs: 9,
		CreationToken: 99, CreationDeadlineMs: 6000,
	}
	if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	stored, err := catalog.GetTable(c.View(), 1024)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, stored, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if next := catalog.NextTableID(c.View()); next != 1025 {
		t.Errorf("next table id %d, want 1025", next)
	}
}

func TestPublishRaisesSchemaVersionOnlyForAnotherSchema(t *testing.T) {
	c := newCluster(t)
	same := c.table(c.must(publish, &storagepb.CommitTable{TableId: c.reserve("a").Id, Schema: schema()}))
	if same.SchemaVersion != 1 {
		t.Errorf("schema as planned has version %d, want 1", same.SchemaVersion)
	}
	final := schema()
	final.Columns = append(final.Columns, &metasrvpb.Column{Name: "extra", Type: metasrvpb.DataType_DATA_TYPE_BOOL})
	other := c.table(c.must(publish, &storagepb.CommitTable{TableId: c.reserve("b").Id, Schema: final}))
	if other.SchemaVersion != 2 || len(other.Schema.Columns) != 4 {
		t.Errorf("other schema has version %d and %d columns, want 2 and 4", other.SchemaVersion, len(other.Schema.Columns))
	}
}

func TestAlter(t *testing.T) {
	c := newCluster(t)
	id := c.public("t").Id
	changed := schema()
	changed.Columns = changed.Columns[:2]
	got := c.table(c.must(alterTable, &storagepb.AlterTable{TableId: id, ExpectedSchemaVersion: 1, Schema: changed}))
	if got.SchemaVersion != 2 || len(got.Schema.Columns) != 2 {
		t.Errorf("altered table = %v", got)
	}
	c.refuse(metasrv.ErrSchemaVersionChanged, alterTable, &storagepb.AlterTable{TableId: id, ExpectedSchemaVersion: 1, Schema: changed})
}

func TestRenameFreesTheOldName(t *testing.T) {
	c := newCluster(t)
	id := c.public("old").Id
	c.must(renameTable, &storagepb.RenameTable{Name: tableName("old"), NewTableName: "new"})
	found, err := catalog.FindTable(c.View(), named("new"))
	if err != nil || found.Id != id {
		t.Fatalf("new name = %v, %v, want table %d", found, err, id)
	}
	if _, err := catalog.FindTable(c.View(), named("old")); !errors.Is(err, metasrv.ErrTableNotFound) {
		t.Errorf("old name = %v, want %v", err, metasrv.ErrTableNotFound)
	}
	if next := c.public("old"); next.Id == id {
		t.Errorf("id %d was used twice", id)
	}
}

// A retired table has no name, is content of no schema, and is listed for operators until it is removed.
func TestRetiredTable(t *testing.T) {
	c := newCluster(t)
	id := c.reserve("t").Id
	c.must(abort, &storagepb.AbortTable{TableId: id, Reason: "why"})
	c.refuse(metasrv.ErrTableNotFound, renameTable, &storagepb.RenameTable{Name: tableName("t"), NewTableName: "x"})
	again := c.reserve("t")
	if again.Id == id {
		t.Errorf("id %d was used twice", id)
	}
	c.must(abort, &storagepb.AbortTable{TableId: again.Id})
	c.must(dropSchema, &storagepb.DropSchema{CatalogName: "c", SchemaName: "s"})
	c.must(dropCatalog, &storagepb.DropCatalog{Name: "c"})

	all, err := catalog.ListTables(c.View(), catalog.Filter{AllStates: true})
	if err != nil || len(all) != 2 || all[0].Id != id || all[0].Reason != "why" {
		t.Errorf("all tables = %v, %v", all, err)
	}
	c.must(remove, &storagepb.AbortTable{TableId: id})
	if _, err := catalog.GetTable(c.View(), metasrv.TableID(id)); !errors.Is(err, metasrv.ErrTableNotFound) {
		t.Errorf("removed table = %v, want %v", err, metasrv.ErrTableNotFound)
	}
	if got := pending(t, c); !cmp.Equal(got, []uint64{again.Id}) {
		t.Errorf("pending tables = %v, want [%d]", got, again.Id)
	}
}

func TestPendingHoldsTablesThatAreNotPublic(t *testing.T) {
	c := newCluster(t)
	a, b := c.reserve("a").Id, c.reserve("b").Id
	c.must(publish, &storagepb.CommitTable{TableId: a})
	if got := pending(t, c); !cmp.Equal(got, []uint64{b}) {
		t.Errorf("pending tables = %v, want [%d]", got, b)
	}
}

func pending(t *testing.T, c cluster) (ids []uint64) {
	t.Helper()
	for table, err := range catalog.Pending(c.View()) {
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, table.Id)
	}
	return ids
}
