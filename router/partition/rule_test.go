package partition

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	tBool  = metasrvpb.DataType_DATA_TYPE_BOOL
	tInt   = metasrvpb.DataType_DATA_TYPE_INT64
	tUint  = metasrvpb.DataType_DATA_TYPE_UINT64
	tFloat = metasrvpb.DataType_DATA_TYPE_FLOAT64
	tStr   = metasrvpb.DataType_DATA_TYPE_STRING
	tBytes = metasrvpb.DataType_DATA_TYPE_BYTES
	tTime  = metasrvpb.DataType_DATA_TYPE_TIMESTAMP
)

// schema has one column of each type.
var schema = &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{
	{Name: "b", Type: tBool}, {Name: "i", Type: tInt}, {Name: "u", Type: tUint}, {Name: "f", Type: tFloat},
	{Name: "s", Type: tStr}, {Name: "x", Type: tBytes}, {Name: "t", Type: tTime}, {Name: "untyped"},
}}

func bound(values ...Value) []Value { return values }

func rangeRule(columns []string, bounds ...[]Value) *metasrvpb.PartitionRule {
	r := &metasrvpb.RangeRule{Columns: columns}
	for _, b := range bounds {
		m := &metasrvpb.RangeBound{}
		for _, v := range b {
			m.Values = append(m.Values, v.Proto())
		}
		r.Bounds = append(r.Bounds, m)
	}
	return &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: r}}
}

func hashRule(n uint32, columns ...string) *metasrvpb.PartitionRule {
	return &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
		Hash: &metasrvpb.HashRule{Columns: columns, Partitions: n},
	}}
}

func mustNew(t interface {
	Helper()
	Fatal(...any)
}, rule *metasrvpb.PartitionRule) *Partitioner {
	t.Helper()
	p, err := New(rule, schema)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestNewRefuses(t *testing.T) {
	s, i, m := String, Int64, MaxValue()
	tests := []struct {
		name    string
		rule    *metasrvpb.PartitionRule
		field   string
		message string
	}{
		{"no columns", rangeRule(nil, bound(m)), "range.columns", "is empty"},
		{"unknown column", rangeRule([]string{"no"}, bound(m)), "range.columns[0]", `no column "no"`},
		{"column twice", rangeRule([]string{"s", "s"}, bound(m, m)), "range.columns[1]", `"s" a second time`},
		{"untyped column", rangeRule([]string{"untyped"}, bound(m)), "range.columns[0]", "UNSPECIFIED"},
		{"no bounds", rangeRule([]string{"s"}), "range.bounds", "is empty"},
		{"gap at the end", rangeRule([]string{"s"}, bound(s("a")), bound(s("m"))), "range.bounds[1]",
			"rows from 'm' on belong to no partition"},
		{"gap at the end of two columns", rangeRule([]string{"s", "i"}, bound(s("a"), m)), "range.bounds[0]",
			"rows from ('a', MAXVALUE) on belong to no partition"},
		{"falling", rangeRule([]string{"s"}, bound(s("t")), bound(s("m")), bound(m)), "range.bounds[1]",
			"rows from 'm' to 't' would belong to two partitions"},
		{"equal", rangeRule([]string{"i"}, bound(i(1)), bound(i(1)), bound(m)), "range.bounds[1]",
			"1 is also the bound before it: partition 1 would hold no row"},
		{"MAXVALUE twice", rangeRule([]string{"i"}, bound(m), bound(m)), "range.bounds[1]", "MAXVALUE is also"},
		{"value behind MAXVALUE", rangeRule([]string{"s", "i"}, bound(m, i(1)), bound(m, m)),
			"range.bounds[0].values[1]", "is 1 behind MAXVALUE"},
		{"too few values", rangeRule([]string{"s", "i"}, bound(s("a")), bound(m, m)), "range.bounds[0]",
			"has 1 values for 2 columns"},
		{"wrong type", rangeRule([]string{"s"}, bound(i(10)), bound(m)), "range.bounds[0].values[0]",
			`10 is of type INT64, column "s" is of type STRING`},
		{"null", rangeRule([]string{"i"}, bound(Null()), bound(m)), "range.bounds[0].values[0]", "is NULL"},
		{"NaN", rangeRule([]string{"f"}, bound(Float64(math.NaN())), bound(m)), "range.bounds[0].values[0]", "is NaN"},
		{"negative zero after zero", rangeRule([]string{"f"}, bound(Float64(0)), bound(Float64(math.Copysign(0, -1))),
			bound(m)), "range.bounds[1]", "is also the bound before it"},
		{"hash without columns", hashRule(4), "hash.columns", "is empty"},
		{"hash of no partition", hashRule(0, "s"), "hash.partitions", "is 0, must be 1 to 4096"},
		{"hash of too many partitions", hashRule(4097, "s"), "hash.partitions", "is 4097"},
		{"hash of an unknown column", hashRule(4, "s", "no"), "hash.columns[1]", `no column "no"`},
		{"false max_value", &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: &metasrvpb.RangeRule{
			Columns: []string{"i"}, Bounds: []*metasrvpb.RangeBound{{Values: []*metasrvpb.Value{
				{Kind: &metasrvpb.Value_MaxValue{}}}}}}}}, "range.bounds[0].values[0]", "max_value: is false"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := New(test.rule, schema)
			var e *metasrv.Error
			if !errors.As(err, &e) || !errors.Is(err, metasrv.ErrInvalidArgument) {
				t.Fatalf("got %v, want ErrInvalidArgument", err)
			}
			if want := "partition_rule." + test.field; e.Field != want {
				t.Errorf("field %q, want %q", e.Field, want)
			}
			if !strings.Contains(e.Message, test.message) {
				t.Errorf("message %q lacks %q", e.Message, test.message)
			}
		})
	}
}

