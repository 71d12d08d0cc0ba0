package store

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// maxColumns keeps a row within SQLite's limits.
const maxColumns = 1000

// table maps a schema to SQLite. Column i is named "ci" there: names of users never become part of SQL, and
// names that differ in case only, which SQLite would take for the same, stay apart.
type table struct {
	schema *metasrvpb.TableSchema
	index  map[string]int
}

// newTable returns INVALID_ARGUMENT for a schema that can't be stored.
func newTable(schema *metasrvpb.TableSchema) (*table, error) {
	t := &table{schema: schema, index: map[string]int{}}
	if n := len(schema.GetColumns()); n == 0 || n > maxColumns {
		return nil, metasrv.InvalidArgument("schema", "has %d columns, 1 to %d are allowed", n, maxColumns)
	}
	for i, c := range schema.GetColumns() {
		name := c.GetName()
		if name == "" {
			return nil, metasrv.InvalidArgument("schema", "column %d has no name", i)
		}
		if _, twice := t.index[name]; twice {
			return nil, metasrv.InvalidArgument("schema", "column %q is given twice", name)
		}
		if _, ok := sqlTypes[c.GetType()]; !ok {
			return nil, metasrv.InvalidArgument("schema", "column %q has the unknown type %s", name, c.GetType())
		}
		t.index[name] = i
	}
	key := schema.GetPrimaryKey()
	for i, name := range key {
		if _, ok := t.index[name]; !ok || slices.Contains(key[:i], name) {
			return nil, metasrv.InvalidArgument("schema", "primary key column %q is unknown or given twice", name)
		}
	}
	if _, ok := t.index[schema.GetTimeIndex()]; !ok && schema.GetTimeIndex() != "" {
		return nil, metasrv.InvalidArgument("schema", "time index column %q is unknown", schema.GetTimeIndex())
	}
	return t, nil
}

var sqlTypes = map[metasrvpb.DataType]string{
	metasrvpb.DataType_DATA_TYPE_BOOL:      "INTEGER",
	metasrvpb.DataType_DATA_TYPE_INT64:     "INTEGER",
	metasrvpb.DataType_DATA_TYPE_UINT64:    "INTEGER",
	metasrvpb.DataType_DATA_TYPE_FLOAT64:   "REAL",
	metasrvpb.DataType_DATA_TYPE_STRING:    "TEXT",
	metasrvpb.DataType_DATA_TYPE_BYTES:     "BLOB",
	metasrvpb.DataType_DATA_TYPE_TIMESTAMP: "INTEGER",
}

func sqlName(column int) string { return fmt.Sprintf("c%d", column) }

// createSQL returns the statements that make the table of rows. Rows with a primary key are stored in its
// order; a time index that doesn't lead that order gets its own.
func (t *table) createSQL() []string {
	var columns []string
	for i, c := range t.schema.GetColumns() {
		definition := sqlName(i) + " " + sqlTypes[c.GetType()]
		if batch.Needed(t.schema, c) {
			definition += " NOT NULL"
		}
		columns = append(columns, definition)
	}
	options := "STRICT"
	key := t.key()
	if len(key) > 0 {
		columns = append(columns, "PRIMARY KEY ("+strings.Join(key, ", ")+")")
		options += ", WITHOUT ROWID"
	}
	statements := []string{fmt.Sprintf("CREATE TABLE data (%s) %s", strings.Join(columns, ", "), options)}
	if t.keyed() {
		statements = append(statements, t.undoSQL())
	}
	if name := t.schema.GetTimeIndex(); name != "" && !slices.Equal(key[:min(1, len(key))], []string{sqlName(t.index[name])}) {
		statements = append(statements, "CREATE INDEX data_time ON data ("+sqlName(t.index[name])+")")
	}
	return statements
}

// replaceRows and keepRows say what becomes of a stored row with the same primary key.
const (
	replaceRows = "INSERT OR REPLACE"
	keepRows    = "INSERT OR IGNORE"
)

// insertSQL returns the statement that stores the given number of rows, all columns each.
func (t *table) insertSQL(verb string, rows int) string {
	row := "(" + strings.TrimSuffix(strings.Repeat("?,", len(t.schema.GetColumns())), ",") + ")"
	return verb + " INTO data VALUES " + strings.TrimSuffix(strings.Repeat(row+",", rows), ",")
}

// order returns the batch's columns in the order of the schema, nil for those left out.
func (t *table) order(rows *tsdbpb.RowBatch) []*tsdbpb.ColumnValues {
	columns := make([]*tsdbpb.ColumnValues, len(t.schema.GetColumns()))
	for _, c := range rows.GetColumns() {
		columns[t.index[c.GetName()]] = c
	}
	return columns
}

// toSQL returns a value as it is stored. uint64 is shifted into the range of int64, which keeps its order.
func toSQL(v any) any {
	switch x := v.(type) {
	case bool:
		if x {
			return int64(1)
		}
		return int64(0)
	case uint64:
		return int64(x ^ 1<<63) //nolint:gosec // the shift is meant
	case []byte:
		if x == nil {
			return []byte{}
		}
	}
	return v
}

// fromSQL is the reverse of toSQL for a column's type.
func fromSQL(v any, t metasrvpb.DataType) (any, error) {
	if v == nil {
		return nil, nil
	}
	switch t {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		if x, ok := v.(int64); ok {
			return x != 0, nil
		}
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		if x, ok := v.(int64); ok {
			return uint64(x) ^ 1<<63, nil //nolint:gosec // the shift is meant
		}
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		if x, ok := v.([]byte); ok && x == nil {
			return []byte{}, nil
		}
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		if x, ok := v.(float64); ok && math.IsNaN(x) {
			return nil, fmt.Errorf("%w: NaN is stored", ErrDamaged)
		}
	}
	return v, nil
}
