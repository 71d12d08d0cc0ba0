package engine

import (
	"io"
	"slices"
	"strings"

	"github.com/dolthub/go-mysql-server/sql"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
)

// optionComment is the option of a table's schema that holds the comment of CREATE TABLE.
const optionComment = "comment"

// table is a table with the columns and conditions that a query wants of it.
type table struct {
	store Store
	t     *cluster.Table
	// columns and schema are the wanted columns, as stored and as SQL has them.
	columns    []*metasrvpb.Column
	schema     sql.Schema
	projected  bool
	conditions []cluster.Condition
}

var (
	_ sql.ProjectedTable   = (*table)(nil)
	_ sql.PrimaryKeyTable  = (*table)(nil)
	_ sql.InsertableTable  = (*table)(nil)
	_ sql.ReplaceableTable = (*table)(nil)
	_ sql.CommentedTable   = (*table)(nil)
	_ sql.Databaseable     = (*table)(nil)
)

func newTable(store Store, t *cluster.Table) *table {
	columns := t.Schema.GetColumns()
	return &table{store: store, t: t, columns: columns, schema: sqlSchema(t, columns)}
}

func sqlSchema(t *cluster.Table, columns []*metasrvpb.Column) sql.Schema {
	schema := make(sql.Schema, len(columns))
	for i, c := range columns {
		schema[i] = &sql.Column{
			Name:           c.GetName(),
			Type:           column.ToSQL(c),
			Nullable:       c.GetNullable(),
			Source:         t.Name.Table,
			DatabaseSource: t.Name.Schema,
			PrimaryKey:     slices.Contains(t.Schema.GetPrimaryKey(), c.GetName()),
			Comment:        c.GetComment(),
		}
	}
	return schema
}

// Name implements sql.Table.
func (t *table) Name() string { return t.t.Name.Table }

// String implements sql.Table.
func (t *table) String() string { return t.Name() }

// Database implements sql.Databaseable.
func (t *table) Database() string { return t.t.Name.Schema }

// Schema implements sql.Table.
func (t *table) Schema() sql.Schema { return t.schema }

// Collation implements sql.Table.
func (t *table) Collation() sql.CollationID { return column.Collation }

// Comment implements sql.CommentedTable.
func (t *table) Comment() string { return t.t.Schema.GetOptions()[optionComment] }

// PrimaryKeySchema implements sql.PrimaryKeyTable.
func (t *table) PrimaryKeySchema() sql.PrimaryKeySchema {
	all := sqlSchema(t.t, t.t.Schema.GetColumns())
	var ordinals []int
	for _, k := range t.t.Schema.GetPrimaryKey() {
		if _, i := t.t.Column(k); i >= 0 {
			ordinals = append(ordinals, i)
		}
	}
	return sql.NewPrimaryKeySchema(all, ordinals...)
}

// WithProjections implements sql.ProjectedTable.
func (t *table) WithProjections(names []string) sql.Table {
	p := *t
	p.projected = true
	p.columns = make([]*metasrvpb.Column, 0, len(names))
	for _, n := range names {
		if c, i := t.t.Column(n); i >= 0 {
			p.columns = append(p.columns, c)
		}
	}
	p.schema = sqlSchema(t.t, p.columns)
	return &p
}

// Projections implements sql.ProjectedTable.
func (t *table) Projections() []string {
	if !t.projected {
		return nil
	}
	names := make([]string, len(t.columns))
	for i, c := range t.columns {
		names[i] = c.GetName()
	}
	return names
}

// withConditions returns the table restricted to rows for which the conditions hold.
func (t *table) withConditions(conditions []cluster.Condition) *table {
	p := *t
	p.conditions = conditions
	return &p
}

// whole is the one partition that the engine sees: the store reads the regions in parallel.
type whole struct{}

// Key implements sql.Partition.
func (whole) Key() []byte { return []byte("whole") }

// Partitions implements sql.Table.
func (t *table) Partitions(*sql.Context) (sql.PartitionIter, error) {
	return sql.PartitionsToPartitionIter(whole{}), nil
}

// PartitionRows implements sql.Table.
func (t *table) PartitionRows(ctx *sql.Context, _ sql.Partition) (sql.RowIter, error) {
	rows, err := t.store.Scan(ctx, t.t, cluster.Query{Columns: t.columns, Conditions: t.conditions})
	if err != nil {
		return nil, toMySQL(err)
	}
	return &rowIter{rows: rows, schema: t.schema}, nil
}

// rowIter turns stored rows into rows of the engine.
type rowIter struct {
	rows   cluster.RowIter
	schema sql.Schema
}

// Next implements sql.RowIter.
func (i *rowIter) Next(*sql.Context) (sql.Row, error) {
	stored, err := i.rows.Next()
	if err == io.EOF { //nolint:errorlint // io.EOF is never wrapped here
		return nil, io.EOF
	}
	if err != nil {
		return nil, toMySQL(err)
	}
	row := make(sql.Row, len(stored))
	for j, v := range stored {
		if row[j], err = column.Decode(i.schema[j].Type, v); err != nil {
			return nil, sqlError(erDataOutOfRange, "22003", "column %s: %s", i.schema[j].Name, err)
		}
	}
	return row, nil
}

// Close implements sql.RowIter.
func (i *rowIter) Close(*sql.Context) error {
	i.rows.Close()
	return nil
}

// column returns a column as stored and its MySQL type.
func (t *table) column(name string) (*metasrvpb.Column, sql.Type, bool) {
	c, i := t.t.Column(name)
	if i < 0 {
		return nil, nil, false
	}
	for _, s := range t.schema {
		if strings.EqualFold(s.Name, name) {
			return c, s.Type, true
		}
	}
	return c, column.ToSQL(c), true
}
