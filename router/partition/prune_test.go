package partition

import (
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func where(column string, op Op, values ...Value) Condition {
	return Condition{Column: column, Op: op, Values: values}
}

func TestPruneRange(t *testing.T) {
	i, f := Int64, Float64
	// i < 0, 0..10, 10..20, >= 20
	p := mustNew(t, rangeRule([]string{"i"}, bound(i(0)), bound(i(10)), bound(i(20)), bound(MaxValue())))
	tests := []struct {
		name  string
		where []Condition
		want  []int
	}{
		{"nothing known", nil, []int{0, 1, 2, 3}},
		{"other column", []Condition{where("s", OpEqual, String("a"))}, []int{0, 1, 2, 3}},
		{"unknown operator", []Condition{where("i", OpOther, i(1))}, []int{0, 1, 2, 3}},
		{"malformed", []Condition{where("i", OpLess), where("i", OpBetween, i(1))}, []int{0, 1, 2, 3}},
		{"foreign value", []Condition{where("i", OpEqual, String("5"))}, []int{0, 1, 2, 3}},
		{"NaN", []Condition{where("i", OpLess, f(math.NaN()))}, []int{0, 1, 2, 3}},
		{"MAXVALUE", []Condition{where("i", OpLess, MaxValue())}, []int{0, 1, 2, 3}},
		{"equal", []Condition{where("i", OpEqual, i(10))}, []int{2}},
		{"equal by another type", []Condition{where("i", OpEqual, f(10))}, []int{2}},
		{"equal to what the column can't hold", []Condition{where("i", OpEqual, f(10.5))}, nil},
		{"in", []Condition{where("i", OpIn, i(25), i(5), i(26), Null(), f(0.5))}, []int{1, 3}},
		{"in nothing", []Condition{where("i", OpIn)}, nil},
		{"in with a foreign value", []Condition{where("i", OpIn, i(5), String("x"))}, []int{0, 1, 2, 3}},
		{"less", []Condition{where("i", OpLess, i(10))}, []int{0, 1}},
		{"less or equal", []Condition{where("i", OpLessOrEqual, i(10))}, []int{0, 1, 2}},
		{"less or equal just below", []Condition{where("i", OpLessOrEqual, i(9))}, []int{0, 1}},
		{"less than a fraction", []Condition{where("i", OpLess, f(9.5))}, []int{0, 1}},
		{"greater just below", []Condition{where("i", OpGreater, i(9))}, []int{2, 3}},
		{"greater than a fraction", []Condition{where("i", OpGreater, f(9.5))}, []int{2, 3}},
		{"greater or equal", []Condition{where("i", OpGreaterOrEqual, i(10))}, []int{2, 3}},
		{"greater than all", []Condition{where("i", OpGreater, i(math.MaxInt64))}, []int{3}},
		{"beyond the type", []Condition{where("i", OpGreater, f(1e300))}, []int{3}},
		{"between", []Condition{where("i", OpBetween, i(5), i(15))}, []int{1, 2}},
		{"range by two", []Condition{where("i", OpGreaterOrEqual, i(0)), where("i", OpLess, i(20))}, []int{1, 2}},
		{"list and range", []Condition{where("i", OpIn, i(-5), i(5), i(15)), where("i", OpGreater, i(4)),
			where("i", OpLess, i(15))}, []int{1}},
		{"range and list", []Condition{where("i", OpGreater, i(4)), where("i", OpIn, i(-5), i(5), i(15))}, []int{1, 2}},
		{"contradiction of points", []Condition{where("i", OpEqual, i(1)), where("i", OpEqual, i(2))}, nil},
		{"contradiction of ranges", []Condition{where("i", OpLess, i(1)), where("i", OpGreater, i(1))}, nil},
		{"contradiction of integers", []Condition{where("i", OpLess, i(2)), where("i", OpGreater, i(1))}, nil},
		{"is null", []Condition{where("i", OpIsNull)}, []int{0}},
		{"is not null", []Condition{where("i", OpIsNotNull)}, []int{0, 1, 2, 3}},
		{"null and not", []Condition{where("i", OpIsNull), where("i", OpIsNotNull)}, nil},
		{"null and below", []Condition{where("i", OpLess, i(0)), where("i", OpIsNull)}, nil},
		{"equal to null", []Condition{where("i", OpEqual, Null())}, nil},
		{"below null", []Condition{where("i", OpLess, Null())}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, p.Prune(test.where)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPruneRangeOfTwoColumns(t *testing.T) {
	s, i, m := String, Int64, MaxValue()
	p := mustNew(t, rangeRule([]string{"s", "i"},
		bound(s("a"), i(5)), bound(s("a"), m), bound(s("b"), i(0)), bound(s("b"), i(9)), bound(m, m)))
	tests := []struct {
		name  string
		where []Condition
		want  []int
	}{
		{"both", []Condition{where("s", OpEqual, s("a")), where("i", OpEqual, i(5))}, []int{1}},
		{"first", []Condition{where("s", OpEqual, s("b"))}, []int{2, 3, 4}},
		{"first and below", []Condition{where("s", OpEqual, s("b")), where("i", OpLess, i(0))}, []int{2}},
		{"second", []Condition{where("i", OpGreaterOrEqual, i(9))}, []int{0, 1, 2, 4}},
		{"between bounds", []Condition{where("s", OpGreater, s("a")), where("s", OpLess, s("b"))}, []int{2}},
		{"second null", []Condition{where("s", OpEqual, s("a")), where("i", OpIsNull)}, []int{0}},
		{"first null", []Condition{where("s", OpIsNull)}, []int{0}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, p.Prune(test.where)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestPruneHash(t *testing.T) {
	p := mustNew(t, hashRule(64, "s", "i"))
	of := func(values ...Value) int {
		n, err := p.Find(values...)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	a, b := of(String("a"), Int64(1)), of(String("a"), Null())
	tests := []struct {
		name  string
		where []Condition
		want  []int
	}{
		{"one column", []Condition{where("s", OpEqual, String("a"))}, all(64)},
		{"range", []Condition{where("s", OpEqual, String("a")), where("i", OpLess, Int64(5))}, all(64)},
		{"both", []Condition{where("s", OpEqual, String("a")), where("i", OpEqual, Uint64(1))}, []int{a}},
		{"null", []Condition{where("s", OpEqual, String("a")), where("i", OpIsNull)}, []int{b}},
		{"contradiction", []Condition{where("i", OpLess, Int64(1)), where("i", OpGreater, Int64(5))}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if diff := cmp.Diff(test.want, p.Prune(test.where)); diff != "" {
				t.Error(diff)
			}
		})
	}
	var many []Value
	for i := range 100 {
		many = append(many, Int64(int64(i)))
	}
	long := []Condition{where("s", OpIn, String("a"), String("b")), where("i", OpIn, many...)}
	if got := p.Prune(long); len(got) < 32 || len(got) > 64 {
		t.Errorf("200 points fall into %d of 64 partitions", len(got))
	}
}
