// Command fences shows that each fence which keeps a region to one writer is held by a test: it takes the fence out of the source
// and wants the test to fail. What it builds is another file in the place of the fence's, given to the compiler (go test
// -overlay): no program can be built without a fence by a tag or an environment, and apply code stays free of both.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"time"
)

// fence is a place in the source, and the test that fails without it.
type fence struct {
	name string
	// module and file say where it is, pkg where the test is, from the folder of the module.
	module, file, pkg, test string
	// with stands there once; without is what takes the fence out.
	with, without string
}

var fences = []fence{
	{
		name:   "the lease is checked before a write is acknowledged",
		module: "examples/tsdb", file: "datanode/write_group.go", pkg: "./datanode", test: "TestNoLease",
		with: `err := lease.End(); err != nil && !broken("lease")`, without: `err := lease.End(); err != nil && false`,
	},
	{
		name:   "a region that is being taken away is in no grant",
		module: ".", file: "heartbeat/lease.go", pkg: "./heartbeat", test: "TestWithhold",
		with: "range h.withheld {\n\t\tfor _, r", without: "range map[metasrv.RegionID]int(nil) {\n\t\tfor _, r",
	},
	{
		name:   "a change of a region compares conf_version",
		module: ".", file: "router/change.go", pkg: "./router", test: "TestStaleChange",
		with: " || cmd.ConfVersion != region.ConfVersion", without: "",
	},
	{
		name:   "followers refuse an older epoch",
		module: "examples/tsdb", file: "store/replay.go", pkg: "./store", test: "TestReplay",
		with: `epoch < s.LeaderEpoch && !broken("epoch")`, without: "false",
	},
	{
		name:   "DropRegion names the replica",
		module: "examples/tsdb", file: "datanode/instruct.go", pkg: "./datanode", test: "TestLateDrop",
		with: "case uint64(r.ID()) != replica:", without: "case false:",
	},
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fences:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, out io.Writer) error {
	var errs []error
	for _, f := range fences {
		began := time.Now()
		if err := f.show(ctx); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", f.name, err))
			continue
		}
		fmt.Fprintf(out, "%s: %s fails without it (%s)\n", f.name, f.test, time.Since(began).Round(time.Second))
	}
	return errors.Join(errs...)
}

// show returns nil if the test passes with the fence and fails without it.
func (f fence) show(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "metasrv-fences-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	overlay, err := f.takeOut(dir)
	if err != nil {
		return err
	}
	if output, err := f.run(ctx); err != nil {
		return fmt.Errorf("%s fails with it, too: %w\n%s", f.test, err, output)
	}
	output, err := f.run(ctx, "-overlay", overlay)
	switch {
	case err == nil:
		return fmt.Errorf("%s passes without it, too", f.test)
	case !bytes.Contains(output, []byte("--- FAIL: "+f.test+" ")):
		return fmt.Errorf("%s could not be run without it: %w\n%s", f.test, err, output)
	}
	return nil
}

// takeOut writes the source without the fence, and returns the path of what tells the compiler to take it.
func (f fence) takeOut(dir string) (overlay string, err error) {
	path, err := filepath.Abs(filepath.Join(f.module, f.file))
	if err != nil {
		return "", err
	}
	source, err := os.ReadFile(path) //nolint:gosec // a name from the table
	if err != nil {
		return "", err
	}
	if n := strings.Count(string(source), f.with); n != 1 {
		return "", fmt.Errorf("%q stands %d times in %s, want once: name it as the source has it now", f.with, n, path)
	}
	without := filepath.Join(dir, "without.go")
	if err := os.WriteFile(without, []byte(strings.Replace(string(source), f.with, f.without, 1)), 0o600); err != nil {
		return "", err
	}
	text, err := json.Marshal(map[string]any{"Replace": map[string]string{path: without}})
	if err != nil {
		return "", err
	}
	overlay = filepath.Join(dir, "overlay.json")
	return overlay, os.WriteFile(overlay, text, 0o600)
}

// run runs the test, and returns what it printed, and an error unless it passed.
func (f fence) run(ctx context.Context, flags ...string) ([]byte, error) {
	args := append([]string{"test", "-tags", "hashicorpmetrics", "-timeout", "3m", "-run", "^" + f.test + "$"}, flags...)
	command := exec.CommandContext(ctx, "go", append(args, f.pkg)...) //nolint:gosec // names from the table
	command.Dir = f.module
	return command.CombinedOutput()
}
