package engine

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/types"
	"github.com/dolthub/vitess/go/mysql"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router/partition"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/column"
)

// optionPartitionNames is the option of a table's schema that holds the names of RANGE partitions.
const optionPartitionNames = "partition_names"

// optionPartitionKind is the option that holds how a hash rule was written: hash or key.
const optionPartitionKind = "partition_kind"

// CreateTable implements sql.TableCreator.
func (d *database) CreateTable(
	ctx *sql.Context, name string, schema sql.PrimaryKeySchema, collation sql.CollationID, comment string,
) error {
	clause, err := clauseOf(comment)
	if err != nil {
		return err
	}
	if collation != column.Collation {
		return notSupported("collation %s is not supported, only %s is", collation.Name(), column.Collation.Name())
	}
	t, err := d.newTable(name, schema, clause)
	if err != nil {
		return err
	}
	err = d.store.CreateTable(ctx, t)
	if errors.Is(err, metasrv.ErrTableExists) {
		if clause.IfNotExists {
			ctx.Warn(mysql.ERTableExists, "Table '%s' already exists", name)
			return nil
		}
		return sqlError(mysql.ERTableExists, "42S01", "Table '%s' already exists", name)
	}
	return toMySQL(err)
}

func (d *database) newTable(
	name string, schema sql.PrimaryKeySchema, clause createClause,
) (*cluster.NewTable, error) {
	s, err := tableSchema(schema, clause)
	if err != nil {
		return nil, err
	}
	rule, err := partitionRule(clause.Partition, s, schema.Schema)
	if err != nil {
		return nil, err
	}
	if err := misspelt(clause.Comment); err != nil {
		return nil, err
	}
	replicas, err := replicasOf(clause.Comment)
	if err != nil {
		return nil, err
	}
	return &cluster.NewTable{Name: d.store.Name(d.name, name), Schema: s, Rule: rule, Replicas: replicas}, nil
}

func tableSchema(schema sql.PrimaryKeySchema, clause createClause) (*metasrvpb.TableSchema, error) {
	s := &metasrvpb.TableSchema{Options: map[string]string{}}
	for _, c := range schema.Schema {
		col, err := column.FromSQL(c)
		if err != nil {
			return nil, notSupported("%s", err)
		}
		s.Columns = append(s.Columns, col)
	}
	for _, i := range schema.PkOrdinals {
		s.PrimaryKey = append(s.PrimaryKey, schema.Schema[i].Name)
	}
	if clause.Comment != "" {
		s.Options[optionComment] = clause.Comment
	}
	if clause.Partition != nil {
		s.Options[optionPartitionKind] = clause.Partition.Kind
	}
	if p := clause.Partition; p != nil && len(p.Names) > 0 {
		s.Options[optionPartitionNames] = strings.Join(p.Names, ",")
	}
	var err error
	s.TimeIndex, err = timeIndex(s, clause.Comment)
	return s, err
}

// partitionRule returns the rule of a PARTITION BY, nil where there is none.
func partitionRule(
	c *partitionClause, s *metasrvpb.TableSchema, schema sql.Schema,
) (*metasrvpb.PartitionRule, error) {
	if c == nil {
		return nil, nil
	}
	if c.Refused != "" {
		return nil, notSupported("%s", c.Refused)
	}
	columns := make([]*sql.Column, len(c.Columns))
	names := make([]string, len(c.Columns))
	for i, n := range c.Columns {
		at := slices.IndexFunc(schema, func(c *sql.Column) bool { return strings.EqualFold(c.Name, n) })
		if at < 0 {
			return nil, sqlError(erPartitionField, "HY000", "PARTITION BY: the table has no column '%s'", n)
		}
		columns[i], names[i] = schema[at], schema[at].Name
		if len(s.GetPrimaryKey()) > 0 && !slices.Contains(s.GetPrimaryKey(), names[i]) {
			return nil, sqlError(erUniqueKeyNeedAll, "HY000",
				"A PRIMARY KEY must include all columns in the table's partitioning function: '%s' is missing", n)
		}
	}
	rule, err := ruleOf(c, names, columns)
	if err != nil {
		return nil, err
	}
	if _, err := partition.New(rule, s); err != nil {
		return nil, toMySQL(err)
	}
	return rule, nil
}

