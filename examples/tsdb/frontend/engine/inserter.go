package engine

import (
	"fmt"

	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/vitess/go/mysql"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
)

// maxStatementBytes bounds the rows that one statement may collect before it writes.
const maxStatementBytes = 256 << 20

// Inserter implements sql.InsertableTable.
func (t *table) Inserter(*sql.Context) sql.RowInserter { return t.newInserter(false) }

// Replacer implements sql.ReplaceableTable.
func (t *table) Replacer(*sql.Context) sql.RowReplacer { return t.newInserter(true) }

func (t *table) newInserter(replace bool) *inserter {
	in := &inserter{table: t, replace: replace}
	for _, k := range t.t.Schema.GetPrimaryKey() {
		if _, i := t.t.Column(k); i >= 0 {
			in.key = append(in.key, i)
		}
	}
	return in
}

// inserter collects the rows of a statement and writes them when it is complete. Rows replace stored ones with
// the same primary key. Two rows of one INSERT with the same primary key are an error; of REPLACE, the last stays.
type inserter struct {
	table   *table
	replace bool
	// key holds the places of the primary key's columns.
	key  []int
	keys map[string]int
	rows [][]any
	size int
}

// StatementBegin implements sql.EditOpenerCloser.
func (in *inserter) StatementBegin(*sql.Context) { in.reset() }

// DiscardChanges implements sql.EditOpenerCloser.
func (in *inserter) DiscardChanges(*sql.Context, error) error {
	in.reset()
	return nil
}

// StatementComplete implements sql.EditOpenerCloser.
func (in *inserter) StatementComplete(ctx *sql.Context) error {
	rows := in.rows
	in.reset()
	if len(rows) == 0 {
		return nil
	}
	return toMySQL(in.table.store.Write(ctx, cluster.Insert{Table: in.table.t, Rows: rows}))
}

func (in *inserter) reset() { in.keys, in.rows, in.size = map[string]int{}, nil, 0 }

// Insert implements sql.RowInserter.
func (in *inserter) Insert(ctx *sql.Context, row sql.Row) error {
	stored := make([]any, len(row))
	for i, c := range in.table.columns {
		v, err := column.Encode(ctx, c.GetType(), row[i])
		if err != nil {
			return sqlError(erDataOutOfRange, "22003", "column %s: %s", c.GetName(), err)
		}
		stored[i] = v
		in.size += sizeOf(v)
	}
	if in.size > maxStatementBytes {
		return sqlError(mysql.ERNetPacketTooLarge, "08S01",
			"the statement writes more than %d bytes: split it", maxStatementBytes)
	}
	return in.add(stored)
}

func (in *inserter) add(row []any) error {
	if len(in.key) == 0 {
		in.rows = append(in.rows, row)
		return nil
	}
	key := keyOf(row, in.key)
	at, twice := in.keys[key]
	switch {
	case twice && !in.replace:
		return sqlError(mysql.ERDupEntry, "23000",
			"two rows of the statement have the same primary key, the second is row %d", len(in.rows)+1)
	case twice:
		in.rows[at] = row
	default:
		in.keys[key] = len(in.rows)
		in.rows = append(in.rows, row)
	}
	return nil
}

func keyOf(row []any, key []int) string {
	var b []byte
	for _, i := range key {
		s := fmt.Sprint(row[i])
		b = fmt.Appendf(b, "%d:%s", len(s), s)
	}
	return string(b)
}

func sizeOf(v any) int {
	const word = 16
	switch s := v.(type) {
	case string:
		return word + len(s)
	case []byte:
		return word + len(s)
	}
	return word
}

// Delete implements sql.RowDeleter. It is never called: Insert finds no duplicates of stored rows.
func (in *inserter) Delete(*sql.Context, sql.Row) error {
	return notSupported("DELETE is not supported")
}

// Close implements sql.Closer.
func (in *inserter) Close(*sql.Context) error { return nil }
