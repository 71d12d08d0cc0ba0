package engine

import (
	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/analyzer"
	"github.com/dolthub/go-mysql-server/sql/expression"
	"github.com/dolthub/go-mysql-server/sql/plan"
	"github.com/dolthub/go-mysql-server/sql/transform"
	"github.com/dolthub/go-mysql-server/sql/types"
)

// keepLike is the analyzer rule that names the escape character of every LIKE. The engine leaves those alone; others
// with a prefix it turns into s >= 'a' AND s <= 'aÿ', which loses every string whose next character is above ÿ.
func keepLike(
	_ *sql.Context, _ *analyzer.Analyzer, n sql.Node, _ *plan.Scope, _ analyzer.RuleSelector, _ *sql.QueryFlags,
) (sql.Node, transform.TreeIdentity, error) {
	return withEscapes(n)
}

func withEscapes(n sql.Node) (sql.Node, transform.TreeIdentity, error) {
	return transform.NodeExprsWithOpaque(n, func(e sql.Expression) (sql.Expression, transform.TreeIdentity, error) {
		switch e := e.(type) {
		case *expression.Like:
			if e.Escape == nil {
				escape := expression.NewLiteral(`\`, types.LongText)
				return expression.NewLike(e.LeftChild, e.RightChild, escape), transform.NewTree, nil
			}
		case *plan.Subquery:
			query, same, err := withEscapes(e.Query)
			if err != nil || same {
				return e, transform.SameTree, err
			}
			return e.WithQuery(query), transform.NewTree, nil
		}
		return e, transform.SameTree, nil
	})
}
