package catalog

import (
	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// NewApplier returns the applier of the catalog. Commands of catalogs answer with a CatalogRecord, those of schemas
// with a SchemaRecord (of what was dropped, too), those of tables with a TableResult without a route.
func NewApplier() state.Applier {
	return state.NewApplier(
		state.On(storagepb.CommandKind_COMMAND_KIND_CREATE_CATALOG, createCatalog),
		state.On(storagepb.CommandKind_COMMAND_KIND_DROP_CATALOG, dropCatalog),
		state.On(storagepb.CommandKind_COMMAND_KIND_CREATE_SCHEMA, createSchema),
		state.On(storagepb.CommandKind_COMMAND_KIND_DROP_SCHEMA, dropSchema),
		state.On(storagepb.CommandKind_COMMAND_KIND_ALTER_TABLE, alterTable),
		state.On(storagepb.CommandKind_COMMAND_KIND_RENAME_TABLE, renameTable),
	)
}

func createCatalog(tx state.Tx, cmd *storagepb.CreateCatalog) (*storagepb.CatalogRecord, error) {
	record := &storagepb.CatalogRecord{}
	exists, err := read(tx, catalogKey(cmd.Name), record)
	switch {
	case err != nil:
		return nil, err
	case exists && cmd.IfNotExists:
		return record, nil
	case exists:
		return nil, metasrv.ErrCatalogExists.With("catalog %q exists", cmd.Name)
	}
	record = &storagepb.CatalogRecord{Name: cmd.Name, CreatedAtMs: cmd.WallTimeMs}
	tx.Put(catalogKey(cmd.Name), state.Encode(record))
	return record, nil
}

func dropCatalog(tx state.Tx, cmd *storagepb.DropCatalog) (*storagepb.CatalogRecord, error) {
	record, err := GetCatalog(tx, cmd.Name)
	if err != nil {
		return nil, err
	}
	prefix := schemaKey(cmd.Name, "")
	for key := range tx.Ascend(prefix, end(prefix)) {
		return nil, metasrv.ErrCatalogNotEmpty.With("catalog %q holds schema %q", cmd.Name, key[len(prefix):])
	}
	tx.Delete(catalogKey(cmd.Name))
	return record, nil
}

func createSchema(tx state.Tx, cmd *storagepb.CreateSchema) (*storagepb.SchemaRecord, error) {
	if _, err := GetCatalog(tx, cmd.CatalogName); err != nil {
		return nil, err
	}
	key := schemaKey(cmd.CatalogName, cmd.SchemaName)
	record := &storagepb.SchemaRecord{}
	exists, err := read(tx, key, record)
	switch {
	case err != nil:
		return nil, err
	case exists && cmd.IfNotExists:
		return record, nil
	case exists:
		return nil, metasrv.ErrSchemaExists.With("schema %q exists in catalog %q", cmd.SchemaName, cmd.CatalogName)
	}
	record = &storagepb.SchemaRecord{
		CatalogName: cmd.CatalogName,
		SchemaName:  cmd.SchemaName,
		CreatedAtMs: cmd.WallTimeMs,
	}
	tx.Put(key, state.Encode(record))
	return record, nil
}

// dropSchema looks at the names of tables: a table that is ABORTING or DROPPING has none any more, and lives
// on without its schema until its replicas are gone.
func dropSchema(tx state.Tx, cmd *storagepb.DropSchema) (*storagepb.SchemaRecord, error) {
	record, err := GetSchema(tx, cmd.CatalogName, cmd.SchemaName)
	if err != nil {
		return nil, err
	}
	prefix := nameKey(metasrv.TableName{Catalog: cmd.CatalogName, Schema: cmd.SchemaName})
	for key := range tx.Ascend(prefix, end(prefix)) {
		return nil, metasrv.ErrSchemaNotEmpty.With("schema %q of catalog %q holds table %q",
			cmd.SchemaName, cmd.CatalogName, key[len(prefix):])
	}
	tx.Delete(schemaKey(cmd.CatalogName, cmd.SchemaName))
	return record, nil
}

func alterTable(tx state.Tx, cmd *storagepb.AlterTable) (*storagepb.TableResult, error) {
	table, err := GetPublicTable(tx, metasrv.TableID(cmd.TableId))
	if err != nil {
		return nil, err
	}
	if table.SchemaVersion != cmd.ExpectedSchemaVersion {
		return nil, metasrv.ErrSchemaVersionChanged.With("schema of table %q is at version %d, not %d",
			Name(table), table.SchemaVersion, cmd.ExpectedSchemaVersion)
	}
	if err := checkPartitionColumns(table, cmd.Schema); err != nil {
		return nil, err
	}
	table.Schema = cmd.Schema
	table.SchemaVersion++
	put(tx, table)
	return &storagepb.TableResult{Table: table}, nil
}

func renameTable(tx state.Tx, cmd *storagepb.RenameTable) (*storagepb.TableResult, error) {
	table, err := FindTable(tx, NameOf(cmd.Name))
	if err != nil {
		return nil, err
	}
	name := Name(table)
	name.Table = cmd.NewTableName
	if err := checkFree(tx, name); err != nil {
		return nil, err
	}
	tx.Delete(nameKey(Name(table)))
	table.Name.TableName = name.Table
	tx.Put(nameKey(name), encodeID(metasrv.TableID(table.Id)))
	put(tx, table)
	return &storagepb.TableResult{Table: table}, nil
}
