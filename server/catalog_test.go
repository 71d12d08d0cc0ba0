package server

import (
	"testing"

	"google.golang.org/grpc/codes"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestNewClusterHasDefaults(t *testing.T) {
	m := startLeader(t)
	if _, err := m.catalog().GetSchema(timeout(t), &metasrvpb.GetSchemaRequest{CatalogName: "greptime", SchemaName: "public"}); err != nil {
		t.Error(err)
	}
	before := m.node.View().Revision()
	m.node.follow(nil)
	m.lead(t)
	if after := m.node.View().Revision(); after != before {
		t.Errorf("the next term created the defaults anew: revision %d, was %d", after, before)
	}
}

func TestCatalogErrors(t *testing.T) {
	m := startLeader(t)
	node := m.addDatanode(t, 1)
	route := m.createTable(t, "t", node).GetTableRoutes()[0]
	c := m.catalog()
	tests := []struct {
		name string
		call func() error
		want refusal
	}{
		{"catalog exists", func() error {
			_, err := c.CreateCatalog(timeout(t), &metasrvpb.CreateCatalogRequest{CatalogName: "greptime"})
			return err
		}, refusal{Code: codes.AlreadyExists, Reason: "CATALOG_ALREADY_EXISTS"}},
		{"catalog without name", func() error {
			_, err := c.CreateCatalog(timeout(t), &metasrvpb.CreateCatalogRequest{})
			return err
		}, invalid("catalog_name")},
		{"catalog holds a schema", func() error {
			_, err := c.DropCatalog(timeout(t), &metasrvpb.DropCatalogRequest{CatalogName: "greptime"})
			return err
		}, refusal{Code: codes.FailedPrecondition, Reason: "CATALOG_NOT_EMPTY"}},
		{"schema exists", func() error {
			_, err := c.CreateSchema(timeout(t), &metasrvpb.CreateSchemaRequest{CatalogName: "greptime", SchemaName: "public"})
			return err
		}, refusal{Code: codes.AlreadyExists, Reason: "SCHEMA_ALREADY_EXISTS"}},
		{"schema holds a table", func() error {
			_, err := c.DropSchema(timeout(t), &metasrvpb.DropSchemaRequest{CatalogName: "greptime", SchemaName: "public"})
			return err
		}, refusal{Code: codes.FailedPrecondition, Reason: "SCHEMA_NOT_EMPTY"}},
		{"no such table", func() error {
			_, err := c.GetTable(timeout(t), &metasrvpb.GetTableRequest{TableName: tableName("nope")})
			return err
		}, refusal{Code: codes.NotFound, Reason: "TABLE_NOT_FOUND"}},
		{"schema version", func() error {
			_, err := c.AlterTable(timeout(t), &metasrvpb.AlterTableRequest{
				TableId: route.GetTable().GetId(), ExpectedSchemaVersion: 9, Schema: hostSchema(),
			})
			return err
		}, refusal{Code: codes.Aborted, Reason: "SCHEMA_VERSION_CHANGED"}},
		{"partition column lost", func() error {
			_, err := c.AlterTable(timeout(t), &metasrvpb.AlterTableRequest{
				TableId: route.GetTable().GetId(), ExpectedSchemaVersion: 1,
				Schema: &metasrvpb.TableSchema{Columns: hostSchema().GetColumns()[1:]},
			})
			return err
		}, invalid("schema.columns")},
		{"name taken", func() error {
			_, err := c.RenameTable(timeout(t), &metasrvpb.RenameTableRequest{TableName: tableName("t"), NewTableName: "t"})
			return err
		}, refusal{Code: codes.AlreadyExists, Reason: "TABLE_ALREADY_EXISTS"}},
		{"creation is over", func() error {
			_, err := c.AbortTable(timeout(t), &metasrvpb.AbortTableRequest{
				TableId: route.GetTable().GetId(), CreationToken: route.GetCreationToken(),
			})
			return err
		}, refusal{Code: codes.FailedPrecondition, Reason: "CREATION_ENDED"}},
		{"commit of nothing", func() error {
			_, err := c.CommitTable(timeout(t), &metasrvpb.CommitTableRequest{})
			return err
		}, invalid("table_id")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) { wantRefusal(t, tt.call(), tt.want) })
	}
}

func TestAlterAndRename(t *testing.T) {
	m := startLeader(t)
	node := m.addDatanode(t, 1)
	id := m.createTable(t, "t", node).GetTableRoutes()[0].GetTable().GetId()
	schema := hostSchema()
	schema.Columns = append(schema.Columns, &metasrvpb.Column{Name: "cpu", Type: metasrvpb.DataType_DATA_TYPE_FLOAT64})
	altered, err := m.catalog().AlterTable(timeout(t), &metasrvpb.AlterTableRequest{TableId: id, ExpectedSchemaVersion: 1, Schema: schema})
	if err != nil || altered.GetTable().GetSchemaVersion() != 2 {
		t.Fatalf("AlterTable = %v, %v", altered, err)
	}
	if _, err := m.catalog().RenameTable(timeout(t), &metasrvpb.RenameTableRequest{TableName: tableName("t"), NewTableName: "u"}); err != nil {
		t.Fatal(err)
	}
	got, err := m.catalog().GetTable(timeout(t), &metasrvpb.GetTableRequest{TableName: tableName("u")})
	if err != nil || got.GetTable().GetId() != id || len(got.GetTable().GetSchema().GetColumns()) != 3 {
		t.Errorf("GetTable = %v, %v", got, err)
	}
}
