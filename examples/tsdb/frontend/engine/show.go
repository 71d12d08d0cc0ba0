package engine

import (
	"fmt"
	"io"
	"strings"

	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/analyzer"
	"github.com/dolthub/go-mysql-server/sql/plan"
	"github.com/dolthub/go-mysql-server/sql/transform"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router/partition"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
)

// showPartitions is the analyzer rule that adds the PARTITION BY to SHOW CREATE TABLE.
func showPartitions(
	_ *sql.Context, _ *analyzer.Analyzer, n sql.Node, _ *plan.Scope, _ analyzer.RuleSelector, _ *sql.QueryFlags,
) (sql.Node, transform.TreeIdentity, error) {
	return transform.Node(n, func(n sql.Node) (sql.Node, transform.TreeIdentity, error) {
		show, ok := n.(*plan.ShowCreateTable)
		if !ok || show.IsView {
			return n, transform.SameTree, nil
		}
		resolved, ok := show.Child.(*plan.ResolvedTable)
		if !ok {
			return n, transform.SameTree, nil
		}
		t, ok := resolved.UnderlyingTable().(*table)
		if !ok {
			return n, transform.SameTree, nil
		}
		return &showCreate{show: show, table: t}, transform.NewTree, nil
	})
}

// showCreate is SHOW CREATE TABLE with the partition rule.
type showCreate struct {
	show  *plan.ShowCreateTable
	table *table
}

var _ sql.ExecSourceRel = (*showCreate)(nil)

// RowIter implements sql.ExecSourceRel.
func (s *showCreate) RowIter(ctx *sql.Context, row sql.Row) (sql.RowIter, error) {
	iter, err := rowexecBuilder.Build(ctx, s.show, row)
	if err != nil {
		return nil, err
	}
	rule, err := s.table.store.PartitionRule(ctx, s.table.t)
	if err != nil {
		return nil, toMySQL(err)
	}
	if rule.GetRule() == nil {
		return iter, nil
	}
	return &showCreateIter{RowIter: iter, clause: partitionText(s.table.t, rule)}, nil
}

// Resolved implements sql.Node.
func (s *showCreate) Resolved() bool { return s.show.Resolved() }

// String implements sql.Node.
func (s *showCreate) String() string { return s.show.String() }

// Schema implements sql.Node.
func (s *showCreate) Schema() sql.Schema { return s.show.Schema() }

// Children implements sql.Node.
func (s *showCreate) Children() []sql.Node { return nil }

// WithChildren implements sql.Node.
func (s *showCreate) WithChildren(children ...sql.Node) (sql.Node, error) {
	if len(children) != 0 {
		return nil, sql.ErrInvalidChildrenNumber.New(s, len(children), 0)
	}
	return s, nil
}

// IsReadOnly implements sql.Node.
func (s *showCreate) IsReadOnly() bool { return true }

type showCreateIter struct {
	sql.RowIter
	clause string
}

// Next implements sql.RowIter.
func (i *showCreateIter) Next(ctx *sql.Context) (sql.Row, error) {
	row, err := i.RowIter.Next(ctx)
	if err != nil {
		if err == io.EOF { //nolint:errorlint // io.EOF is never wrapped here
			return nil, io.EOF
		}
		return nil, err
	}
	const statement = 1
	row = row.Copy()
	row[statement] = fmt.Sprint(row[statement]) + "\n" + i.clause
	return row, nil
}

// partitionText returns the PARTITION BY of a table.
func partitionText(t *cluster.Table, rule *metasrvpb.PartitionRule) string {
	switch r := rule.GetRule().(type) {
	case *metasrvpb.PartitionRule_Hash:
		kind := "HASH"
		if len(r.Hash.GetColumns()) > 1 || t.Schema.GetOptions()[optionPartitionKind] == "key" {
			kind = "KEY"
		}
		return fmt.Sprintf("PARTITION BY %s (%s)\nPARTITIONS %d", kind, quoteAll(r.Hash.GetColumns()),
			r.Hash.GetPartitions())
	case *metasrvpb.PartitionRule_Range:
		return fmt.Sprintf("PARTITION BY RANGE COLUMNS(%s)\n(%s)", quoteAll(r.Range.GetColumns()),
			strings.Join(rangeTexts(t, r.Range), ",\n "))
	}
	return "/* PARTITION BY of another kind */"
}

func rangeTexts(t *cluster.Table, r *metasrvpb.RangeRule) []string {
	names := strings.Split(t.Schema.GetOptions()[optionPartitionNames], ",")
	texts := make([]string, len(r.GetBounds()))
	for i, b := range r.GetBounds() {
		name := fmt.Sprintf("p%d", i)
		if len(names) == len(texts) {
			name = names[i]
		}
		values := make([]string, len(b.GetValues()))
		isMax := true
		for k, v := range b.GetValues() {
			c, _ := t.Column(r.GetColumns()[k])
			values[k] = boundText(v, c)
			isMax = isMax && v.GetMaxValue()
		}
		text := strings.Join(values, ",")
		switch {
		case isMax:
			text = "MAXVALUE"
		case len(values) > 1:
			text = "(" + text + ")"
		}
		texts[i] = fmt.Sprintf("PARTITION %s VALUES LESS THAN (%s)", sql.QuoteIdentifier(name), text)
	}
	return texts
}

func boundText(m *metasrvpb.Value, c *metasrvpb.Column) string {
	if m.GetMaxValue() {
		return "MAXVALUE"
	}
	switch k := m.GetKind().(type) {
	case *metasrvpb.Value_BoolValue:
		if k.BoolValue {
			return "1"
		}
		return "0"
	case *metasrvpb.Value_StringValue:
		return "'" + strings.NewReplacer(`\`, `\\`, `'`, `''`).Replace(k.StringValue) + "'"
	case *metasrvpb.Value_TimestampValue:
		return "'" + column.Timestamp(k.TimestampValue).Time().Format(sql.TimestampDatetimeLayout) + "'"
	}
	v, err := partition.FromProto(m)
	if err != nil || c == nil {
		return "?"
	}
	return v.String()
}

func quoteAll(names []string) string {
	quoted := make([]string, len(names))
	for i, n := range names {
		quoted[i] = sql.QuoteIdentifier(n)
	}
	return strings.Join(quoted, ",")
}
