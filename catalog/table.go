package catalog

import (
	"math"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Reserve adds a table in state CREATING under a new id; from then on its name is taken. ErrCatalogNotFound
// and ErrSchemaNotFound name what is missing; ErrTableExists: the name is taken.
func Reserve(tx state.Tx, cmd *storagepb.CreateTable) (*storagepb.TableRecord, error) {
	name := NameOf(cmd.Name)
	if _, ok := tx.Get(schemaKey(name.Catalog, name.Schema)); !ok {
		_, err := GetSchema(tx, name.Catalog, name.Schema) // says what is missing
		return nil, err
	}
	if err := checkFree(tx, name); err != nil {
		return nil, err
	}
	id := metasrv.TableID(state.Next(tx, sequenceKey, uint64(metasrv.FirstTableID)))
	if id > math.MaxUint32 {
		return nil, metasrv.ErrOverloaded.With("all table ids were given out")
	}
	table := &storagepb.TableRecord{
		Id:                 uint64(id),
		Name:               cmd.Name,
		State:              metasrvpb.TableState_TABLE_STATE_CREATING,
		Schema:             cmd.Schema,
		SchemaVersion:      1,
		PartitionRule:      cmd.PartitionRule,
		TableInfo:          cmd.TableInfo,
		CreatedAtMs:        cmd.WallTimeMs,
		CreationToken:      cmd.CreationToken,
		CreationDeadlineMs: deadline(tx.Now(), cmd.CreationTimeoutMs),
	}
	tx.Put(nameKey(name), encodeID(id))
	put(tx, table)
	return table, nil
}

// deadline returns now + timeout, at most the end of time.
func deadline(now state.LeaderTime, timeoutMs uint64) uint64 {
	if timeoutMs > math.MaxUint64-uint64(now) {
		return math.MaxUint64
	}
	return uint64(now) + timeoutMs
}

// Publish moves a table from CREATING to PUBLIC. Schema replaces the planned one, nil keeps it; partition
// columns and their types must be the planned ones, else ErrInvalidArgument.
func Publish(tx state.Tx, table *storagepb.TableRecord, schema *metasrvpb.TableSchema) error {
	if schema != nil && !proto.Equal(schema, table.Schema) {
		if err := checkPartitionColumns(table, schema); err != nil {
			return err
		}
		table.Schema = schema
		table.SchemaVersion++
	}
	table.State = metasrvpb.TableState_TABLE_STATE_PUBLIC
	put(tx, table)
	return nil
}

// Retire moves a table to ABORTING or DROPPING and frees its name.
func Retire(tx state.Tx, table *storagepb.TableRecord, to metasrvpb.TableState, reason string) {
	tx.Delete(nameKey(Name(table)))
	table.State = to
	table.Reason = reason
	put(tx, table)
}

// Remove forgets a table that was retired.
func Remove(tx state.Tx, id metasrv.TableID) {
	tx.Delete(tableKey(id))
	tx.Delete(pendingKey(id))
}

// put stores a table and keeps the index of pending tables right.
func put(tx state.Tx, table *storagepb.TableRecord) {
	id := metasrv.TableID(table.Id)
	tx.Put(tableKey(id), state.Encode(table))
	if table.State == metasrvpb.TableState_TABLE_STATE_PUBLIC {
		tx.Delete(pendingKey(id))
		return
	}
	if _, ok := tx.Get(pendingKey(id)); !ok {
		tx.Put(pendingKey(id), encodeID(id))
	}
}

// checkFree returns ErrTableExists where a table holds the name.
func checkFree(v state.View, name metasrv.TableName) error {
	table, err := holder(v, name)
	switch {
	case err != nil:
		return err
	case table == nil:
		return nil
	case table.State == metasrvpb.TableState_TABLE_STATE_CREATING:
		return metasrv.ErrTableExists.With("table %q is being created (id %d)", name, table.Id)
	}
	return metasrv.ErrTableExists.With("table %q exists (id %d)", name, table.Id)
}

// checkPartitionColumns returns ErrInvalidArgument unless schema has the partition columns of the table with
// the types that they have in the table's schema: the routes of its rows depend on them.
func checkPartitionColumns(table *storagepb.TableRecord, schema *metasrvpb.TableSchema) error {
	for _, name := range PartitionColumns(table.PartitionRule) {
		planned, final := findColumn(table.Schema, name), findColumn(schema, name)
		switch {
		case final == nil:
			return metasrv.InvalidArgument("schema.columns", "partition column %q of table %q is missing", name, Name(table))
		case final.Type != planned.GetType():
			return metasrv.InvalidArgument("schema.columns", "partition column %q of table %q is %s, must stay %s",
				name, Name(table), TypeName(final.Type), TypeName(planned.GetType()))
		}
	}
	return nil
}

// PartitionColumns returns the names of the columns that a rule partitions by.
func PartitionColumns(rule *metasrvpb.PartitionRule) []string {
	switch {
	case rule.GetRange() != nil:
		return rule.GetRange().Columns
	case rule.GetHash() != nil:
		return rule.GetHash().Columns
	}
	return nil
}

func findColumn(schema *metasrvpb.TableSchema, name string) *metasrvpb.Column {
	for _, column := range schema.GetColumns() {
		if column.Name == name {
			return column
		}
	}
	return nil
}

// holdsName reports whether a table in this state keeps others from taking its name.
func holdsName(s metasrvpb.TableState) bool {
	return s == metasrvpb.TableState_TABLE_STATE_CREATING || s == metasrvpb.TableState_TABLE_STATE_PUBLIC
}