func ruleOf(c *partitionClause, names []string, columns []*sql.Column) (*metasrvpb.PartitionRule, error) {
	if c.Kind == "range" {
		return rangeRule(c, names, columns)
	}
	n := uint64(1)
	if c.Partitions != "" {
		var err error
		if n, err = strconv.ParseUint(c.Partitions, 10, 32); err != nil {
			return nil, sqlError(erTooManyPartitions, "HY000", "PARTITIONS %s: must be 1 to %d",
				c.Partitions, partition.MaxPartitions)
		}
	}
	if n > partition.MaxPartitions {
		return nil, sqlError(erTooManyPartitions, "HY000", "PARTITIONS %d: must be 1 to %d", n, partition.MaxPartitions)
	}
	if n == 0 {
		return nil, sqlError(erNoPartitions, "HY000", "Number of partitions = 0 is not an allowed value")
	}
	if len(c.Bounds) > 0 {
		return nil, notSupported("PARTITION BY %s with named partitions is not supported, use PARTITIONS n",
			strings.ToUpper(c.Kind))
	}
	return &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
		Hash: &metasrvpb.HashRule{Columns: names, Partitions: uint32(n)},
	}}, nil
}

func rangeRule(c *partitionClause, names []string, columns []*sql.Column) (*metasrvpb.PartitionRule, error) {
	if len(c.Bounds) == 0 {
		return nil, sqlError(erPartitionsMustDefined, "HY000",
			"For RANGE partitions each partition must be defined")
	}
	if c.Partitions != "" && c.Partitions != strconv.Itoa(len(c.Bounds)) {
		return nil, sqlError(1484, "HY000", "PARTITIONS %s, but %d partitions are defined", c.Partitions, len(c.Bounds))
	}
	rule := &metasrvpb.RangeRule{Columns: names}
	for i, values := range c.Bounds {
		if len(values) != len(columns) {
			return nil, sqlError(1653, "HY000", "partition %s has %d values for %d columns",
				c.Names[i], len(values), len(columns))
		}
		bound := &metasrvpb.RangeBound{}
		for k, l := range values {
			v, err := boundValue(l, columns[k])
			if err != nil {
				return nil, sqlError(1654, "HY000", "partition %s: %s", c.Names[i], err)
			}
			bound.Values = append(bound.Values, v)
		}
		rule.Bounds = append(rule.Bounds, bound)
	}
	return &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: rule}}, nil
}

// boundValue returns a literal as the column stores it. A literal that the column would change is refused.
func boundValue(l literal, c *sql.Column) (*metasrvpb.Value, error) {
	if l.Max {
		return partition.MaxValue().Proto(), nil
	}
	stored, err := column.FromSQL(c)
	if err != nil {
		return nil, err
	}
	if quoted := !types.IsNumber(c.Type); quoted != l.Quoted {
		return nil, fmt.Errorf("%s is no value of column %s %s", l.Text, c.Name, c.Type)
	}
	v, inRange, err := c.Type.Convert(sql.NewEmptyContext(), l.Text)
	if err != nil {
		return nil, err
	}
	if inRange == sql.OutOfRange {
		return nil, fmt.Errorf("%s is out of the range of column %s %s", l.Text, c.Name, c.Type)
	}
	if types.IsInteger(c.Type) && fmt.Sprint(v) != strings.TrimPrefix(l.Text, "+") {
		return nil, fmt.Errorf("%s is no value of column %s %s", l.Text, c.Name, c.Type)
	}
	e, err := column.Encode(sql.NewEmptyContext(), stored.GetType(), v)
	if err != nil {
		return nil, err
	}
	return column.Partition(e).Proto(), nil
}
