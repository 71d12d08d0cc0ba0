package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// benchOptions are what all measurements have in common.
type benchOptions struct {
	clients, conns   int
	duration, warmup time.Duration
	count            uint64
	rate             float64
	yes, keep        bool
	members          string
	level            string
}

const benchHelp = `

Clients send requests over connections to the metasrv leader, each the next one when the answer to the last is
there. Requests are encoded before and answers not decoded, so that the load takes little from servers on the same
machine. A change of the metasrv leader is followed; what fails meanwhile is counted by its reason, not repeated.

--timeout bounds the time without any answer after which the metasrv leader is looked for again. A cluster that has
nodes, tables or keys is only put under load with --yes.`

func (a *app) benchCommand() *cobra.Command {
	cmd := group("bench", "Measure how fast a cluster is",
		a.benchPutCommand(), a.benchTxnCommand(), a.benchRangeCommand(), a.benchWatchCommand(),
		a.benchRouteCommand(), a.benchTableCommand(), a.benchHeartbeatCommand())
	cmd.Long = "Measures how fast a cluster is." + benchHelp
	cmd.Example = `  metactl bench put --clients 64 --duration 30s
  metactl bench range --read-level stale -o json`
	return cmd
}

// benchCommandOf returns the command of one measurement. build makes its workload when the flags are read.
func (a *app) benchCommandOf(
	use, short, long string, flags func(*benchOptions, *pflag.FlagSet), build func(*benchOptions) (workload, error),
) *cobra.Command {
	o := &benchOptions{}
	cmd := &cobra.Command{
		Use: use, Args: noArgs(), Short: short, Long: long + benchHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// A count alone is the whole of it.
			if o.count > 0 && !cmd.Flags().Changed("duration") {
				o.duration = 0
			}
			if o.count > 0 && !cmd.Flags().Changed("warmup") {
				o.warmup = 0
			}
			if err := o.check(); err != nil {
				return err
			}
			w, err := build(o)
			if err != nil {
				return err
			}
			return a.bench(cmd.Context(), o, cmd.Name(), w)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.IntVar(&o.clients, "clients", 64, "`N` requests that are under way at once")
	f.IntVar(&o.conns, "conns", 0, "`N` connections to a member; 0 means one for 32 clients, at most 8")
	f.DurationVar(&o.duration, "duration", 10*time.Second, "`TIME` that is measured")
	f.Uint64Var(&o.count, "count", 0, "`N` requests after which it ends; without --duration and --warmup, they alone count")
	f.DurationVar(&o.warmup, "warmup", time.Second, "`TIME` of load before the measurement")
	f.Float64Var(&o.rate, "rate", 0, "`N` requests a second of all clients; 0 means as many as they can")
	f.BoolVarP(&o.yes, "yes", "y", false, "also on a cluster that has nodes, tables or keys, and over keys that are there")
	flags(o, f)
	return cmd
}

func keepFlag(o *benchOptions, f *pflag.FlagSet) {
	f.BoolVar(&o.keep, "keep", false, "leave what was written in the cluster")
}

func readFlags(o *benchOptions, f *pflag.FlagSet) {
	f.StringVar(&o.level, "read-level", levelLinearizable, "`LEVEL` linearizable or stale")
	f.StringVar(&o.members, "members", membersLeader, "`WHICH` members are asked: leader, followers or all")
}

const (
	levelLinearizable = "linearizable"
	levelStale        = "stale"
)

func (o *benchOptions) check() error {
	switch {
	case o.clients < 1:
		return usagef("--clients is %d; it must be at least 1", o.clients)
	case o.conns < 0:
		return usagef("--conns is %d; it can't be negative", o.conns)
	case o.duration < 0 || o.duration == 0 && o.count == 0:
		return usagef("--duration is %v; it must be above zero", o.duration)
	case o.warmup < 0 || o.rate < 0:
		return usagef("--warmup and --rate can't be negative")
	case o.level != "" && o.level != levelLinearizable && o.level != levelStale:
		return usagef("--read-level is %q; it can be linearizable or stale", o.level)
	}
	if o.conns == 0 {
		o.conns = loadgen.DefaultConns(o.clients)
	}
	if o.members == "" {
		o.members = membersLeader
	}
	return checkMembers(o.members)
}

// readHeader returns the header of the reads that are measured.
func (o *benchOptions) readHeader() *metasrvpb.RequestHeader {
	if o.level == levelStale {
		return &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE}
	}
	return &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_LINEARIZABLE}
}

// workload is what a measurement does. Everything but operation may be left out.
type workload struct {
	// writes says in one sentence what the measurement writes, and what becomes of it.
	writes string
	// prepare is called before the load.
	prepare func(ctx context.Context, c *client.Client) error
	// operation returns what a client does.
	operation func(l *links, client int) loadgen.Op
	// run takes the place of operation where the load is no operations of clients. It measures other figures too.
	run func(ctx context.Context, c *client.Client, l *links) (*loadgen.Result, []loadgen.Figure, error)
	// clean removes what was written and returns what it left.
	clean func(ctx context.Context, c *client.Client) (left []string, err error)
	// items is what an operation handles perOperation of, empty where that is one thing.
	items        string
	perOperation int
	settings     map[string]any
}

