package partition

import (
	"sort"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Partitioner is a checked partition rule of a table. It is immutable and safe for concurrent use.
type Partitioner struct {
	columns []string
	types   []metasrvpb.DataType
	// bounds are the upper bounds of a range rule, in the values of the columns' types.
	bounds [][]Value
	// partitions is the number of partitions of a hash rule, else 0.
	partitions int
}

// Len returns the number of partitions, at least 1.
func (p *Partitioner) Len() int {
	switch {
	case p.partitions > 0:
		return p.partitions
	case len(p.bounds) > 0:
		return len(p.bounds)
	}
	return 1
}

// Columns returns the names of the partition columns in the rule's order, none where there is no rule. The caller
// must not change it.
func (p *Partitioner) Columns() []string { return p.columns }

// Find returns the partition of the row that has these values in the partition columns, in the order of
// Columns. A value that its column can't hold is ErrInvalidArgument naming the column.
func (p *Partitioner) Find(values ...Value) (int, error) {
	if len(values) != len(p.columns) {
		return 0, metasrv.InvalidArgument("", "%d values for %d partition columns", len(values), len(p.columns))
	}
	var buf [4]Value
	row := buf[:0]
	for i, v := range values {
		held, err := p.hold(i, v)
		if err != nil {
			return 0, err
		}
		row = append(row, held)
	}
	return p.find(row), nil
}

// hold returns v as partition column i holds it.
func (p *Partitioner) hold(i int, v Value) (Value, error) {
	held, f := convert(v, p.types[i])
	switch {
	case v.isNaN():
		return Value{}, metasrv.InvalidArgument(p.columns[i], "NaN has no order, so it belongs to no partition")
	case f != fits:
		return Value{}, metasrv.InvalidArgument(p.columns[i], "%s %s is no %s", v.kind, v, typeName(p.types[i]))
	}
	return held, nil
}

// find returns the partition of a row of held values.
func (p *Partitioner) find(row []Value) int {
	switch {
	case p.partitions > 0:
		return int(hash(row) % uint64(p.partitions)) //nolint:gosec // both are below MaxPartitions
	case len(p.bounds) > 0:
		return sort.Search(len(p.bounds), func(i int) bool { return compareRows(row, p.bounds[i]) < 0 })
	}
	return 0
}

func compareRows(a, b []Value) int {
	for i := range a {
		if c := order(a[i], b[i]); c != 0 {
			return c
		}
	}
	return 0
}

// Part is the rows of a batch that belong to one partition.
type Part struct {
	Partition int
	// Rows are indexes into the batch, rising.
	Rows []int
}

// Split groups the rows of a batch by partition, in the order of the partitions; partitions without rows are left
// out. columns names the values of each row and holds at least the partition columns. Errors are
// ErrInvalidArgument and name the row and the column.
func (p *Partitioner) Split(columns []string, rows [][]Value) ([]Part, error) {
	at, err := p.positions(columns)
	if err != nil {
		return nil, err
	}
	of := make([][]int, p.Len())
	key := make([]Value, len(at))
	for i, row := range rows {
		if len(row) != len(columns) {
			return nil, metasrv.InvalidArgument("", "row %d has %d values for %d columns", i, len(row), len(columns))
		}
		for k, pos := range at {
			if key[k], err = p.hold(k, row[pos]); err != nil {
				return nil, atRow(i, err)
			}
		}
		n := p.find(key)
		of[n] = append(of[n], i)
	}
	var parts []Part
	for n, rows := range of {
		if len(rows) > 0 {
			parts = append(parts, Part{Partition: n, Rows: rows})
		}
	}
	return parts, nil
}

// positions returns where the partition columns stand in columns.
func (p *Partitioner) positions(columns []string) ([]int, error) {
	position := make(map[string]int, len(columns))
	for i, c := range columns {
		if _, twice := position[c]; twice {
			return nil, metasrv.InvalidArgument(c, "the column is given twice")
		}
		position[c] = i
	}
	at := make([]int, len(p.columns))
	for k, c := range p.columns {
		i, ok := position[c]
		if !ok {
			return nil, metasrv.InvalidArgument(c, "the partition column is missing in the rows")
		}
		at[k] = i
	}
	return at, nil
}

func atRow(i int, err error) error {
	e, ok := err.(*metasrv.Error) //nolint:errorlint // hold returns it unwrapped
	if !ok {
		return err
	}
	return metasrv.InvalidArgument(e.Field, "row %d: %s", i, e.Message)
}
