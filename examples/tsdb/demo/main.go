// Command demo runs a whole cluster on loopback: three members of metasrv, three datanodes and a frontend, each a
// process of its own. It writes the machine's own metrics while it kills the metasrv leader and a datanode, and checks that
// every acknowledged row is there in the end.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var bin local.Binaries
	flags.StringVar(&bin.Metasrv, "metasrv", "", "path of the metasrv binary")
	flags.StringVar(&bin.Metactl, "metactl", "", "path of the metactl binary")
	flags.StringVar(&bin.TSDB, "tsdb", "", "path of the tsdb binary")
	stay := flags.Bool("stay", false, "keep the cluster running until Ctrl-C")
	keep := flags.Bool("keep", false, "keep the folder with data and logs")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if err := bin.Check(); err != nil {
		fmt.Fprintln(stderr, "demo:", err, "(run it by make demo)")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{out: local.NewSteps(stdout), bin: bin, keep: *keep}
	scenario := d.survive
	if *stay {
		scenario, d.staying = d.stay, true
	}
	err := d.run(ctx, scenario)
	switch {
	case err == nil:
		return 0
	case errors.Is(err, errInterrupted):
		d.out.Print("interrupted")
		return exitInterrupted
	}
	d.out.Fail(err)
	return 1
}

// exitInterrupted is what a shell makes of a program that Ctrl-C has ended.
const exitInterrupted = 130
