package partition

import (
	"math"
	"slices"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// columnSet is the values of one column that conditions leave: NULL or not, and either a list of values or an
// interval. It may be too large, never too small.
type columnSet struct {
	columnType metasrvpb.DataType
	null       bool
	// listed: the values are those of list; else those between lower and upper.
	listed       bool
	list         []Value
	lower, upper limit
}

// limit is an end of an interval; without given there is none on this side.
type limit struct {
	value Value
	given bool
	// open: the value itself is outside.
	open bool
}

func everything(t metasrvpb.DataType) columnSet { return columnSet{columnType: t, null: true} }

// restrict takes out the values for which the condition doesn't hold.
func (s *columnSet) restrict(c Condition) {
	if n := len(c.Values); c.Op != OpIn && n != operands(c.Op) {
		return
	}
	switch c.Op {
	case OpEqual, OpIn:
		s.keep(c.Values)
	case OpLess:
		s.limitUpper(c.Values[0], true)
	case OpLessOrEqual:
		s.limitUpper(c.Values[0], false)
	case OpGreater:
		s.limitLower(c.Values[0], true)
	case OpGreaterOrEqual:
		s.limitLower(c.Values[0], false)
	case OpBetween:
		s.limitLower(c.Values[0], false)
		s.limitUpper(c.Values[1], false)
	case OpIsNull:
		s.listed, s.list = true, nil
	case OpIsNotNull:
		s.null = false
	}
}

func operands(op Op) int {
	switch op {
	case OpEqual, OpLess, OpLessOrEqual, OpGreater, OpGreaterOrEqual:
		return 1
	case OpBetween:
		return 2
	}
	return 0
}

// keep leaves only the given values.
func (s *columnSet) keep(values []Value) {
	var list []Value
	for _, v := range values {
		held, f := convert(v, s.columnType)
		switch {
		case f == foreign:
			return
		case f == orderable || v.IsNull() || !s.has(held):
			continue
		}
		if !slices.ContainsFunc(list, func(l Value) bool { return order(l, held) == 0 }) {
			list = append(list, held)
		}
	}
	s.null, s.listed, s.list = false, true, list
}

// limitLower leaves only values above v or, unless open, equal to it.
func (s *columnSet) limitLower(v Value, open bool) {
	v, ok := s.operand(v)
	if !ok {
		return
	}
	l := limit{value: v, given: true, open: open}
	if base, fraction, ok := s.whole(v); ok {
		if !fraction && !open {
			l = limit{value: base, given: true}
		} else if next, ok := successor(base); ok {
			l = limit{value: next, given: true}
		}
	}
	s.null = false
	s.lower = tighter(s.lower, l, 1)
	s.filter()
}

// limitUpper leaves only values below v or, unless open, equal to it.
func (s *columnSet) limitUpper(v Value, open bool) {
	v, ok := s.operand(v)
	if !ok {
		return
	}
	l := limit{value: v, given: true, open: open}
	if base, fraction, ok := s.whole(v); ok {
		if !fraction && open {
			l = limit{value: base, given: true, open: true}
		} else if next, ok := successor(base); ok {
			l = limit{value: next, given: true, open: true}
		}
	}
	s.null = false
	s.upper = tighter(s.upper, l, -1)
	s.filter()
}

// operand returns v as one side of a comparison with the column. ok is false where there is nothing to compare:
// v is NULL, for which the comparison holds nowhere, or foreign, which is as if the condition weren't there.
func (s *columnSet) operand(v Value) (_ Value, ok bool) {
	held, f := convert(v, s.columnType)
	switch {
	case v.IsNull():
		s.null, s.listed, s.list = false, true, nil
		return Value{}, false
	case f == foreign:
		return Value{}, false
	}
	return held, true
}

// whole returns the largest integer that is not above v, and whether it differs from v. ok is false for columns
// that don't hold integers only, and beyond the integers that a Value can hold. With whole numbers the limits
// are exact: nothing is left of c > 9 and c < 10, and c <= 9 doesn't reach the partition that starts at 10.
func (s *columnSet) whole(v Value) (base Value, fraction, ok bool) {
	switch s.columnType {
	case metasrvpb.DataType_DATA_TYPE_INT64, metasrvpb.DataType_DATA_TYPE_UINT64:
		if v.kind == kindFloat64 {
			return floor(v.float())
		}
		return v, false, true
	case metasrvpb.DataType_DATA_TYPE_TIMESTAMP:
		return v, false, true
	}
	return Value{}, false, false
}

// successor returns the next integer or nanosecond, where a Value can hold it.
func successor(v Value) (Value, bool) {
	switch {
	case v.kind == kindUint64:
		return Uint64(v.bits + 1), v.bits < math.MaxUint64
	case v.int() < math.MaxInt64:
		return Value{kind: v.kind, bits: v.bits + 1}, true
	}
	return Uint64(math.MaxInt64 + 1), v.kind == kindInt64
}

// tighter returns the one of two limits that leaves less; sign is 1 for lower and -1 for upper limits.
func tighter(a, b limit, sign int) limit {
	switch {
	case !a.given:
		return b
	case !b.given:
		return a
	}
	if c := sign * order(a.value, b.value); c > 0 || c == 0 && a.open {
		return a
	}
	return b
}

func (s *columnSet) filter() {
	if s.listed {
		s.list = slices.DeleteFunc(s.list, func(v Value) bool { return !s.inInterval(v) })
	}
}

func (s *columnSet) inInterval(v Value) bool {
	point := limit{value: v, given: true}
	return someBetween(s.lower, point) && someBetween(point, s.upper)
}

// someBetween reports whether there may be a value between two limits.
func someBetween(lower, upper limit) bool {
	if !lower.given || !upper.given {
		return true
	}
	c := order(lower.value, upper.value)
	return c < 0 || c == 0 && !lower.open && !upper.open
}

func (s *columnSet) empty() bool {
	if s.null {
		return false
	}
	if s.listed {
		return len(s.list) == 0
	}
	return !someBetween(s.lower, s.upper)
}

// has reports whether the set holds v, a value that the column can hold or a bound.
func (s *columnSet) has(v Value) bool {
	switch {
	case v.IsNull():
		return s.null
	case v.IsMaxValue():
		return false
	case s.listed:
		return slices.ContainsFunc(s.list, func(l Value) bool { return order(l, v) == 0 })
	}
	return s.inInterval(v)
}

// hasBetween reports whether the set may hold a value above lower and below upper; nil is no bound.
func (s *columnSet) hasBetween(lower, upper *Value) bool {
	if s.null && lower == nil {
		return true // bounds are never NULL, so NULL is below them
	}
	var from, to limit
	if lower != nil {
		from = limit{value: *lower, given: true, open: true}
	}
	if upper != nil {
		to = limit{value: *upper, given: true, open: true}
	}
	if s.listed {
		return slices.ContainsFunc(s.list, func(v Value) bool {
			point := limit{value: v, given: true}
			return someBetween(from, point) && someBetween(point, to)
		})
	}
	return someBetween(tighter(s.lower, from, 1), tighter(s.upper, to, -1))
}

// count returns the number of values, NULL included. finite is false where they are not listed.
func (s *columnSet) count() (n int, finite bool) {
	if s.null {
		n++
	}
	return n + len(s.list), s.listed
}

// at returns one of count values.
func (s *columnSet) at(i int) Value {
	if i < len(s.list) {
		return s.list[i]
	}
	return Null()
}
