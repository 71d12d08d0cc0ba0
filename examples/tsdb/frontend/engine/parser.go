package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"strings"

	"github.com/dolthub/go-mysql-server/sql"
	ast "github.com/dolthub/vitess/go/vt/sqlparser"
)

// parser carries what the engine drops of CREATE TABLE from the parsed statement to database.CreateTable: it
// replaces the table's comment by a clause that holds it, the PARTITION BY and the IF NOT EXISTS.
type parser struct{ sql.Parser }

// ParseSimple implements sql.Parser.
func (p parser) ParseSimple(query string) (ast.Statement, error) {
	stmt, err := p.Parser.ParseSimple(query)
	return prepared(query, stmt, err)
}

// Parse implements sql.Parser.
func (p parser) Parse(ctx *sql.Context, query string, multi bool) (ast.Statement, string, string, error) {
	stmt, parsed, remainder, err := p.Parser.Parse(ctx, query, multi)
	stmt, err = prepared(query, stmt, err)
	return stmt, parsed, remainder, err
}

// ParseWithOptions implements sql.Parser.
func (p parser) ParseWithOptions(
	ctx context.Context, query string, delimiter rune, multi bool, options ast.ParserOptions,
) (ast.Statement, string, string, error) {
	stmt, parsed, remainder, err := p.Parser.ParseWithOptions(ctx, query, delimiter, multi, options)
	stmt, err = prepared(query, stmt, err)
	return stmt, parsed, remainder, err
}

// ParseOneWithOptions implements sql.Parser.
func (p parser) ParseOneWithOptions(
	ctx context.Context, query string, options ast.ParserOptions,
) (ast.Statement, int, error) {
	stmt, next, err := p.Parser.ParseOneWithOptions(ctx, query, options)
	stmt, err = prepared(query, stmt, err)
	return stmt, next, err
}

// prepared returns the parsed statement as the engine is to run it, or an error without a statement: the engine's
// handler of connections that send several statements at a time drops the error and runs any statement it gets;
// without one it parses again.
func prepared(query string, stmt ast.Statement, err error) (ast.Statement, error) {
	switch {
	case err == nil:
		err = prepare(stmt)
	case bareMaxvalue.MatchString(query):
		err = fmt.Errorf("%w: write VALUES LESS THAN (MAXVALUE)", err)
	}
	if err != nil {
		return nil, err
	}
	return stmt, nil
}

// bareMaxvalue is a form of MySQL's that the engine's parser doesn't take.
var bareMaxvalue = regexp.MustCompile(`(?i)\bLESS\s+THAN\s+MAXVALUE\b`)

// createClause is what CreateTable needs beyond its arguments.
type createClause struct {
	Comment     string
	IfNotExists bool
	Partition   *partitionClause
}

// partitionClause is a PARTITION BY.
type partitionClause struct {
	Kind       string // range, hash or key
	Columns    []string
	Partitions string
	Names      []string
	Bounds     [][]literal
	// Refused says why the clause can't be used, empty where it can.
	Refused string
}

// literal is a value of a bound as it was written.
type literal struct {
	Text   string
	Quoted bool
	Max    bool
}

const optionNameComment = "comment"

// prepare refuses statements that the engine would take to its own rules, and adds the clause to CREATE TABLE.
func prepare(stmt ast.Statement) error {
	if why := refusedStatement(stmt); why != "" {
		return refusal(why)
	}
	switch s := stmt.(type) {
	case *ast.DDL:
		if s.Action == ast.CreateStr && s.TableSpec != nil {
			addClause(s)
		}
	case *ast.Explain:
		// Without a format the engine answers with a placeholder of MySQL's columns, which it sends malformed.
		s.Plan = s.Plan || s.ExplainFormat == ""
	}
	return nil
}

func addClause(ddl *ast.DDL) {
	clause := createClause{IfNotExists: ddl.IfNotExists, Partition: partitionBy(ddl.TableSpec.PartitionOpt)}
	options := ddl.TableSpec.TableOpts[:0:0]
	for _, o := range ddl.TableSpec.TableOpts {
		if strings.EqualFold(o.Name, optionNameComment) {
			clause.Comment = o.Value
			continue
		}
		options = append(options, o)
	}
	text, err := json.Marshal(clause)
	if err != nil {
		panic(err) // strings and booleans only
	}
	options = append(options, &ast.TableOption{Name: optionNameComment, Value: string(text)})
	ddl.TableSpec.TableOpts = options
}

// clauseOf returns what addClause put into the comment.
func clauseOf(comment string) (createClause, error) {
	var c createClause
	if err := json.Unmarshal([]byte(comment), &c); err != nil {
		return c, fmt.Errorf("CREATE TABLE did not come through the parser: %w", err)
	}
	return c, nil
}

func partitionBy(o *ast.PartitionOption) *partitionClause {
	if o == nil {
		return nil
	}
	c := &partitionClause{Kind: strings.ToLower(o.PartitionType)}
	if o.Partitions != nil {
		c.Partitions = string(o.Partitions.Val)
	}
	switch {
	case o.IsLinear:
		c.Refused = "LINEAR is not supported"
	case o.KeyAlgorithm != "":
		c.Refused = "ALGORITHM is not supported"
	case o.SubPartition != nil:
		c.Refused = "SUBPARTITION is not supported"
	case c.Kind == "list":
		c.Refused = "PARTITION BY LIST is not supported, use RANGE COLUMNS, HASH or KEY"
	case o.Expr != nil:
		col, ok := o.Expr.(*ast.ColName)
		if !ok {
			c.Refused = fmt.Sprintf("PARTITION BY %s of an expression is not supported, name a column",
				strings.ToUpper(c.Kind))
			break
		}
		c.Columns = []string{col.Name.String()}
	}
	for _, col := range o.ColList {
		c.Columns = append(c.Columns, col.String())
	}
	for _, d := range o.Definitions {
		c.addBound(d)
	}
	return c
}

func (c *partitionClause) addBound(d *ast.PartitionDefinition) {
	c.Names = append(c.Names, d.Name.String())
	if d.Maxvalue {
		bound := make([]literal, max(1, len(c.Columns)))
		for i := range bound {
			bound[i].Max = true
		}
		c.Bounds = append(c.Bounds, bound)
		return
	}
	values := ast.ValTuple{d.Limit}
	if tuple, ok := d.Limit.(ast.ValTuple); ok {
		values = tuple
	}
	bound := make([]literal, len(values))
	for i, v := range values {
		l, ok := literalOf(v)
		if !ok && c.Refused == "" {
			c.Refused = fmt.Sprintf("partition %s: the bound %s is no literal", d.Name, ast.String(v))
		}
		bound[i] = l
	}
	c.Bounds = append(c.Bounds, bound)
}

func literalOf(e ast.Expr) (literal, bool) {
	switch v := e.(type) {
	case *ast.ParenExpr:
		return literalOf(v.Expr)
	case *ast.UnaryExpr:
		l, ok := literalOf(v.Expr)
		l.Text = v.Operator + l.Text
		return l, ok && !l.Quoted && (v.Operator == ast.MinusStr || v.Operator == ast.PlusStr)
	case ast.BoolVal:
		if v {
			return literal{Text: "1"}, true
		}
		return literal{Text: "0"}, true
	case *ast.SQLVal:
		switch v.Type {
		case ast.StrVal:
			return literal{Text: string(v.Val), Quoted: true}, true
		case ast.IntVal, ast.FloatVal:
			return literal{Text: string(v.Val)}, true
		}
	}
	return literal{}, false
}
