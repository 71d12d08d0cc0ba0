package engine

import (
	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/analyzer"
	"github.com/dolthub/go-mysql-server/sql/plan"
	"github.com/dolthub/go-mysql-server/sql/transform"
)

// anyRows is the analyzer rule that takes back what the engine concludes of a SELECT count(*), that its answer has
// one row: it believes that of the EXPLAIN of such a query too, and fails. Rules aren't shown whether a query is
// explained, and the conclusion saves next to nothing.
func anyRows(
	_ *sql.Context, _ *analyzer.Analyzer, n sql.Node, _ *plan.Scope, _ analyzer.RuleSelector, flags *sql.QueryFlags,
) (sql.Node, transform.TreeIdentity, error) {
	flags.Unset(sql.QFlagMax1Row)
	return n, transform.SameTree, nil
}
