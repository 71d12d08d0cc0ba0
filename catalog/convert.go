package catalog

import (
	"strings"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Name returns the name that a table has, or had before it was retired.
func Name(table *storagepb.TableRecord) metasrv.TableName { return NameOf(table.Name) }

// NameOf returns a table name of the API; nil gives empty parts.
func NameOf(name *metasrvpb.TableName) metasrv.TableName {
	return metasrv.TableName{Catalog: name.GetCatalogName(), Schema: name.GetSchemaName(), Table: name.GetTableName()}
}

// ToCatalogInfo returns a catalog as the API shows it.
func ToCatalogInfo(r *storagepb.CatalogRecord) *metasrvpb.CatalogInfo {
	return &metasrvpb.CatalogInfo{Name: r.Name, CreatedAtMs: r.CreatedAtMs}
}

// ToSchemaInfo returns a schema as the API shows it.
func ToSchemaInfo(r *storagepb.SchemaRecord) *metasrvpb.SchemaInfo {
	return &metasrvpb.SchemaInfo{CatalogName: r.CatalogName, SchemaName: r.SchemaName, CreatedAtMs: r.CreatedAtMs}
}

// ToTable returns a table as the API shows it. It shares the record's parts.
func ToTable(r *storagepb.TableRecord) *metasrvpb.Table {
	return &metasrvpb.Table{
		Id:            r.Id,
		TableName:     r.Name,
		TableSchema:   r.TableInfo,
		Schema:        r.Schema,
		SchemaVersion: r.SchemaVersion,
		PartitionRule: r.PartitionRule,
		State:         r.State,
		CreatedAtMs:   r.CreatedAtMs,
	}
}

// StateName returns a table's state as people read it: CREATING.
func StateName(s metasrvpb.TableState) string { return strings.TrimPrefix(s.String(), "TABLE_STATE_") }

// TypeName returns a column's type as people read it: INT64.
func TypeName(t metasrvpb.DataType) string { return strings.TrimPrefix(t.String(), "DATA_TYPE_") }
