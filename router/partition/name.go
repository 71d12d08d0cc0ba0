package partition

import (
	"fmt"
	"strings"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Name returns what a partition holds, for people: host < 'm', 'm' <= host < 't', hash(host) % 4 = 2, all rows.
func (p *Partitioner) Name(partition int) string {
	switch {
	case p.partitions > 0:
		return fmt.Sprintf("hash(%s) %% %d = %d", strings.Join(p.columns, ", "), p.partitions, partition)
	case len(p.bounds) > 1:
		return p.rangeName(partition)
	}
	return "all rows"
}

func (p *Partitioner) rangeName(i int) string {
	columns := p.columns[0]
	if len(p.columns) > 1 {
		columns = "(" + strings.Join(p.columns, ", ") + ")"
	}
	switch i {
	case 0:
		return columns + " < " + tuple(p.bounds[0])
	case len(p.bounds) - 1:
		return columns + " >= " + tuple(p.bounds[i-1])
	}
	return tuple(p.bounds[i-1]) + " <= " + columns + " < " + tuple(p.bounds[i])
}

// Compat returns a partition of a range rule in the form of the early public protocol: the partition columns and
// the upper bound in JSON. It is nil for other rules, which that protocol doesn't know, and for a bound that JSON
// can't express: an infinite float, a string that is not UTF-8.
func (p *Partitioner) Compat(partition int) *metasrvpb.Partition {
	if len(p.bounds) == 0 {
		return nil
	}
	m := &metasrvpb.Partition{}
	for k, v := range p.bounds[partition] {
		b, err := EncodeJSON(v)
		if err != nil {
			return nil
		}
		m.ColumnList = append(m.ColumnList, []byte(p.columns[k]))
		m.ValueList = append(m.ValueList, b)
	}
	return m
}
