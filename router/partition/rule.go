package partition

import (
	"fmt"
	"slices"
	"strings"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// MaxPartitions is the largest number of partitions of a table.
const MaxPartitions = 4096

// New checks a rule against the table's schema and returns its Partitioner. A nil or an empty rule is one
// partition, and needs no schema. Errors are ErrInvalidArgument; their fields name the place in the rule as a
// request spells it, such as partition_rule.range.bounds[2].
func New(rule *metasrvpb.PartitionRule, schema *metasrvpb.TableSchema) (*Partitioner, error) {
	const field = "partition_rule"
	switch r := rule.GetRule().(type) {
	case nil:
		if len(rule.ProtoReflect().GetUnknown()) > 0 {
			return nil, metasrv.InvalidArgument(field, "is of a kind that this version doesn't know")
		}
		return &Partitioner{}, nil
	case *metasrvpb.PartitionRule_Range:
		return newRange(field+".range", r.Range, schema)
	case *metasrvpb.PartitionRule_Hash:
		return newHash(field+".hash", r.Hash, schema)
	}
	return nil, metasrv.InvalidArgument(field, "is of a kind that this version doesn't know")
}

func newHash(field string, rule *metasrvpb.HashRule, schema *metasrvpb.TableSchema) (*Partitioner, error) {
	p, err := newColumns(field, rule.GetColumns(), schema)
	if err != nil {
		return nil, err
	}
	if n := rule.GetPartitions(); n < 1 || n > MaxPartitions {
		return nil, metasrv.InvalidArgument(field+".partitions", "is %d, must be 1 to %d", n, MaxPartitions)
	}
	p.partitions = int(rule.GetPartitions())
	return p, nil
}

func newRange(field string, rule *metasrvpb.RangeRule, schema *metasrvpb.TableSchema) (*Partitioner, error) {
	p, err := newColumns(field, rule.GetColumns(), schema)
	if err != nil {
		return nil, err
	}
	switch n := len(rule.GetBounds()); {
	case n == 0:
		return nil, metasrv.InvalidArgument(field+".bounds",
			"is empty: no row belongs to a partition; the last bound must be MAXVALUE")
	case n > MaxPartitions:
		return nil, metasrv.InvalidArgument(field+".bounds", "has %d bounds, at most %d are allowed", n, MaxPartitions)
	}
	for i, b := range rule.GetBounds() {
		if err := p.addBound(fmt.Sprintf("%s.bounds[%d]", field, i), b); err != nil {
			return nil, err
		}
	}
	last := len(p.bounds) - 1
	if b := p.bounds[last]; !b[0].IsMaxValue() {
		return nil, metasrv.InvalidArgument(fmt.Sprintf("%s.bounds[%d]", field, last),
			"rows from %s on belong to no partition: the last bound must be MAXVALUE", tuple(b))
	}
	return p, nil
}

// newColumns returns a Partitioner of the rule's columns.
func newColumns(field string, columns []string, schema *metasrvpb.TableSchema) (*Partitioner, error) {
	if len(columns) == 0 {
		return nil, metasrv.InvalidArgument(field+".columns", "is empty")
	}
	p := &Partitioner{columns: slices.Clone(columns)}
	for i, name := range columns {
		field := fmt.Sprintf("%s.columns[%d]", field, i)
		if slices.Contains(columns[:i], name) {
			return nil, metasrv.InvalidArgument(field, "names column %q a second time", name)
		}
		at := slices.IndexFunc(schema.GetColumns(), func(c *metasrvpb.Column) bool { return c.GetName() == name })
		if at < 0 {
			return nil, metasrv.InvalidArgument(field, "the table has no column %q", name)
		}
		t := schema.GetColumns()[at].GetType()
		if t <= metasrvpb.DataType_DATA_TYPE_UNSPECIFIED || t > metasrvpb.DataType_DATA_TYPE_TIMESTAMP {
			return nil, metasrv.InvalidArgument(field, "column %q is of type %s, by which rows can't be partitioned",
				name, typeName(t))
		}
		p.types = append(p.types, t)
	}
	return p, nil
}

// addBound appends the next upper bound.
func (p *Partitioner) addBound(field string, bound *metasrvpb.RangeBound) error {
	if n := len(bound.GetValues()); n != len(p.columns) {
		return metasrv.InvalidArgument(field, "has %d values for %d columns", n, len(p.columns))
	}
	values := make([]Value, len(p.columns))
	for k, m := range bound.GetValues() {
		v, err := p.boundValue(k, m)
		if err != nil {
			return metasrv.InvalidArgument(fmt.Sprintf("%s.values[%d]", field, k), "%s", err)
		}
		// Nothing lies between (MAXVALUE, 1) and (MAXVALUE, 2): a partition between them would stay empty.
		if k > 0 && values[k-1].IsMaxValue() && !v.IsMaxValue() {
			return metasrv.InvalidArgument(fmt.Sprintf("%s.values[%d]", field, k),
				"is %s behind MAXVALUE; only MAXVALUE may follow", v)
		}
		values[k] = v
	}
	if i := len(p.bounds); i > 0 {
		before := p.bounds[i-1]
		switch c := compareRows(before, values); {
		case c == 0:
			return metasrv.InvalidArgument(field, "%s is also the bound before it: partition %d would hold no row",
				tuple(values), i)
		case c > 0:
			return metasrv.InvalidArgument(field,
				"%s is below the bound before it, %s: rows from %s to %s would belong to two partitions",
				tuple(values), tuple(before), tuple(values), tuple(before))
		}
	}
	p.bounds = append(p.bounds, values)
	return nil
}

// boundValue returns the value of a bound for column k.
func (p *Partitioner) boundValue(k int, m *metasrvpb.Value) (Value, error) {
	v, err := FromProto(m)
	switch {
	case err != nil:
		return Value{}, err
	case v.IsMaxValue():
		return v, nil
	case v.IsNull():
		return Value{}, fmt.Errorf("is NULL; no row is below NULL")
	case v.isNaN():
		return Value{}, fmt.Errorf("is NaN, which has no order")
	case v.kind != kind(p.types[k]):
		return Value{}, fmt.Errorf("%s is of type %s, column %q is of type %s",
			v, v.kind, p.columns[k], typeName(p.types[k]))
	}
	return v, nil
}

// tuple returns the values as people read them: 'm' or ('m', 10).
func tuple(values []Value) string {
	if len(values) == 1 {
		return values[0].String()
	}
	s := make([]string, len(values))
	for i, v := range values {
		s[i] = v.String()
	}
	return "(" + strings.Join(s, ", ") + ")"
}
