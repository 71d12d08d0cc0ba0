package partition

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// drawValue draws values of a column of type t that are close together, so that equal ones are met.
func drawValue(t metasrvpb.DataType) *rapid.Generator[Value] {
	small := rapid.Int64Range(-4, 4)
	switch t {
	case tBool:
		return rapid.Map(rapid.Bool(), Bool)
	case tInt:
		return rapid.Map(small, Int64)
	case tUint:
		return rapid.Map(rapid.Uint64Range(0, 8), Uint64)
	case tFloat:
		return rapid.Map(small, func(i int64) Value { return Float64(float64(i) / 2) })
	case tStr:
		return rapid.Map(rapid.StringMatching("[ab]{0,2}"), String)
	case tBytes:
		return rapid.Map(rapid.StringMatching("[ab]{0,2}"), func(s string) Value { return Bytes([]byte(s)) })
	}
	return rapid.Map(small, Timestamp)
}

func drawNullable(t metasrvpb.DataType) *rapid.Generator[Value] {
	return rapid.Custom(func(r *rapid.T) Value {
		if rapid.IntRange(0, 5).Draw(r, "null") == 0 {
			return Null()
		}
		return drawValue(t).Draw(r, "value")
	})
}

// drawLiteral draws what a query may compare a column with: also numbers of other types, and nonsense.
func drawLiteral(t metasrvpb.DataType) *rapid.Generator[Value] {
	return rapid.Custom(func(r *rapid.T) Value {
		switch rapid.IntRange(0, 6).Draw(r, "literal") {
		case 0:
			return drawNumber().Draw(r, "number")
		case 1:
			return drawValue(rapid.SampledFrom([]metasrvpb.DataType{tInt, tUint, tFloat}).Draw(r, "type")).Draw(r, "small")
		case 2:
			return rapid.SampledFrom(everyKind).Draw(r, "any")
		}
		return drawNullable(t).Draw(r, "own")
	})
}

func drawPartitioner(t *rapid.T) *Partitioner {
	columns := rapid.Permutation([]string{"b", "i", "u", "f", "s", "x", "t"}).Draw(t, "columns")
	columns = columns[:rapid.IntRange(1, 3).Draw(t, "number of columns")]
	if rapid.Bool().Draw(t, "hash") {
		return mustNew(t, hashRule(rapid.Uint32Range(1, 40).Draw(t, "partitions"), columns...))
	}
	bounds := [][]Value{make([]Value, len(columns))}
	for k := range columns {
		bounds[0][k] = MaxValue()
	}
	for range rapid.IntRange(0, 12).Draw(t, "bounds") {
		b, ended := make([]Value, len(columns)), false
		for k, name := range columns {
			ended = ended || k > 0 && rapid.IntRange(0, 5).Draw(t, "ended") == 0
			if b[k] = MaxValue(); !ended {
				b[k] = drawValue(typeOf(name)).Draw(t, "bound")
			}
		}
		bounds = append(bounds, b)
	}
	slices.SortFunc(bounds, compareRows)
	bounds = slices.CompactFunc(bounds, func(a, b []Value) bool { return compareRows(a, b) == 0 })
	return mustNew(t, rangeRule(columns, bounds...))
}

func typeOf(column string) metasrvpb.DataType {
	for _, c := range schema.Columns {
		if c.Name == column {
			return c.Type
		}
	}
	return 0
}

func drawRow(t *rapid.T, p *Partitioner) []Value {
	row := make([]Value, len(p.columns))
	for k := range row {
		row[k] = drawNullable(p.types[k]).Draw(t, p.columns[k])
	}
	return row
}

// Every row is in exactly one partition, and that is where Find looks for it.
func TestEveryRowHasOnePartition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPartitioner(t)
		row := drawRow(t, p)
		found, err := p.Find(row...)
		if err != nil {
			t.Fatal(err)
		}
		if found < 0 || found >= p.Len() {
			t.Fatalf("partition %d of %d", found, p.Len())
		}
		for i, b := range p.bounds {
			above := i == 0 || compareRows(row, p.bounds[i-1]) >= 0
			if holds := above && compareRows(row, b) < 0; holds != (i == found) {
				t.Fatalf("row %v is found in %d; in %s: %t", row, found, p.Name(i), holds)
			}
		}
	})
}

