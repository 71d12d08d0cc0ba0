package main

import (
	"slices"
	"strings"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// What a name means that leaves out its catalog or schema.
const (
	defaultCatalog = "greptime"
	defaultSchema  = "public"
)

// parseTableName reads catalog.schema.table, schema.table or table.
func parseTableName(s string) (metasrv.TableName, error) {
	parts := strings.Split(s, ".")
	if len(parts) > 3 {
		return metasrv.TableName{}, usagef("%q is not a table's name: catalog.schema.table, schema.table or table", s)
	}
	full := slices.Concat([]string{defaultCatalog, defaultSchema}[:3-len(parts)], parts)
	name := metasrv.TableName{Catalog: full[0], Schema: full[1], Table: full[2]}
	if err := name.Validate(); err != nil {
		return metasrv.TableName{}, usagef("%q is not a table's name: %v", s, err)
	}
	return name, nil
}

// parseSchemaName reads catalog.schema or schema.
func parseSchemaName(s string) (catalog, schema string, err error) {
	catalog, schema, ok := strings.Cut(s, ".")
	if !ok {
		catalog, schema = defaultCatalog, s
	}
	if err := (metasrv.TableName{Catalog: catalog, Schema: schema, Table: "any"}).Validate(); err != nil {
		return "", "", usagef("%q is not a schema's name: %v", s, err)
	}
	return catalog, schema, nil
}

func toProto(n metasrv.TableName) *metasrvpb.TableName {
	return &metasrvpb.TableName{CatalogName: n.Catalog, SchemaName: n.Schema, TableName: n.Table}
}

func tableName(n *metasrvpb.TableName) string {
	return metasrv.TableName{
		Catalog: n.GetCatalogName(), Schema: n.GetSchemaName(), Table: n.GetTableName(),
	}.String()
}
