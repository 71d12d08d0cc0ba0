package column

import (
	"fmt"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Batch returns rows of stored values as a message: rows[i][j] belongs to columns[j].
func Batch(columns []*metasrvpb.Column, rows [][]any) (*tsdbpb.RowBatch, error) {
	b := &tsdbpb.RowBatch{RowCount: uint32(len(rows)), Columns: make([]*tsdbpb.ColumnValues, len(columns))}
	for j, c := range columns {
		values := &tsdbpb.ColumnValues{Name: c.GetName(), Type: c.GetType()}
		for i, row := range rows {
			if row[j] == nil {
				setNull(values, i, len(rows))
			}
			if err := appendValue(values, row[j]); err != nil {
				return nil, fmt.Errorf("column %s: %w", c.GetName(), err)
			}
		}
		b.Columns[j] = values
	}
	return b, nil
}

func setNull(c *tsdbpb.ColumnValues, i, rows int) {
	if c.Nulls == nil {
		c.Nulls = make([]byte, (rows+7)/8)
	}
	c.Nulls[i/8] |= 1 << (i % 8)
}

func isNullAt(c *tsdbpb.ColumnValues, i int) bool {
	return i/8 < len(c.Nulls) && c.Nulls[i/8]&(1<<(i%8)) != 0
}

func appendValue(c *tsdbpb.ColumnValues, v any) error {
	var ok bool
	switch c.Type {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		c.Bools, ok = appendAs(c.Bools, v)
	case metasrvpb.DataType_DATA_TYPE_INT64:
		c.Int64S, ok = appendAs(c.Int64S, v)
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		c.Uint64S, ok = appendAs(c.Uint64S, v)
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		c.Float64S, ok = appendAs(c.Float64S, v)
	case metasrvpb.DataType_DATA_TYPE_STRING:
		c.Strings, ok = appendAs(c.Strings, v)
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		c.ByteStrings, ok = appendAs(c.ByteStrings, v)
	case metasrvpb.DataType_DATA_TYPE_TIMESTAMP:
		var ts Timestamp
		if ts, ok = v.(Timestamp); ok || v == nil {
			c.Timestamps, ok = append(c.Timestamps, int64(ts)), true
		}
	}
	if !ok {
		return fmt.Errorf("a value of type %T is no %s", v, c.Type)
	}
	return nil
}

// appendAs appends v, or any value where v is NULL.
func appendAs[T any](list []T, v any) ([]T, bool) {
	t, ok := v.(T)
	if !ok && v != nil {
		return list, false
	}
	return append(list, t), true
}

// Rows checks that a batch has the given columns, and returns a function that reads row i of it as stored
// values.
func Rows(b *tsdbpb.RowBatch, columns []*metasrvpb.Column) (func(i int) []any, error) {
	if len(b.GetColumns()) != len(columns) {
		return nil, fmt.Errorf("answer has %d columns, %d were asked for", len(b.GetColumns()), len(columns))
	}
	n := int(b.GetRowCount())
	for j, c := range b.GetColumns() {
		if c.GetName() != columns[j].GetName() || c.GetType() != columns[j].GetType() {
			return nil, fmt.Errorf("answer has column %s %s in place of %s %s", c.GetName(), c.GetType(),
				columns[j].GetName(), columns[j].GetType())
		}
		if l := length(c); l != n {
			return nil, fmt.Errorf("answer has %d values of column %s in %d rows", l, c.GetName(), n)
		}
	}
	return func(i int) []any {
		row := make([]any, len(columns))
		for j, c := range b.GetColumns() {
			if !isNullAt(c, i) {
				row[j] = valueAt(c, i)
			}
		}
		return row
	}, nil
}

func length(c *tsdbpb.ColumnValues) int {
	switch c.GetType() {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		return len(c.GetBools())
	case metasrvpb.DataType_DATA_TYPE_INT64:
		return len(c.GetInt64S())
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		return len(c.GetUint64S())
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		return len(c.GetFloat64S())
	case metasrvpb.DataType_DATA_TYPE_STRING:
		return len(c.GetStrings())
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		return len(c.GetByteStrings())
	case metasrvpb.DataType_DATA_TYPE_TIMESTAMP:
		return len(c.GetTimestamps())
	}
	return 0
}

func valueAt(c *tsdbpb.ColumnValues, i int) any {
	switch c.GetType() {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		return c.GetBools()[i]
	case metasrvpb.DataType_DATA_TYPE_INT64:
		return c.GetInt64S()[i]
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		return c.GetUint64S()[i]
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		return c.GetFloat64S()[i]
	case metasrvpb.DataType_DATA_TYPE_STRING:
		return c.GetStrings()[i]
	case metasrvpb.DataType_DATA_TYPE_BYTES:
		return c.GetByteStrings()[i]
	}
	return Timestamp(c.GetTimestamps()[i])
}
