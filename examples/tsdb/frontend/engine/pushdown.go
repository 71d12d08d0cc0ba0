package engine

import (
	"math"
	"strings"
	"time"

	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/analyzer"
	"github.com/dolthub/go-mysql-server/sql/expression"
	"github.com/dolthub/go-mysql-server/sql/expression/function"
	"github.com/dolthub/go-mysql-server/sql/plan"
	"github.com/dolthub/go-mysql-server/sql/transform"
	"github.com/dolthub/go-mysql-server/sql/types"
	"github.com/dolthub/vitess/go/sqltypes"
	"github.com/shopspring/decimal"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
)

// pushDown is the analyzer rule that gives tables the conditions of the filters above them. The filters stay: a
// condition may let rows pass that its filter doesn't, never the reverse.
func pushDown(
	ctx *sql.Context, _ *analyzer.Analyzer, n sql.Node, _ *plan.Scope, _ analyzer.RuleSelector, _ *sql.QueryFlags,
) (sql.Node, transform.TreeIdentity, error) {
	return transform.NodeWithOpaque(n, func(n sql.Node) (sql.Node, transform.TreeIdentity, error) {
		filter, ok := n.(*plan.Filter)
		if !ok {
			return n, transform.SameTree, nil
		}
		child, same, err := restrict(ctx, filter.Child, filter.Expression)
		if err != nil || same {
			return n, transform.SameTree, err
		}
		return plan.NewFilter(filter.Expression, child), transform.NewTree, nil
	})
}

// restrict returns the table of a filter with the filter's conditions.
func restrict(ctx *sql.Context, n sql.Node, filter sql.Expression) (sql.Node, transform.TreeIdentity, error) {
	alias, aliased := n.(*plan.TableAlias)
	name, inner := "", n
	if aliased {
		name, inner = alias.Name(), alias.Child
	}
	resolved, ok := inner.(*plan.ResolvedTable)
	if !ok {
		return n, transform.SameTree, nil
	}
	t, ok := resolved.WrappedTable().(*table)
	if !ok || t.conditions != nil {
		return n, transform.SameTree, nil
	}
	if !aliased {
		name = resolved.Name()
	}
	p := pusher{ctx: ctx, table: t, name: name}
	conditions := p.conjunction(filter)
	if len(conditions) == 0 {
		return n, transform.SameTree, nil
	}
	replaced, err := resolved.ReplaceTable(t.withConditions(conditions))
	if err != nil {
		return n, transform.SameTree, err
	}
	if !aliased {
		return replaced, transform.NewTree, nil
	}
	with, err := alias.WithChildren(replaced)
	return with, transform.NewTree, err
}

// pusher turns expressions over one table into conditions.
type pusher struct {
	ctx   *sql.Context
	table *table
	// name is what the query calls the table.
	name string
}

// conjunction returns conditions that hold for every row for which e is true.
func (p pusher) conjunction(e sql.Expression) []cluster.Condition {
	switch e := e.(type) {
	case *expression.And:
		return append(p.conjunction(e.LeftChild), p.conjunction(e.RightChild)...)
	case *expression.Between:
		return append(p.compare(e.Val, e.Lower, tsdbpb.Comparison_COMPARISON_GE),
			p.compare(e.Val, e.Upper, tsdbpb.Comparison_COMPARISON_LE)...)
	case *expression.Equals:
		return p.either(e.Left(), e.Right(), tsdbpb.Comparison_COMPARISON_EQ)
	case *expression.LessThan:
		return p.either(e.Left(), e.Right(), tsdbpb.Comparison_COMPARISON_LT)
	case *expression.LessThanOrEqual:
		return p.either(e.Left(), e.Right(), tsdbpb.Comparison_COMPARISON_LE)
	case *expression.GreaterThan:
		return p.either(e.Left(), e.Right(), tsdbpb.Comparison_COMPARISON_GT)
	case *expression.GreaterThanOrEqual:
		return p.either(e.Left(), e.Right(), tsdbpb.Comparison_COMPARISON_GE)
	case *expression.IsNull:
		return p.null(e.Child, tsdbpb.Comparison_COMPARISON_IS_NULL)
	case *expression.Not:
		if isNull, ok := e.Child.(*expression.IsNull); ok {
			return p.null(isNull.Child, tsdbpb.Comparison_COMPARISON_IS_NOT_NULL)
		}
	case *expression.InTuple:
		return p.in(e.Left(), e.Right())
	case *expression.HashInTuple:
		return p.in(e.Left(), e.Right())
	case *expression.Or:
		return p.or(e)
	}
	return nil
}