func TestNewRefusesTooManyBounds(t *testing.T) {
	var bounds [][]Value
	for i := range MaxPartitions {
		bounds = append(bounds, bound(Int64(int64(i))))
	}
	if _, err := New(rangeRule([]string{"i"}, append(bounds, bound(MaxValue()))...), schema); err == nil {
		t.Error("a rule of more than MaxPartitions is accepted")
	}
	mustNew(t, rangeRule([]string{"i"}, append(bounds[1:], bound(MaxValue()))...))
}

// A rule of a later version must not be taken for no rule.
func TestNewRefusesUnknownRule(t *testing.T) {
	rule := &metasrvpb.PartitionRule{}
	if err := proto.Unmarshal([]byte{0x7a, 0x00}, rule); err != nil { // field 15, empty message
		t.Fatal(err)
	}
	if _, err := New(rule, schema); !errors.Is(err, metasrv.ErrInvalidArgument) {
		t.Errorf("got %v, want ErrInvalidArgument", err)
	}
}

func TestNoRule(t *testing.T) {
	for _, rule := range []*metasrvpb.PartitionRule{nil, {}} {
		p, err := New(rule, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := p.Find(); p.Len() != 1 || n != 0 || err != nil {
			t.Errorf("%d partitions, Find: %d, %v", p.Len(), n, err)
		}
		parts, err := p.Split([]string{"i"}, [][]Value{{Int64(1)}, {Int64(2)}})
		if diff := cmp.Diff([]Part{{Rows: []int{0, 1}}}, parts); err != nil || diff != "" {
			t.Error(err, diff)
		}
		if got := p.Prune([]Condition{{Column: "i", Op: OpEqual, Values: []Value{Int64(1)}}}); len(got) != 1 {
			t.Errorf("Prune: %v", got)
		}
	}
}

func TestName(t *testing.T) {
	m := MaxValue()
	one := mustNew(t, rangeRule([]string{"s"}, bound(String("it's")), bound(String("t")), bound(m)))
	two := mustNew(t, rangeRule([]string{"s", "i"}, bound(String("a"), Int64(1)), bound(String("a"), m), bound(m, m)))
	tests := []struct {
		p    *Partitioner
		n    int
		want string
	}{
		{one, 0, "s < 'it''s'"},
		{one, 1, "'it''s' <= s < 't'"},
		{one, 2, "s >= 't'"},
		{two, 0, "(s, i) < ('a', 1)"},
		{two, 1, "('a', 1) <= (s, i) < ('a', MAXVALUE)"},
		{two, 2, "(s, i) >= ('a', MAXVALUE)"},
		{mustNew(t, hashRule(4, "s", "i")), 2, "hash(s, i) % 4 = 2"},
		{mustNew(t, rangeRule([]string{"s"}, bound(m))), 0, "all rows"},
		{mustNew(t, nil), 0, "all rows"},
	}
	for _, test := range tests {
		if got := test.p.Name(test.n); got != test.want {
			t.Errorf("got %q, want %q", got, test.want)
		}
	}
}
