package influx

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/vitess/go/sqltypes"
	"github.com/influxdata/line-protocol/v2/lineprotocol"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
)

// rower turns points into rows of one table. Points with the same primary key become one row, in which the later
// point's values stay.
type rower struct {
	table *cluster.Table
	types []sql.Type
	time  int
	key   []int
	rows  [][]any
	lines []int
	at    map[string]int
}

func newRower(t *cluster.Table) (*rower, error) {
	at, err := timeIndex(t)
	if err != nil {
		return nil, err
	}
	r := &rower{table: t, time: at, at: map[string]int{}}
	for i, c := range t.Schema.GetColumns() {
		r.types = append(r.types, column.ToSQL(c))
		if slices.Contains(t.Schema.GetPrimaryKey(), c.GetName()) {
			r.key = append(r.key, i)
		}
	}
	return r, nil
}

func (r *rower) add(ctx context.Context, p point) error {
	row := make([]any, len(r.types))
	given := make([]bool, len(r.types))
	for _, v := range p.values {
		c, i := r.table.Column(v.key)
		switch {
		case i < 0:
			return lineErrorf(p.line, "table %s has no column %q, and columns can't be added", r.table.Name.Table, v.key)
		case i == r.time:
			return lineErrorf(p.line, "%q is the column for the time of points", v.key)
		}
		stored, err := convert(ctx, v, c, r.types[i])
		if err != nil {
			return lineErrorf(p.line, "%q: %w", v.key, err)
		}
		row[i], given[i] = stored, true
	}
	ts, err := timeValue(ctx, p.time, r.types[r.time])
	if err != nil {
		return lineErrorf(p.line, "%w", err)
	}
	row[r.time], given[r.time] = ts, true
	for i, c := range r.table.Schema.GetColumns() {
		if err := r.fill(row, given, i, c); err != nil {
			return &lineError{p.line, err}
		}
	}
	r.put(row, given, p.line)
	return nil
}

// fill sets what a point leaves out: an absent tag of the primary key is the empty string, as in InfluxDB.
func (r *rower) fill(row []any, given []bool, i int, c *metasrvpb.Column) error {
	isKey := slices.Contains(r.key, i)
	switch {
	case given[i] || c.GetNullable() && !isKey:
	case isKey && c.GetType() == metasrvpb.DataType_DATA_TYPE_STRING:
		row[i] = ""
	default:
		return fmt.Errorf("%q is missing, and can't be NULL", c.GetName())
	}
	return nil
}

func (r *rower) put(row []any, given []bool, line int) {
	if len(r.key) > 0 {
		var b strings.Builder
		for _, i := range r.key {
			s := fmt.Sprint(row[i])
			fmt.Fprintf(&b, "%d:%s", len(s), s)
		}
		if at, ok := r.at[b.String()]; ok {
			for i := range row {
				if given[i] {
					r.rows[at][i] = row[i]
				}
			}
			return
		}
		r.at[b.String()] = len(r.rows)
	}
	r.rows = append(r.rows, row)
	r.lines = append(r.lines, line)
}

func timeValue(ctx context.Context, at time.Time, t sql.Type) (any, error) {
	if _, _, err := t.Convert(ctx, at); err != nil {
		return nil, err // outside of what TIMESTAMP can show
	}
	return column.Encode(ctx, metasrvpb.DataType_DATA_TYPE_TIMESTAMP, at)
}

// convert returns a tag or field as its column stores it, or why that would change it.
func convert(ctx context.Context, v value, c *metasrvpb.Column, t sql.Type) (any, error) {
	mismatch := func() error {
		kind := "string"
		if !v.tag {
			kind = v.field.Kind().String()
		}
		return fmt.Errorf("a %s can't be stored in a column of type %s", kind, t)
	}
	if v.tag || v.field.Kind() == lineprotocol.String {
		return convertText(ctx, v.text, c, t, mismatch)
	}
	var number any
	switch v.field.Kind() {
	case lineprotocol.Bool:
		if c.GetType() != metasrvpb.DataType_DATA_TYPE_BOOL {
			return nil, mismatch()
		}
		return v.field.BoolV(), nil
	case lineprotocol.Float:
		return convertFloat(v.field.FloatV(), c, t, mismatch)
	case lineprotocol.Int:
		number = v.field.IntV()
	case lineprotocol.Uint:
		number = v.field.UintV()
	default:
		return nil, mismatch()
	}
	switch c.GetType() {
	case metasrvpb.DataType_DATA_TYPE_INT64, metasrvpb.DataType_DATA_TYPE_UINT64:
		converted, inRange, err := t.Convert(ctx, number)
		if err != nil {
			return nil, err
		}
		if inRange == sql.OutOfRange {
			return nil, fmt.Errorf("%v is out of the range of type %s", number, t)
		}
		return column.Encode(ctx, c.GetType(), converted)
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		return exactFloat(number, c, t, mismatch)
	}
	return nil, mismatch()
}

func convertText(
	ctx context.Context, text string, c *metasrvpb.Column, t sql.Type, mismatch func() error,
) (any, error) {
	if c.GetType() != metasrvpb.DataType_DATA_TYPE_STRING && c.GetType() != metasrvpb.DataType_DATA_TYPE_BYTES {
		return nil, mismatch()
	}
	converted, _, err := t.Convert(ctx, text)
	if err != nil {
		return nil, err
	}
	return column.Encode(ctx, c.GetType(), converted)
}

func convertFloat(f float64, c *metasrvpb.Column, t sql.Type, mismatch func() error) (any, error) {
	switch {
	case c.GetType() != metasrvpb.DataType_DATA_TYPE_FLOAT64:
		return nil, mismatch()
	case math.IsNaN(f) || math.IsInf(f, 0):
		return nil, fmt.Errorf("%v can't be stored", f)
	case t.Type() == sqltypes.Float32 && float64(float32(f)) != f:
		return nil, fmt.Errorf("%v would lose digits in a column of type %s: use DOUBLE", f, t)
	}
	return f, nil
}

// maxExact is the largest integer up to which floats hold all.
const maxExact = 1 << 53

func exactFloat(number any, c *metasrvpb.Column, t sql.Type, mismatch func() error) (any, error) {
	var f float64
	switch n := number.(type) {
	case int64:
		if n > maxExact || n < -maxExact {
			return nil, fmt.Errorf("%d would lose digits in a column of type %s", n, t)
		}
		f = float64(n)
	case uint64:
		if n > maxExact {
			return nil, fmt.Errorf("%d would lose digits in a column of type %s", n, t)
		}
		f = float64(n)
	}
	return convertFloat(f, c, t, mismatch)
}