// field returns the column that e is, if it is one of the table.
func (p pusher) field(e sql.Expression) (*metasrvpb.Column, sql.Type, bool) {
	f, ok := e.(*expression.GetField)
	if !ok || !strings.EqualFold(f.Table(), p.name) {
		return nil, nil, false
	}
	return p.table.column(f.Name())
}

func (p pusher) null(e sql.Expression, c tsdbpb.Comparison) []cluster.Condition {
	col, _, ok := p.field(e)
	if !ok {
		return nil
	}
	return []cluster.Condition{{Column: col.GetName(), Comparison: c}}
}

// either takes a column compared with a constant, or the reverse.
func (p pusher) either(left, right sql.Expression, c tsdbpb.Comparison) []cluster.Condition {
	if _, _, ok := p.field(left); ok {
		return p.compare(left, right, c)
	}
	return p.compare(right, left, mirrored(c))
}

func mirrored(c tsdbpb.Comparison) tsdbpb.Comparison {
	switch c {
	case tsdbpb.Comparison_COMPARISON_LT:
		return tsdbpb.Comparison_COMPARISON_GT
	case tsdbpb.Comparison_COMPARISON_LE:
		return tsdbpb.Comparison_COMPARISON_GE
	case tsdbpb.Comparison_COMPARISON_GT:
		return tsdbpb.Comparison_COMPARISON_LT
	case tsdbpb.Comparison_COMPARISON_GE:
		return tsdbpb.Comparison_COMPARISON_LE
	}
	return c
}

func (p pusher) compare(left, right sql.Expression, c tsdbpb.Comparison) []cluster.Condition {
	col, t, ok := p.field(left)
	if !ok {
		return nil
	}
	v, ok := p.constant(right)
	if !ok || v == nil {
		return nil
	}
	if col.GetType() == metasrvpb.DataType_DATA_TYPE_TIMESTAMP {
		return timeConditions(p.ctx, col, t, v, c)
	}
	stored, ok := exact(col, t, v, right.Type())
	if !ok {
		return nil
	}
	switch col.GetType() {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		if c != tsdbpb.Comparison_COMPARISON_EQ {
			return nil
		}
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		c = inclusive(c) // the engine compares with the decimal, of which stored is the nearest float
	}
	return []cluster.Condition{{Column: col.GetName(), Comparison: c, Values: []any{stored}}}
}

func inclusive(c tsdbpb.Comparison) tsdbpb.Comparison {
	switch c {
	case tsdbpb.Comparison_COMPARISON_LT:
		return tsdbpb.Comparison_COMPARISON_LE
	case tsdbpb.Comparison_COMPARISON_GT:
		return tsdbpb.Comparison_COMPARISON_GE
	}
	return c
}

func (p pusher) in(left, right sql.Expression) []cluster.Condition {
	tuple, ok := right.(expression.Tuple)
	if !ok {
		return nil
	}
	var values []any
	for _, e := range tuple {
		cs := p.compare(left, e, tsdbpb.Comparison_COMPARISON_EQ)
		if len(cs) != 1 || cs[0].Comparison != tsdbpb.Comparison_COMPARISON_EQ {
			return nil
		}
		values = append(values, cs[0].Values...)
	}
	col, _, ok := p.field(left)
	if !ok || len(values) == 0 {
		return nil
	}
	return []cluster.Condition{{Column: col.GetName(), Comparison: tsdbpb.Comparison_COMPARISON_IN, Values: values}}
}

// or takes alternatives that are all equalities of one column.
func (p pusher) or(e *expression.Or) []cluster.Condition {
	left, right := p.conjunction(e.LeftChild), p.conjunction(e.RightChild)
	if len(left) != 1 || len(right) != 1 || left[0].Column != right[0].Column {
		return nil
	}
	for _, c := range []cluster.Condition{left[0], right[0]} {
		if c.Comparison != tsdbpb.Comparison_COMPARISON_EQ && c.Comparison != tsdbpb.Comparison_COMPARISON_IN {
			return nil
		}
	}
	return []cluster.Condition{{
		Column:     left[0].Column,
		Comparison: tsdbpb.Comparison_COMPARISON_IN,
		Values:     append(append([]any{}, left[0].Values...), right[0].Values...),
	}}
}

// constant returns the value of an expression that has the same one for every row of the query.
func (p pusher) constant(e sql.Expression) (any, bool) {
	if !isConstant(e) {
		return nil, false
	}
	v, err := e.Eval(p.ctx, nil)
	if err != nil {
		return nil, false // the engine says why
	}
	v, err = sql.UnwrapAny(p.ctx, v)
	return v, err == nil
}

