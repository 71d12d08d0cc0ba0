package engine

import (
	"fmt"
	"strings"

	"github.com/dolthub/go-mysql-server/sql"
	"github.com/dolthub/go-mysql-server/sql/analyzer"
	"github.com/dolthub/go-mysql-server/sql/expression"
	"github.com/dolthub/go-mysql-server/sql/plan"
	"github.com/dolthub/go-mysql-server/sql/transform"
	ast "github.com/dolthub/vitess/go/vt/sqlparser"
)

// refusalPrefix marks what the parser refuses, since the engine keeps no more than the text of its errors.
const refusalPrefix = "tsdb: "

type refusal string

// Error implements error.
func (r refusal) Error() string { return refusalPrefix + string(r) }

// refusedStatement says why a statement is refused that the engine doesn't show to refuse, or runs by rules of its
// own. Empty: it isn't.
func refusedStatement(stmt ast.Statement) string {
	switch s := stmt.(type) {
	case *ast.Begin, *ast.Rollback, *ast.Savepoint, *ast.RollbackSavepoint, *ast.ReleaseSavepoint:
		return "transactions are not supported: each statement is acknowledged by itself"
	case *ast.Update:
		return "UPDATE is not supported: INSERT a row with the same primary key to replace it"
	case *ast.Delete:
		return "DELETE is not supported"
	case *ast.Insert:
		switch {
		case s.Ignore != "":
			return "INSERT IGNORE is not supported: an INSERT replaces rows with the same primary key"
		case len(s.OnDup) > 0:
			return "ON DUPLICATE KEY UPDATE is not supported: an INSERT replaces rows with the same primary key"
		}
	case *ast.Prepare, *ast.Execute, *ast.Deallocate:
		return "PREPARE, EXECUTE and DEALLOCATE as SQL text are not supported: use the prepared statements of the client's library"
	case *ast.DDL:
		if s.Action == ast.CreateStr && s.OptLike != nil {
			return "CREATE TABLE … LIKE is not supported"
		}
	}
	return ""
}

// refuse is the analyzer rule that names what this database doesn't do before the engine half does it.
func refuse(
	ctx *sql.Context, _ *analyzer.Analyzer, n sql.Node, _ *plan.Scope, _ analyzer.RuleSelector, _ *sql.QueryFlags,
) (sql.Node, transform.TreeIdentity, error) {
	var err error
	transform.Inspect(n, func(n sql.Node) bool {
		if err == nil {
			err = refused(ctx, n)
		}
		return err == nil
	})
	return n, transform.SameTree, err
}

func refused(ctx *sql.Context, n sql.Node) error {
	switch n := n.(type) {
	case *plan.CreateTable:
		return refusedCreate(n)
	case *plan.Set:
		return refusedSet(ctx, n)
	case *plan.Into:
		if n.Outfile != "" || n.Dumpfile != "" {
			return notSupported("SELECT … INTO OUTFILE is not supported")
		}
	case *plan.Truncate:
		return notSupported("TRUNCATE is not supported: drop the table and create it again")
	case *plan.LoadData:
		return notSupported("LOAD DATA is not supported")
	case *plan.LockTables:
		return notSupported("LOCK TABLES is not supported")
	case *plan.RenameTable, *plan.AddColumn, *plan.DropColumn, *plan.RenameColumn, *plan.ModifyColumn,
		*plan.AlterTableCollation, *plan.AlterIndex, *plan.AlterPK, *plan.CreateCheck, *plan.DropCheck,
		*plan.DropConstraint, *plan.CreateForeignKey, *plan.DropForeignKey, *plan.AlterAutoIncrement,
		*plan.AlterDefaultSet, *plan.AlterDefaultDrop:
		return notSupported("ALTER TABLE is not supported")
	case *plan.CreateIndex, *plan.DropIndex:
		return notSupported("secondary indexes are not supported")
	case *plan.CreateView, *plan.CreateTrigger, *plan.CreateProcedure, *plan.CreateEvent:
		return notSupported("views, triggers, procedures and events are not supported")
	case *plan.CreateUser, *plan.AlterUser, *plan.CreateRole, *plan.Grant, *plan.GrantRole:
		return notSupported("users and privileges are not supported: whoever reaches the port may do everything")
	}
	return nil
}

func refusedCreate(n *plan.CreateTable) error {
	switch {
	case n.Temporary():
		return notSupported("temporary tables are not supported")
	case n.Select() != nil:
		return notSupported("CREATE TABLE … SELECT is not supported: create the table, then INSERT … SELECT")
	case len(n.ForeignKeys()) > 0:
		return notSupported("foreign keys are not supported")
	case len(n.Checks()) > 0:
		return notSupported("CHECK constraints are not supported")
	}
	for _, i := range n.Indexes() {
		if !i.IsPrimary() {
			return notSupported("index %s: secondary and unique indexes are not supported", i.Name)
		}
		for _, c := range i.Columns {
			if c.Length > 0 {
				return notSupported("primary key: the prefix length of column %s is not supported", c.Name)
			}
		}
	}
	for name, value := range n.TableOpts {
		switch strings.ToLower(name) {
		case optionNameComment, "engine", "collate", "character set", "charset":
		default:
			return notSupported("table option %s=%v is not supported", strings.ToUpper(name), value)
		}
	}
	return nil
}

// refusedSet refuses variables that would change what a statement means without being heeded everywhere.
func refusedSet(ctx *sql.Context, n *plan.Set) error {
	for _, e := range n.Exprs {
		set, ok := e.(*expression.SetField)
		if !ok {
			continue
		}
		v, ok := set.LeftChild.(*expression.SystemVar)
		if !ok {
			continue
		}
		value, err := set.RightChild.Eval(ctx, nil)
		if err != nil {
			continue // the engine says why
		}
		text := strings.ToUpper(fmt.Sprint(value))
		switch strings.ToLower(v.Name) {
		case "time_zone":
			if text != "UTC" && text != "SYSTEM" && text != "+00:00" && text != "DEFAULT" {
				return notSupported("time_zone %v is not supported: all times are UTC", value)
			}
		case "autocommit":
			if text == "0" || text == "OFF" || text == "FALSE" {
				return notSupported("autocommit=0 is not supported: each statement is acknowledged by itself")
			}
		}
	}
	return nil
}
