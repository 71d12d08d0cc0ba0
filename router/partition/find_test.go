package partition

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/metasrv/metasrv"
)

func TestFindByRange(t *testing.T) {
	m := MaxValue()
	str := mustNew(t, rangeRule([]string{"s"}, bound(String("m")), bound(String("t")), bound(m)))
	ints := mustNew(t, rangeRule([]string{"i"}, bound(Int64(0)), bound(Int64(10)), bound(m)))
	floats := mustNew(t, rangeRule([]string{"f"}, bound(Float64(1<<53)), bound(Float64(1<<53+2)), bound(m)))
	two := mustNew(t, rangeRule([]string{"s", "i"},
		bound(String("a"), Int64(5)), bound(String("a"), m), bound(String("b"), Int64(0)), bound(m, m)))
	raw := mustNew(t, rangeRule([]string{"x"}, bound(Bytes([]byte{0x80})), bound(m)))
	tests := []struct {
		name string
		p    *Partitioner
		row  []Value
		want int
	}{
		{"below the first bound", str, bound(String("lz")), 0},
		{"bounds are exclusive", str, bound(String("m")), 1},
		{"above a bound by a byte", str, bound(String("t\x00")), 2},
		{"null is lowest", str, bound(Null()), 0},
		{"the empty string", str, bound(String("")), 0},
		{"unsigned literal", ints, bound(Uint64(9)), 1},
		{"float literal", ints, bound(Float64(10)), 2},
		{"negative", ints, bound(Int64(math.MinInt64)), 0},
		{"integer literal", floats, bound(Int64(1 << 53)), 1},
		{"infinity", floats, bound(Float64(math.Inf(1))), 2},
		{"second column decides", two, bound(String("a"), Int64(4)), 0},
		{"second column reaches the bound", two, bound(String("a"), Int64(5)), 1},
		{"second column null", two, bound(String("a"), Null()), 0},
		{"between", two, bound(String("aa"), Int64(math.MaxInt64)), 2},
		{"first column null", two, bound(Null(), Int64(99)), 0},
		{"beyond", two, bound(String("b"), Int64(0)), 3},
		{"bytes are unsigned", raw, bound(Bytes([]byte{0x80})), 1},
		{"string in a column of bytes", raw, bound(String("a")), 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			if got, err := test.p.Find(test.row...); err != nil || got != test.want {
				t.Errorf("got %d, %v, want %d", got, err, test.want)
			}
		})
	}
}

func TestFindRefuses(t *testing.T) {
	tests := []struct {
		column string
		value  Value
	}{
		{"i", Float64(1.5)}, {"i", Uint64(1 << 63)}, {"i", String("1")}, {"i", MaxValue()}, {"i", Bool(true)},
		{"i", Float64(1 << 63)}, {"u", Int64(-1)}, {"u", Float64(1 << 64)}, {"u", Float64(-0.5)},
		{"f", Float64(math.NaN())}, {"f", Int64(1<<53 + 1)}, {"s", Bytes([]byte("a"))}, {"t", Int64(1)},
		{"b", Int64(1)},
	}
	for _, test := range tests {
		p := mustNew(t, hashRule(4, test.column))
		_, err := p.Find(test.value)
		var e *metasrv.Error
		if !errors.As(err, &e) || e.Kind != metasrv.KindInvalidArgument || e.Field != test.column {
			t.Errorf("%s in %s: got %v", test.value, test.column, err)
		}
	}
	p := mustNew(t, hashRule(4, "s", "i"))
	if _, err := p.Find(String("a")); !errors.Is(err, metasrv.ErrInvalidArgument) {
		t.Errorf("too few values: %v", err)
	}
}

func TestSplit(t *testing.T) {
	p := mustNew(t, rangeRule([]string{"i"}, bound(Int64(0)), bound(Int64(10)), bound(MaxValue())))
	rows := [][]Value{
		{String("a"), Int64(11)}, {String("b"), Int64(-1)}, {String("c"), Null()}, {String("d"), Int64(10)},
	}
	got, err := p.Split([]string{"s", "i"}, rows)
	if err != nil {
		t.Fatal(err)
	}
	want := []Part{{Partition: 0, Rows: []int{1, 2}}, {Partition: 2, Rows: []int{0, 3}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestSplitRefuses(t *testing.T) {
	p := mustNew(t, rangeRule([]string{"i"}, bound(MaxValue())))
	tests := []struct {
		name    string
		columns []string
		rows    [][]Value
		want    string
	}{
		{"missing column", []string{"s"}, nil, "i: the partition column is missing"},
		{"column twice", []string{"i", "i"}, nil, "i: the column is given twice"},
		{"short row", []string{"s", "i"}, [][]Value{{String("a")}}, "row 0 has 1 values for 2 columns"},
		{"wrong value", []string{"i"}, [][]Value{{Int64(1)}, {String("a")}}, "i: row 1: STRING 'a' is no INT64"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := p.Split(test.columns, test.rows)
			if !errors.Is(err, metasrv.ErrInvalidArgument) || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want %q", err, test.want)
			}
		})
	}
}