// cleanTimeout bounds the removal of what a measurement wrote.
const cleanTimeout = 5 * time.Minute

// bench runs a measurement, cleans up behind it and reports it.
func (a *app) bench(ctx context.Context, o *benchOptions, name string, w workload) error {
	reachable, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if err := reach(reachable, a.endpoints); err != nil {
		return err
	}
	c, err := client.New(client.Config{Endpoints: a.endpoints, Logger: discardLogger, CallTimeout: max(a.timeout, client.DefaultCallTimeout)})
	if err != nil {
		return err
	}
	defer c.Close()
	if err := a.mayLoad(reachable, c, o); err != nil {
		return err
	}
	l, err := openLinks(ctx, a.endpoints, o, a.timeout)
	if err != nil {
		return err
	}
	defer l.close()
	if w.writes != "" {
		fmt.Fprintln(a.err, w.writes)
	}
	var result *loadgen.Result
	var figures []loadgen.Figure
	if w.prepare != nil {
		err = w.prepare(ctx, c)
	}
	if err == nil {
		err = l.catchUp(ctx, c)
	}
	switch {
	case err != nil:
	case w.run != nil:
		result, figures, err = w.run(ctx, c, l)
	default:
		result, err = loadgen.Run(ctx, loadgen.Config{
			Clients: o.clients, Duration: o.duration, Count: o.count, Warmup: o.warmup, Rate: o.rate,
			Reason: reasonOf, Progress: a.benchProgress(name),
		}, func(client int) loadgen.Op { return w.operation(l, client) })
	}
	left, cleanErr := a.benchClean(ctx, c, w)
	if err != nil {
		return err
	}
	report := result.Report(name, o.settings(w, l), w.items, w.perOperation)
	report.LeftBehind = append(report.LeftBehind, left...)
	report.Figures = figures
	if a.format == formatJSON {
		err = report.WriteJSON(a.out)
	} else {
		err = report.WriteText(a.out)
	}
	if err == nil {
		err = cleanErr
	}
	return err
}

func (a *app) benchClean(ctx context.Context, c *client.Client, w workload) ([]string, error) {
	if w.clean == nil {
		return nil, nil
	}
	// Also after an interruption.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanTimeout)
	defer cancel()
	left, err := w.clean(ctx, c)
	if err != nil {
		return left, fmt.Errorf("clean up: %w", err)
	}
	return left, nil
}

// mayLoad returns an error where the cluster serves somebody and the person has not said that it may be loaded.
func (a *app) mayLoad(ctx context.Context, c *client.Client, o *benchOptions) error {
	if o.yes {
		return nil
	}
	stats, err := c.Cluster().Stats(ctx, &metasrvpb.StatsRequest{})
	if err != nil {
		return err
	}
	var holds []string
	if nodes := stats.GetLiveNodes() + stats.GetSuspectNodes() + stats.GetDownNodes(); nodes > 0 {
		holds = append(holds, plural(nodes, "node"))
	}
	if tables := stats.GetTables(); tables > 0 {
		holds = append(holds, plural(tables, "table"))
	}
	some, err := c.Store().Range(ctx, &metasrvpb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: 1, KeysOnly: true})
	if err != nil {
		return err
	}
	if len(some.GetKvs()) > 0 {
		holds = append(holds, fmt.Sprintf("keys such as %q", some.GetKvs()[0].GetKey()))
	}
	if len(holds) == 0 {
		return nil
	}
	return usagef("the cluster is in use (it has %s), and the load takes from what it can do; to measure it nevertheless, add --yes",
		strings.Join(holds, ", "))
}

func (o *benchOptions) settings(w workload, l *links) map[string]any {
	s := map[string]any{"clients": o.clients, "conns": o.conns, "members": o.members, "asked": l.names()}
	if o.rate > 0 {
		s["rate"] = o.rate
	}
	if o.level != "" {
		s["read_level"] = o.level
	}
	for k, v := range w.settings {
		s[k] = v
	}
	return s
}

// progressLines is how many seconds pass between two lines of progress where nobody looks on.
const progressLines = 10

// benchProgress returns what tells of the run: a line that is written over each second on a terminal, else a line
// now and then.
func (a *app) benchProgress(name string) func(loadgen.Progress) {
	n := 0
	return func(p loadgen.Progress) {
		n++
		if !a.interactive && n%progressLines != 0 {
			return
		}
		line := fmt.Sprintf("%s %4.0fs  %8.0f/s  %d done", name, p.Elapsed.Seconds(), p.SincePerSecond, p.Operations)
		if p.WarmingUp {
			line += ", warming up"
		}
		if p.Errors > 0 {
			line += fmt.Sprintf(", %d failed", p.Errors)
		}
		if p.LastAcknowledge > time.Second {
			line += fmt.Sprintf(", none succeeded for %.0f s", p.LastAcknowledge.Seconds())
		}
		if a.interactive {
			fmt.Fprintf(a.err, "\r%-79s", line)
			return
		}
		fmt.Fprintln(a.err, line)
	}
}

// reasonOf names an error as the report counts it.
func reasonOf(err error) string {
	if reason := client.Reason(err); reason != "" {
		return reason
	}
	st, ok := status.FromError(err)
	if !ok {
		return err.Error()
	}
	return strings.ToUpper(st.Code().String())
}
