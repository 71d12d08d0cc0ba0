// Command tsdb is a small time-series database on metasrv: datanodes that store, frontends that speak the MySQL
// protocol and take line protocol, and a SQL prompt.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run returns the exit code: 0, 1 for what failed, 2 for a command line that can't be understood.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRootCommand(stdout, stderr)
	root.SetArgs(args)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintln(stderr, "tsdb:", err)
	if _, ok := errors.AsType[*usageError](err); ok {
		return 2
	}
	return 1
}
