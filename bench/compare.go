package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// options say what is compared, and for how long.
type options struct {
	metasrv, metactl, etcd string
	duration, warmup       time.Duration
	rounds                 int
	clients                string
	only                   string
	kills                  int
	tables                 uint64
	keys                   uint64
	valueSize              int
	quick                  bool
}

// The measurements, in their order.
var measurements = []struct {
	name string
	run  func(*comparison, context.Context) error
}{
	{"empty", (*comparison).empty},
	{"put", (*comparison).put},
	{"put-wal", (*comparison).putWAL},
	{"range", (*comparison).ranges},
	{"route", (*comparison).route},
	{"failover", (*comparison).failover},
	{"million", (*comparison).million},
	{"heartbeat", (*comparison).heartbeat},
}

// comparison is one run of this program.
type comparison struct {
	options
	out     io.Writer
	dir     string
	counts  []int // of clients
	chosen  []string
	emptied *figures // the yardstick, once it was measured
}

func compare(ctx context.Context, args []string, out io.Writer) error {
	c := &comparison{out: out}
	f := flag.NewFlagSet("bench", flag.ContinueOnError)
	f.StringVar(&c.metasrv, "metasrv", "metasrv", "the server")
	f.StringVar(&c.metactl, "metactl", "metactl", "its tool")
	f.StringVar(&c.etcd, "etcd", "etcd", "the server to compare with")
	f.DurationVar(&c.duration, "duration", time.Minute, "time of a measurement")
	f.DurationVar(&c.warmup, "warmup", 5*time.Second, "load before it")
	f.IntVar(&c.rounds, "rounds", 2, "how often each store is measured, in turn")
	f.StringVar(&c.clients, "clients", "1,64,256", "clients of the puts")
	f.StringVar(&c.only, "only", "", "measurements, separated by commas; empty: all")
	f.IntVar(&c.kills, "kills", 20, "how often the leader is killed")
	f.Uint64Var(&c.tables, "tables", 100_000, "tables of the measurement million, of 10 regions each")
	f.Uint64Var(&c.keys, "keys", 200_000, "different keys")
	f.IntVar(&c.valueSize, "value-size", 256, "bytes of a value")
	f.BoolVar(&c.quick, "quick", false, "everything for some seconds only: shows that it works")
	if err := f.Parse(args); err != nil {
		return err
	}
	if err := c.check(); err != nil {
		return err
	}
	var err error
	if c.dir, err = os.MkdirTemp("", "metasrv-bench-"); err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(c.dir) }()
	c.say("# %s %s/%s, %d CPUs, %s; %s a measurement in %d rounds", time.Now().UTC().Format(time.RFC3339), runtime.GOOS,
		runtime.GOARCH, runtime.NumCPU(), loadAverage(), c.duration, c.rounds)
	for _, m := range measurements {
		if !slices.Contains(c.chosen, m.name) {
			continue
		}
		if err := m.run(c, ctx); err != nil {
			return fmt.Errorf("%s: %w", m.name, err)
		}
	}
	return nil
}

func (c *comparison) check() error {
	if c.quick {
		c.duration, c.warmup, c.rounds, c.kills = min(c.duration, 2*time.Second), 500*time.Millisecond, 1, 2
		c.tables, c.keys, c.clients = min(c.tables, 300), min(c.keys, 5000), "16"
	}
	for s := range strings.SplitSeq(c.clients, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("-clients: %q is no number of clients", s)
		}
		c.counts = append(c.counts, n)
	}
	var all []string
	for _, m := range measurements {
		all = append(all, m.name)
	}
	c.chosen = all
	if c.only != "" {
		c.chosen = strings.Split(c.only, ",")
	}
	for _, name := range c.chosen {
		if !slices.Contains(all, name) {
			return fmt.Errorf("-only: there is no measurement %q; there are %s", name, strings.Join(all, ", "))
		}
	}
	return nil
}

func (c *comparison) say(format string, args ...any) { fmt.Fprintf(c.out, format+"\n", args...) }

// loadAverage tells how busy the machine is before the comparison, where that is known.
func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "load unknown"
	}
	return "load " + strings.Join(strings.Fields(string(b))[:3], " ")
}

func (c *comparison) store() kind {
	return metasrv{label: "metasrv", bin: c.metasrv, metactl: c.metactl}
}

// load returns a load with a number of clients.
func (c *comparison) load(op string, clients int) load {
	return load{op: op, clients: clients, keys: c.keys, valueSize: c.valueSize, warmup: c.warmup, duration: c.duration}
}

// alternate measures each cluster once a round, in turn.
func (c *comparison) alternate(ctx context.Context, clusters []*cluster, l load) ([]*figures, error) {
	all := make([]*figures, len(clusters))
	for i := range all {
		all[i] = &figures{}
	}
	for range c.rounds {
		for i, cl := range clusters {
			// What the last load left to do is done, and on disk.
			if err := c.settle(ctx); err != nil {
				return nil, err
			}
			r, cpu, err := measure(ctx, cl.pids(), func() (*loadgen.Report, error) { return cl.load(ctx, cl, l) })
			if err != nil {
				return nil, err
			}
			all[i].add(r, cpu)
		}
	}
	return all, nil
}

func (c *comparison) settle(ctx context.Context) error {
	// Where there is no sync, the pause has to do.
	_ = exec.CommandContext(ctx, "sync").Run()
	pause := 3 * time.Second
	if c.quick {
		pause = 0
	}
	sleep(ctx, pause)
	return ctx.Err()
}

// clusters starts one of each kind and returns what ends them.
func (c *comparison) start(ctx context.Context, kinds ...kind) (clusters []*cluster, end func(), err error) {
	end = func() {
		for _, cl := range clusters {
			cl.end()
		}
	}
	for _, k := range kinds {
		cl, err := newCluster(ctx, k, c.dir)
		if err != nil {
			end()
			return nil, nil, err
		}
		clusters = append(clusters, cl)
	}
	return clusters, end, nil
}
