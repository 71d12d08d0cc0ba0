// Purity is a vet tool that holds apply code to "state in, changes out" where no ready-made linter looks: the
// order of goroutines, of channels and of maps, and the rounding of floats, differ from member to member.
// What is imported and which functions of package time are called is checked by .golangci.yml.
//
//	go vet -vettool=bin/purity ./...
//
// What has the same outcome on every member all the same says why in the line above it:
//
//	//purity:allow every option is held to the same rule, and the error names none
package main

import (
	"go/ast"
	"go/token"
	"go/types"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/tools/go/analysis"
	"golang.org/x/tools/go/analysis/unitchecker"
)

var (
	// Every file of these packages is apply code, or is called by it. The same list is in .golangci.yml.
	purePackages = regexp.MustCompile(`^github\.com/metasrv/metasrv/(catalog|router|kv|lock|config|raftfsm/machine)(/|$)`)
	// In these packages the files that begin with one of pureFiles are.
	mixedPackages = regexp.MustCompile(`^github\.com/metasrv/metasrv/(heartbeat|scheduler|procedure)(/|$)`)
	pureFiles     = regexp.MustCompile(`^(apply|applier|record|keys)`)
)

var analyzer = &analysis.Analyzer{Name: "purity", Doc: "hold apply code to state in, changes out", Run: run}

func main() { unitchecker.Main(analyzer) }

func run(pass *analysis.Pass) (any, error) {
	for _, file := range pass.Files {
		name := filepath.Base(pass.Fset.Position(file.Pos()).Filename)
		if !isPure(pass.Pkg.Path(), name) || ast.IsGenerated(file) {
			continue
		}
		excused := excusedLines(pass.Fset, file)
		ast.Inspect(file, func(n ast.Node) bool {
			if why := impure(pass.TypesInfo, n); why != "" && !excused[pass.Fset.Position(n.Pos()).Line] {
				pass.Reportf(n.Pos(), "apply code is pure: %s", why)
			}
			return true
		})
	}
	return nil, nil
}

// excusedLines returns the lines below a directive that gives a reason.
func excusedLines(fset *token.FileSet, file *ast.File) map[int]bool {
	lines := map[int]bool{}
	for _, group := range file.Comments {
		for _, c := range group.List {
			if reason, ok := strings.CutPrefix(c.Text, "//purity:allow "); ok && strings.TrimSpace(reason) != "" {
				lines[fset.Position(c.End()).Line+1] = true
			}
		}
	}
	return lines
}

func isPure(pkg, file string) bool {
	switch {
	case strings.HasSuffix(file, "_test.go"):
		return false
	case purePackages.MatchString(pkg):
		return true
	}
	return mixedPackages.MatchString(pkg) && pureFiles.MatchString(file)
}

// impure returns why a node can make one member's state differ from another's, or "".
func impure(info *types.Info, n ast.Node) string {
	switch n := n.(type) {
	case *ast.GoStmt:
		return "no goroutines"
	case *ast.SelectStmt:
		return "no select"
	case *ast.SendStmt:
		return "no channels"
	case *ast.RangeStmt:
		if _, ok := under(info, n.X).(*types.Map); ok {
			return "the order of a map is random; range over slices.Sorted(maps.Keys(m))"
		}
	case *ast.BinaryExpr:
		if isArithmetic(n.Op) && isFloat(under(info, n)) {
			return "no arithmetic on floats"
		}
	}
	return ""
}

func under(info *types.Info, e ast.Expr) types.Type {
	if t := info.TypeOf(e); t != nil {
		return t.Underlying()
	}
	return nil
}

func isArithmetic(op token.Token) bool {
	return op == token.ADD || op == token.SUB || op == token.MUL || op == token.QUO
}

func isFloat(t types.Type) bool {
	b, ok := t.(*types.Basic)
	return ok && b.Info()&types.IsFloat != 0 && b.Info()&types.IsUntyped == 0
}
