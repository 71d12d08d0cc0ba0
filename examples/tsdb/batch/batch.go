// Package batch makes and reads row batches: rows that travel column by column.
//
// A value is one of bool, int64, uint64, float64, string, []byte, or, in a TIMESTAMP column, int64 nanoseconds
// since 1970-01-01 UTC; nil is NULL.
package batch

import (
	"math"
	"slices"

	"github.com/metasrv/metasrv"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Builder collects rows into batches of the same columns. Use New.
type Builder struct {
	columns []*metasrvpb.Column
	batch   *tsdbpb.RowBatch
	bytes   int
}

// New returns an empty builder for rows of the given columns, in that order.
func New(columns []*metasrvpb.Column) *Builder {
	b := &Builder{columns: columns}
	b.reset()
	return b
}

func (b *Builder) reset() {
	b.bytes = 0
	b.batch = &tsdbpb.RowBatch{Columns: make([]*tsdbpb.ColumnValues, len(b.columns))}
	for i, c := range b.columns {
		b.batch.Columns[i] = &tsdbpb.ColumnValues{Name: c.GetName(), Type: c.GetType()}
	}
}

// Len returns the number of rows collected.
func (b *Builder) Len() int { return int(b.batch.GetRowCount()) }

// Bytes returns about how many bytes the rows collected take.
func (b *Builder) Bytes() int { return b.bytes }

// Append adds a row with one value a column. A value of another type than its column's is an
// INVALID_ARGUMENT that names the column, and the row is not added.
func (b *Builder) Append(values []any) error {
	if len(values) != len(b.columns) {
		return metasrv.InvalidArgument("rows", "a row has %d values for %d columns", len(values), len(b.columns))
	}
	for i, v := range values {
		if !fits(b.columns[i].GetType(), v) {
			return metasrv.InvalidArgument("rows", "column %q is %s, not %T",
				b.columns[i].GetName(), b.columns[i].GetType(), v)
		}
	}
	row := b.Len()
	for i, v := range values {
		b.bytes += add(b.batch.Columns[i], row, v)
	}
	b.batch.RowCount++
	return nil
}

// Take returns the rows collected so far and empties the builder.
func (b *Builder) Take() *tsdbpb.RowBatch {
	out := b.batch
	b.reset()
	return out
}

func fits(t metasrvpb.DataType, v any) bool {
	ok := v == nil
	switch t {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		_, is := v.(bool)
		return ok || is
	case metasrvpb.DataType_DATA_TYPE_INT64, metasrvpb.DataType_DATA_TYPE_TIMESTAMP:
		_, is := v.(int64)
		return ok || is
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		_, is := v.(uint64)
		return ok || is
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		_, is := v.(float64)
		return ok || is
	case metasrvpb.DataType_DATA_TYPE_STRING:
		_, is := v.(string)
		return ok || is
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		_, is := v.([]byte)
		return ok || is
	}
	return false
}

// add appends a value that fits, or the zero value and its null bit, and returns its size in bytes.
func add(c *tsdbpb.ColumnValues, row int, v any) int {
	if v == nil {
		c.Nulls = append(c.Nulls, make([]byte, max(0, row/8+1-len(c.Nulls)))...)
		c.Nulls[row/8] |= 1 << (row % 8)
	}
	size := 8
	switch c.GetType() {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		x, _ := v.(bool)
		c.Bools, size = append(c.Bools, x), 1
	case metasrvpb.DataType_DATA_TYPE_INT64:
		x, _ := v.(int64)
		c.Int64S = append(c.Int64S, x)
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		x, _ := v.(uint64)
		c.Uint64S = append(c.Uint64S, x)
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		x, _ := v.(float64)
		c.Float64S = append(c.Float64S, x)
	case metasrvpb.DataType_DATA_TYPE_STRING:
		x, _ := v.(string)
		c.Strings, size = append(c.Strings, x), len(x)+2
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		x, _ := v.([]byte)
		c.ByteStrings, size = append(c.ByteStrings, x), len(x)+2
	case metasrvpb.DataType_DATA_TYPE_TIMESTAMP:
		x, _ := v.(int64)
		c.Timestamps = append(c.Timestamps, x)
	}
	return size
}

// IsNull reports whether a row of a column is NULL.
func IsNull(c *tsdbpb.ColumnValues, row int) bool {
	return row/8 < len(c.GetNulls()) && c.GetNulls()[row/8]&(1<<(row%8)) != 0
}

// Value returns the value in a row of a column, nil for NULL. The column must have passed Check, or come from
// a Builder.
func Value(c *tsdbpb.ColumnValues, row int) any {
	if IsNull(c, row) {
		return nil
	}
	switch c.GetType() {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		return c.GetBools()[row]
	case metasrvpb.DataType_DATA_TYPE_INT64:
		return c.GetInt64S()[row]
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		return c.GetUint64S()[row]
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		return c.GetFloat64S()[row]
	case metasrvpb.DataType_DATA_TYPE_STRING:
		return c.GetStrings()[row]
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		return c.GetByteStrings()[row]
	case metasrvpb.DataType_DATA_TYPE_TIMESTAMP:
		return c.GetTimestamps()[row]
	}
	return nil
}

// CheckShape returns INVALID_ARGUMENT unless every column has a known type and as many values as the batch has
// rows, so that Value can't fail.
func CheckShape(b *tsdbpb.RowBatch) error {
	rows := int(b.GetRowCount())
	for _, c := range b.GetColumns() {
		n, known := length(c)
		if !known {
			return metasrv.InvalidArgument("rows", "column %q has the unknown type %s", c.GetName(), c.GetType())
		}
		if n != rows {
			return metasrv.InvalidArgument("rows", "column %q has %d values of type %s for %d rows",
				c.GetName(), n, c.GetType(), rows)
		}
	}
	return nil
}

// Check returns INVALID_ARGUMENT, naming the column, unless the batch can be stored in a table of the given
// schema: known columns of the right types, each once, no NULL and no NaN where there can't be one.
func Check(b *tsdbpb.RowBatch, schema *metasrvpb.TableSchema) error {
	if b.GetRowCount() == 0 {
		return metasrv.InvalidArgument("rows", "is empty")
	}
	if err := CheckShape(b); err != nil {
		return err
	}
	given := make(map[string]*tsdbpb.ColumnValues, len(b.GetColumns()))
	for _, c := range b.GetColumns() {
		if given[c.GetName()] != nil {
			return metasrv.InvalidArgument("rows", "column %q is given twice", c.GetName())
		}
		given[c.GetName()] = c
	}
	for _, column := range schema.GetColumns() {
		if err := checkColumn(given[column.GetName()], column, schema); err != nil {
			return err
		}
		delete(given, column.GetName())
	}
	for name := range given {
		return metasrv.InvalidArgument("rows", "the table has no column %q", name)
	}
	return nil
}

func checkColumn(c *tsdbpb.ColumnValues, column *metasrvpb.Column, schema *metasrvpb.TableSchema) error {
	name := column.GetName()
	needed := Needed(schema, column)
	switch {
	case c == nil && needed:
		return metasrv.InvalidArgument("rows", "column %q is missing and can't be NULL", name)
	case c == nil:
		return nil
	case c.GetType() != column.GetType():
		return metasrv.InvalidArgument("rows", "column %q is %s, not %s", name, column.GetType(), c.GetType())
	}
	if needed {
		for _, bits := range c.GetNulls() {
			if bits != 0 {
				return metasrv.InvalidArgument("rows", "column %q can't be NULL", name)
			}
		}
	}
	if slices.ContainsFunc(c.GetFloat64S(), math.IsNaN) {
		return metasrv.InvalidArgument("rows", "column %q contains NaN", name)
	}
	return nil
}

// Needed reports whether a column must have a value in every row: it isn't nullable, or belongs to the primary
// key.
func Needed(schema *metasrvpb.TableSchema, column *metasrvpb.Column) bool {
	return !column.GetNullable() || slices.Contains(schema.GetPrimaryKey(), column.GetName())
}

func length(c *tsdbpb.ColumnValues) (n int, known bool) {
	switch c.GetType() {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		return len(c.GetBools()), true
	case metasrvpb.DataType_DATA_TYPE_INT64:
		return len(c.GetInt64S()), true
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		return len(c.GetUint64S()), true
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		return len(c.GetFloat64S()), true
	case metasrvpb.DataType_DATA_TYPE_STRING:
		return len(c.GetStrings()), true
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		return len(c.GetByteStrings()), true
	case metasrvpb.DataType_DATA_TYPE_TIMESTAMP:
		return len(c.GetTimestamps()), true
	}
	return 0, false
}

// Literal returns the Go value of a literal of the given type, or INVALID_ARGUMENT where it has another type.
func Literal(v *metasrvpb.Value, t metasrvpb.DataType) (any, error) {
	var got any
	switch x := v.GetKind().(type) {
	case *metasrvpb.Value_BoolValue:
		got = x.BoolValue
	case *metasrvpb.Value_Int64Value:
		if t != metasrvpb.DataType_DATA_TYPE_TIMESTAMP {
			got = x.Int64Value
		}
	case *metasrvpb.Value_Uint64Value:
		got = x.Uint64Value
	case *metasrvpb.Value_Float64Value:
		if !math.IsNaN(x.Float64Value) {
			got = x.Float64Value
		}
	case *metasrvpb.Value_StringValue:
		got = x.StringValue
	case *metasrvpb.Value_BytesValue:
		got = append([]byte{}, x.BytesValue...)
	case *metasrvpb.Value_TimestampValue:
		if t == metasrvpb.DataType_DATA_TYPE_TIMESTAMP {
			got = x.TimestampValue
		}
	}
	if got == nil || !fits(t, got) {
		return nil, metasrv.InvalidArgument("filters", "%v is no literal of type %s", v, t)
	}
	return got, nil
}
