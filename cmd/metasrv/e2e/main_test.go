package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// binary is the metasrv that all tests start, metactl the tool beside it.
var binary, metactl string

func TestMain(m *testing.M) {
	if os.Getenv(filterVar) != "" {
		fmt.Fprintln(os.Stderr, becomeFiltered())
		os.Exit(1)
	}
	os.Exit(buildAndRun(m))
}

func buildAndRun(m *testing.M) int {
	dir, err := os.MkdirTemp("", "metasrv-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	binary, metactl = filepath.Join(dir, "metasrv"), filepath.Join(dir, "metactl")
	build := exec.Command("go", "build", "-tags", "hashicorpmetrics", "-o", dir+"/", "..", "../../metactl")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "build metasrv and metactl: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
