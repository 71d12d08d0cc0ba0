package store

import (
	"context"
	"database/sql"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	// rowsPerBatch and bytesPerBatch bound one batch of an answer.
	rowsPerBatch  = 4096
	bytesPerBatch = 512 << 10
	// maxLiterals keeps a query within SQLite's number of parameters.
	maxLiterals = 30_000
)

var operators = map[tsdbpb.Comparison]string{
	tsdbpb.Comparison_COMPARISON_EQ: "=",
	tsdbpb.Comparison_COMPARISON_NE: "<>",
	tsdbpb.Comparison_COMPARISON_LT: "<",
	tsdbpb.Comparison_COMPARISON_LE: "<=",
	tsdbpb.Comparison_COMPARISON_GT: ">",
	tsdbpb.Comparison_COMPARISON_GE: ">=",
}

// Query calls yield with batches of the rows that q asks for, as they were at one moment, until yield returns an
// error. A column that the table doesn't have, or a literal of another type, is an INVALID_ARGUMENT.
func (r *Replica) Query(ctx context.Context, q *tsdbpb.QueryRequest, yield func(*tsdbpb.RowBatch) error) error {
	return r.use(func(f *file) error {
		query, args, columns, err := r.table.querySQL(q)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		defer context.AfterFunc(r.lifetime(), cancel)()
		rows, err := f.reader.QueryContext(ctx, query, args...)
		if err != nil {
			return fmt.Errorf("query region %s: %w", r.region, err)
		}
		defer func() { _ = rows.Close() }() // its error is that of Err
		return stream(rows, columns, yield)
	})
}

func stream(rows *sql.Rows, columns []*metasrvpb.Column, yield func(*tsdbpb.RowBatch) error) error {
	b := batch.New(columns)
	row := make([]any, max(1, len(columns)))
	targets := make([]any, len(row))
	for i := range row {
		targets[i] = &row[i]
	}
	for rows.Next() {
		if err := rows.Scan(targets...); err != nil {
			return err
		}
		for i, c := range columns {
			v, err := fromSQL(row[i], c.GetType())
			if err != nil {
				return err
			}
			row[i] = v
		}
		if err := b.Append(row[:len(columns)]); err != nil {
			return fmt.Errorf("%w: a stored row doesn't fit the schema: %w", ErrDamaged, err)
		}
		if b.Len() >= rowsPerBatch || b.Bytes() >= bytesPerBatch {
			if err := yield(b.Take()); err != nil {
				return err
			}
		}
	}
	if err := rows.Err(); err != nil {
		return err
	}
	if b.Len() == 0 {
		return nil
	}
	return yield(b.Take())
}

// querySQL returns the statement, its arguments and the columns of the answer. Only what this package wrote is
// part of the statement; names and literals of the caller are not.
func (t *table) querySQL(q *tsdbpb.QueryRequest) (string, []any, []*metasrvpb.Column, error) {
	var columns []*metasrvpb.Column
	var names []string
	for _, name := range q.GetColumns() {
		i, ok := t.index[name]
		if !ok {
			return "", nil, nil, unknownColumn("columns", name)
		}
		columns, names = append(columns, t.schema.GetColumns()[i]), append(names, sqlName(i))
	}
	if len(names) == 0 {
		names = []string{"1"}
	}
	var sql strings.Builder
	sql.WriteString("SELECT " + strings.Join(names, ", ") + " FROM data")
	where, args, err := t.whereSQL(q.GetFilters())
	if err != nil {
		return "", nil, nil, err
	}
	sql.WriteString(where)
	for i, o := range q.GetOrder() {
		column, ok := t.index[o.GetColumn()]
		if !ok {
			return "", nil, nil, unknownColumn("order", o.GetColumn())
		}
		if i == 0 {
			sql.WriteString(" ORDER BY ")
		} else {
			sql.WriteString(", ")
		}
		sql.WriteString(sqlName(column))
		if o.GetDescending() {
			sql.WriteString(" DESC")
		}
	}
	if limit := q.GetLimit(); limit > 0 {
		sql.WriteString(" LIMIT ?")
		args = append(args, int64(min(limit, math.MaxInt64))) //nolint:gosec // bounded
	}
	return sql.String(), args, columns, nil
}

func unknownColumn(field, name string) error {
	return metasrv.InvalidArgument(field, "the table has no column %q", name)
}

func (t *table) whereSQL(filters []*tsdbpb.Filter) (string, []any, error) {
	var conditions []string
	var args []any
	for _, f := range filters {
		i, ok := t.index[f.GetColumn()]
		if !ok {
			return "", nil, unknownColumn("filters", f.GetColumn())
		}
		var values []any
		for _, v := range f.GetValues() {
			literal, err := batch.Literal(v, t.schema.GetColumns()[i].GetType())
			if err != nil {
				return "", nil, err
			}
			values = append(values, toSQL(literal))
		}
		condition, err := conditionSQL(sqlName(i), f, len(values))
		if err != nil {
			return "", nil, err
		}
		conditions, args = append(conditions, condition), append(args, values...)
	}
	switch {
	case len(args) > maxLiterals:
		return "", nil, metasrv.InvalidArgument("filters", "have %d values, at most %d are allowed", len(args), maxLiterals)
	case len(conditions) == 0:
		return "", args, nil
	}
	return " WHERE " + strings.Join(conditions, " AND "), args, nil
}

func conditionSQL(column string, f *tsdbpb.Filter, values int) (string, error) {
	wrong := func(want string) error {
		return metasrv.InvalidArgument("filters", "%s on column %q has %d values, %s wanted",
			f.GetComparison(), f.GetColumn(), values, want)
	}
	switch c := f.GetComparison(); c {
	case tsdbpb.Comparison_COMPARISON_IN:
		return column + " IN (" + strings.TrimSuffix(strings.Repeat("?,", values), ",") + ")", nil
	case tsdbpb.Comparison_COMPARISON_IS_NULL, tsdbpb.Comparison_COMPARISON_IS_NOT_NULL:
		if values != 0 {
			return "", wrong("none")
		}
		if c == tsdbpb.Comparison_COMPARISON_IS_NULL {
			return column + " IS NULL", nil
		}
		return column + " IS NOT NULL", nil
	default:
		operator, ok := operators[c]
		if !ok {
			return "", metasrv.InvalidArgument("filters", "comparison %d is unknown", c)
		}
		if values != 1 {
			return "", wrong("one")
		}
		return column + " " + operator + " ?", nil
	}
}

// Rows returns about how many rows there are. It counts them where that is cheap or the number may be far off:
// rows that replaced others were added to it.
func (r *Replica) Rows(ctx context.Context) (uint64, error) {
	const cheap = 10_000
	r.mu.Lock()
	rows, uncounted := r.state.Rows, r.uncounted
	count := uncounted > 0 && r.damage == nil && len(r.table.schema.GetPrimaryKey()) > 0 &&
		(rows < cheap || uncounted > rows/4) && time.Since(r.counted) > time.Second
	r.mu.Unlock()
	if !count {
		return rows, nil
	}
	err := r.use(func(f *file) error {
		var n int64
		if err := f.reader.QueryRowContext(ctx, "SELECT count(*) FROM data").Scan(&n); err != nil {
			return fmt.Errorf("count rows of region %s: %w", r.region, err)
		}
		r.mu.Lock()
		defer r.mu.Unlock()
		r.uncounted -= uncounted
		r.state.Rows = uint64(n) + r.uncounted //nolint:gosec // not negative
		r.counted = time.Now()
		rows = r.state.Rows
		return nil
	})
	return rows, err
}