func TestSplitEqualsFind(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPartitioner(t)
		columns := rapid.Permutation(append([]string{"other"}, p.columns...)).Draw(t, "order")
		var rows [][]Value
		var want []int
		for range rapid.IntRange(0, 20).Draw(t, "rows") {
			key := drawRow(t, p)
			row := make([]Value, len(columns))
			for i, c := range columns {
				if k := slices.Index(p.columns, c); k >= 0 {
					row[i] = key[k]
				}
			}
			n, err := p.Find(key...)
			if err != nil {
				t.Fatal(err)
			}
			rows, want = append(rows, row), append(want, n)
		}
		parts, err := p.Split(columns, rows)
		if err != nil {
			t.Fatal(err)
		}
		seen, last := 0, -1
		for _, part := range parts {
			if part.Partition <= last || len(part.Rows) == 0 || !slices.IsSorted(part.Rows) {
				t.Fatalf("parts out of order: %v", parts)
			}
			last, seen = part.Partition, seen+len(part.Rows)
			for _, r := range part.Rows {
				if want[r] != part.Partition {
					t.Fatalf("row %d is in part %d, found in %d", r, part.Partition, want[r])
				}
			}
		}
		if seen != len(rows) {
			t.Fatalf("%d of %d rows are in a part", seen, len(rows))
		}
	})
}

// Prune never excludes the partition of a row for which the conditions hold.
func TestPruneKeepsMatchingRows(t *testing.T) {
	matched, excluded := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		p := drawPartitioner(t)
		row := drawRow(t, p)
		var conditions []Condition
		for range rapid.IntRange(0, 4).Draw(t, "conditions") {
			k := rapid.IntRange(0, len(row)-1).Draw(t, "column")
			c := Condition{Column: p.columns[k], Op: Op(rapid.IntRange(0, int(OpIsNotNull)).Draw(t, "op"))}
			n := operands(c.Op)
			if c.Op == OpIn {
				n = rapid.IntRange(0, 4).Draw(t, "values")
			}
			for range n {
				c.Values = append(c.Values, drawLiteral(p.types[k]).Draw(t, "literal"))
			}
			if holds(c, row[k], p.types[k]) {
				conditions = append(conditions, c)
			}
		}
		left := p.Prune(conditions)
		found, err := p.Find(row...)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Contains(left, found) {
			t.Fatalf("row %v of partition %d (%s) fulfils %v, but only %v are left",
				row, found, p.Name(found), conditions, left)
		}
		if !slices.IsSorted(left) || len(slices.Compact(slices.Clone(left))) != len(left) {
			t.Fatalf("not a set: %v", left)
		}
		matched += len(conditions)
		excluded += p.Len() - len(left)
	})
	if matched == 0 || excluded == 0 {
		t.Errorf("nothing was tested: %d conditions held, %d partitions were excluded", matched, excluded)
	}
}

// Prune is exact for a range rule of one column of strings: it leaves only partitions that meet the interval.
func TestPruneIsTight(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var bounds [][]Value
		for _, s := range []string{"b", "d", "f", "h"} {
			bounds = append(bounds, bound(String(s)))
		}
		p := mustNew(t, rangeRule([]string{"s"}, append(bounds, bound(MaxValue()))...))
		letter := rapid.StringMatching("[a-i]")
		low, high := letter.Draw(t, "low"), letter.Draw(t, "high")
		left := p.Prune([]Condition{where("s", OpBetween, String(low), String(high))})
		if low > high {
			if left != nil {
				t.Fatalf("%v are left of a contradiction", left)
			}
			return
		}
		first, _ := p.Find(String(low))
		last, _ := p.Find(String(high))
		if len(left) != last-first+1 || left[0] != first {
			t.Fatalf("%v are left, want %d to %d", left, first, last)
		}
	})
}

// holds says by other means than Prune whether a condition may hold for a row; conditions without a meaning do.
func holds(c Condition, v Value, t metasrvpb.DataType) bool {
	compare := func(i int) (int, bool) {
		literal := c.Values[i]
		if literal.kind == kindString && t == tBytes {
			literal.kind = kindBytes
		}
		if literal.IsMaxValue() {
			return 0, false
		}
		if literal.IsNull() {
			return 0, true
		}
		if _, ok := Compare(literal, drawnLike(t)); !ok {
			return 0, false
		}
		return order(v, literal), true
	}
	test := func(i int, want func(int) bool) bool {
		o, ok := compare(i)
		switch {
		case !ok:
			return true
		case v.IsNull() || c.Values[i].IsNull():
			return false
		}
		return want(o)
	}
	switch c.Op {
	case OpEqual:
		return test(0, func(o int) bool { return o == 0 })
	case OpIn:
		hit := false
		for i := range c.Values {
			hit = hit || test(i, func(o int) bool { return o == 0 })
		}
		return hit
	case OpLess:
		return test(0, func(o int) bool { return o < 0 })
	case OpLessOrEqual:
		return test(0, func(o int) bool { return o <= 0 })
	case OpGreater:
		return test(0, func(o int) bool { return o > 0 })
	case OpGreaterOrEqual:
		return test(0, func(o int) bool { return o >= 0 })
	case OpBetween:
		return test(0, func(o int) bool { return o >= 0 }) && test(1, func(o int) bool { return o <= 0 })
	case OpIsNull:
		return v.IsNull()
	case OpIsNotNull:
		return !v.IsNull()
	}
	return true
}

// drawnLike returns some value of a column.
func drawnLike(t metasrvpb.DataType) Value { return Value{kind: kind(t)} }
