package cluster

import (
	"slices"
	"strings"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
)

// Table is a table as it was when it was looked up. It is not to be changed.
type Table struct {
	Name          metasrv.TableName
	ID            metasrv.TableID
	Schema        *metasrvpb.TableSchema
	SchemaVersion uint64
}

// Column returns the column with the given name and its place in the schema, or -1.
func (t *Table) Column(name string) (*metasrvpb.Column, int) {
	i := slices.IndexFunc(t.Schema.GetColumns(), func(c *metasrvpb.Column) bool {
		return strings.EqualFold(c.GetName(), name)
	})
	if i < 0 {
		return nil, -1
	}
	return t.Schema.GetColumns()[i], i
}

// NewTable describes a table to create.
type NewTable struct {
	Name   metasrv.TableName
	Schema *metasrvpb.TableSchema
	// Rule is nil for a table of one region.
	Rule *metasrvpb.PartitionRule
	// Replicas of each region; 0 means the cluster's default.
	Replicas uint32
}

// Insert is rows for one table. Rows hold a stored value (package column) for each column of the table's schema.
type Insert struct {
	Table *Table
	Rows  [][]any
}

// Condition is what a query asks of one column. Only rows for which all conditions hold are wanted; a reader
// must check more if it needs more.
type Condition struct {
	Column     string
	Comparison tsdbpb.Comparison
	// Values are stored values of the column's type: one; any number for IN; none for IS NULL and IS NOT NULL.
	Values []any
}

// Query is what a scan reads of a table.
type Query struct {
	// Columns to return, in this order. None: rows without values.
	Columns []*metasrvpb.Column
	// Conditions must all hold.
	Conditions []Condition
}

// RowIter reads rows of stored values.
type RowIter interface {
	// Next returns the next row, io.EOF behind the last one.
	Next() ([]any, error)
	// Close ends the reading and waits until nothing of it runs any more.
	Close()
}