func isConstant(e sql.Expression) bool {
	constant := true
	sql.Inspect(e, func(e sql.Expression) bool {
		switch e.(type) {
		case nil, *expression.Literal, *expression.UnaryMinus, *expression.Arithmetic, *expression.Interval,
			*expression.Convert, *function.Now, *function.DateAdd, *function.DateSub:
		default:
			constant = false
		}
		return constant
	})
	return constant
}

// exact returns a constant as the column stores it. ok is false where the engine would compare in another way
// than the datanodes do.
func exact(col *metasrvpb.Column, t sql.Type, v any, vt sql.Type) (any, bool) {
	switch col.GetType() {
	case metasrvpb.DataType_DATA_TYPE_BOOL:
		if b, ok := v.(bool); ok {
			return b, true
		}
		i, ok := integer(v)
		return i == 1, ok && (i == 0 || i == 1)
	case metasrvpb.DataType_DATA_TYPE_INT64:
		i, ok := integer(v)
		return i, ok
	case metasrvpb.DataType_DATA_TYPE_UINT64:
		if u, ok := v.(uint64); ok {
			return u, true
		}
		i, ok := integer(v)
		return uint64(i), ok && i >= 0
	case metasrvpb.DataType_DATA_TYPE_FLOAT64:
		if t.Type() == sqltypes.Float32 {
			return nil, false // compared as a shorter decimal than the stored float
		}
		return float(v)
	case metasrvpb.DataType_DATA_TYPE_STRING:
		s, ok := v.(string)
		return s, ok && types.IsTextOnly(vt)
	}
	return nil, false
}

func integer(v any) (int64, bool) {
	switch n := v.(type) {
	case int8:
		return int64(n), true
	case int16:
		return int64(n), true
	case int32:
		return int64(n), true
	case int64:
		return n, true
	case uint8:
		return int64(n), true
	case uint16:
		return int64(n), true
	case uint32:
		return int64(n), true
	case uint64:
		return int64(n), n <= math.MaxInt64
	}
	return 0, false
}

func float(v any) (any, bool) {
	switch n := v.(type) {
	case float64:
		return n, !math.IsNaN(n) && !math.IsInf(n, 0)
	case decimal.Decimal:
		return n.InexactFloat64(), true
	}
	i, ok := integer(v)
	return float64(i), ok
}

// timeConditions returns conditions on a stored time for a comparison of the time that is shown, which is the
// stored one cut to the precision of the column.
func timeConditions(
	ctx *sql.Context, col *metasrvpb.Column, t sql.Type, v any, c tsdbpb.Comparison,
) []cluster.Condition {
	converted, _, err := types.DatetimeMaxPrecision.Convert(ctx, v)
	if err != nil {
		return nil
	}
	at, ok := converted.(time.Time)
	if !ok {
		return nil
	}
	if direct, ok := v.(time.Time); ok {
		at = direct // compared without rounding where the types are equal
	}
	stored, err := column.Encode(ctx, metasrvpb.DataType_DATA_TYPE_TIMESTAMP, at)
	if err != nil {
		return nil
	}
	low, high := bounds(stored.(column.Timestamp), column.Unit(t), c)
	var conditions []cluster.Condition
	if low != math.MinInt64 {
		conditions = append(conditions, cluster.Condition{Column: col.GetName(),
			Comparison: tsdbpb.Comparison_COMPARISON_GE, Values: []any{low}})
	}
	if high != math.MaxInt64 {
		conditions = append(conditions, cluster.Condition{Column: col.GetName(),
			Comparison: tsdbpb.Comparison_COMPARISON_LT, Values: []any{high}})
	}
	return conditions
}

// bounds returns the stored times, from low to below high, that hold every one whose shown time compares true
// with at.
func bounds(at column.Timestamp, unit time.Duration, c tsdbpb.Comparison) (low, high column.Timestamp) {
	floor := at.Floor(unit)
	next := column.Timestamp(math.MaxInt64)
	if floor < math.MaxInt64-column.Timestamp(unit) {
		next = floor + column.Timestamp(unit)
	}
	onGrid := floor == at && unit > 0
	low, high = math.MinInt64, math.MaxInt64
	switch c {
	case tsdbpb.Comparison_COMPARISON_EQ:
		return floor, next
	case tsdbpb.Comparison_COMPARISON_GE:
		return floor, high
	case tsdbpb.Comparison_COMPARISON_GT:
		return next, high
	case tsdbpb.Comparison_COMPARISON_LE:
		return low, next
	case tsdbpb.Comparison_COMPARISON_LT:
		if onGrid {
			return low, floor
		}
		return low, next
	}
	return low, high
}
