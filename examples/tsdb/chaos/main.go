// Command chaos runs a whole cluster on loopback, three members of metasrv, five datanodes and two frontends, each a
// process of its own, and disturbs it while clients write and read all the time: processes are killed, stopped,
// restarted and cut off, disks are emptied, nodes drained and regions moved. It checks that no row that was acknowledged is lost,
// missed by a reader or there twice, and that each region had one node at a time that acknowledged.
//
// The faults come from a seed: the same seed makes the same faults, at about the same times.
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
	"time"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// config says what is run.
type config struct {
	bin      local.Binaries
	seed     uint64
	duration time.Duration
	// only leaves the faults whose names begin like it, or like one of several with commas between.
	only string
	// broken is the fence that datanodes built with the tag broken leave out.
	broken string
	// keep leaves the folder with data and logs.
	keep bool
}

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("chaos", flag.ContinueOnError)
	flags.SetOutput(stderr)
	var c config
	flags.StringVar(&c.bin.Metasrv, "metasrv", "", "path of the metasrv binary")
	flags.StringVar(&c.bin.Metactl, "metactl", "", "path of the metactl binary")
	flags.StringVar(&c.bin.TSDB, "tsdb", "", "path of the tsdb binary")
	flags.Uint64Var(&c.seed, "seed", 0, "what the faults are made from; 0 takes one from the clock")
	flags.DurationVar(&c.duration, "duration", time.Minute, "how long the cluster is disturbed")
	flags.StringVar(&c.only, "only", "", "make only the faults whose names begin like this, or like one of several: 'empty disk,drain'")
	flags.StringVar(&c.broken, "broken", "", "fence that datanodes leave out: lease, epoch (needs a tsdb that was built with the tag broken)")
	times := flags.Bool("times", false, "instead, measure how long a failover takes, and what a drain costs clients")
	flags.BoolVar(&c.keep, "keep", false, "keep the folder with data and logs")
	if err := flags.Parse(args); err != nil {
		return 2
	}
	if err := c.bin.Check(); err != nil {
		fmt.Fprintln(stderr, "chaos:", err, "(run it by make chaos)")
		return 2
	}
	if c.seed == 0 {
		c.seed = uint64(time.Now().UnixNano() % 1e9) //nolint:gosec // any seed will do
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	out := local.NewSteps(stdout)
	do := (&chaos{config: c, out: out}).run
	if *times {
		do = func(ctx context.Context) error { return measure(ctx, c.bin, out) }
	}
	err := do(ctx)
	switch {
	case ctx.Err() != nil:
		out.Print("interrupted")
		return exitInterrupted
	case errors.Is(err, errViolation) && c.broken != "":
		out.Print("caught: datanodes without the fence %q", c.broken)
		return 0
	case errors.Is(err, errViolation):
		out.Print("FAILED with seed %d", c.seed)
		return 1
	case err != nil:
		out.Fail(err)
		return 1
	case c.broken != "":
		out.Print("FAILED: datanodes without the fence %q were not caught", c.broken)
		return 1
	}
	return 0
}

// exitInterrupted is what a shell makes of a program that Ctrl-C has ended.
const exitInterrupted = 130
