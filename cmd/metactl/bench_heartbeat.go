package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sync/errgroup"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// heartbeatBench has simulated datanodes keep the leases of their regions up.
type heartbeatBench struct {
	tables tableBench
	// replicas is how many a node has.
	replicas uint32
	interval time.Duration
	changed  percent

	placed []*placedReplicas // by node
	nodes  []*beatingNode
	stop   context.CancelFunc
	work   *errgroup.Group
	// lastAnswer is when any node was last answered, ended that the measurement is over.
	lastAnswer atomic.Int64
	ended      atomic.Bool
}

// garbagePercent is by how much the heap may grow until garbage is collected.
const garbagePercent = 300

// creatingClients is how many create the tables by default.
const creatingClients = "4"

const defaultChanged = 5 // percent

func (a *app) benchHeartbeatCommand() *cobra.Command {
	h := &heartbeatBench{changed: defaultChanged}
	h.tables.placed = h.place
	return a.benchCommandOf("heartbeat", "Measure heartbeats: leases of many regions on many nodes",
		"Measures heartbeats: simulated datanodes report their replicas and keep the leases of the regions that they lead, as\n"+
			"datanodes do: by the client library, each over a connection of its own. Latency is from the sending of a beat to its\n"+
			"answer. A lease that ends before the next one is granted is counted as lost. What the members use of CPU and memory,\n"+
			"how often another one became the metasrv leader and how many nodes were taken for failed is read from their /metrics,\n"+
			"where these can be reached. It runs only on a cluster without datanodes of its own.\n"+
			"--clients and --conns are for the creation of the tables.",
		func(o *benchOptions, f *pflag.FlagSet) {
			f.IntVar(&h.tables.nodeCount, "nodes", 0, "`N` datanodes to simulate (required)")
			f.Uint32Var(&h.replicas, "regions", 1000, "`N` replicas on a node, each of another region")
			f.Uint32Var(&h.tables.replicas, "replicas", 1, "`N` replicas of a region, on as many nodes")
			f.Uint32Var(&h.tables.regions, "regions-per-table", 10, "`N` regions of a table")
			f.DurationVar(&h.interval, "interval", 0, "`TIME` from beat to beat; 0 means what metasrv asks for")
			f.Var(&h.changed, "changed", "`PERCENT` of the replicas on a node are written between two beats")
			keepFlag(o, f)
			// To place a table on many nodes is work: more at once would take the processor from the members.
			clients := f.Lookup("clients")
			clients.DefValue = creatingClients
			_ = clients.Value.Set(creatingClients) // it is a number
		},
		func(o *benchOptions) (workload, error) { return h.workload(a, o) })
}

func (h *heartbeatBench) workload(a *app, o *benchOptions) (workload, error) {
	t := &h.tables
	switch {
	case t.nodeCount == 0:
		return workload{}, usagef("--nodes is missing: say how many datanodes are to be simulated, for example --nodes 100")
	case t.nodeCount < int(t.replicas):
		return workload{}, usagef("--nodes is %d; each of the --replicas %d of a region needs a node of its own", t.nodeCount, t.replicas)
	case h.replicas < 1 || t.replicas < 1 || t.regions < 1:
		return workload{}, usagef("--regions, --replicas and --regions-per-table must be at least 1")
	case h.interval < 0:
		return workload{}, usagef("--interval is %v; it can't be negative", h.interval)
	case o.count > 0 || o.rate > 0:
		return workload{}, usagef("--count and --rate are not for heartbeats: say --duration and --interval")
	}
	t.prefix = "h" + strconv.FormatInt(time.Now().UnixMilli(), 36) + "_"
	if err := t.encode(); err != nil {
		return workload{}, err
	}
	return workload{
		writes:  t.writes(o),
		prepare: t.prepare,
		run: func(ctx context.Context, c *client.Client, l *links) (*loadgen.Result, []loadgen.Figure, error) {
			return h.run(ctx, a, c, l, o)
		},
		clean: func(ctx context.Context, c *client.Client) ([]string, error) { return h.clean(ctx, c, o) },
		items: "regions", perOperation: int(h.replicas),
		settings: map[string]any{
			"nodes": t.nodeCount, "regions": h.replicas, "replicas": t.replicas, "regions_per_table": t.regions,
			"interval_ms": h.interval.Milliseconds(), "changed_percent": float64(h.changed),
		},
	}, nil
}

// tableCount is how many tables it takes to give each node its replicas.
func (h *heartbeatBench) tableCount() uint64 {
	perTable := uint64(h.tables.regions) * uint64(h.tables.replicas)
	return (uint64(h.tables.nodeCount)*uint64(h.replicas) + perTable - 1) / perTable //nolint:gosec // not negative
}

// run creates the tables, lets the nodes beat, and measures.
func (h *heartbeatBench) run(ctx context.Context, a *app, c *client.Client, l *links, o *benchOptions) (*loadgen.Result, []loadgen.Figure, error) {
	h.placed = newPlaced(h.tables.nodeCount)
	if err := h.create(ctx, a, l, o); err != nil {
		return nil, nil, err
	}
	h.tables.nodes.end()
	// What the nodes hold is large, and stays.
	defer debug.SetGCPercent(debug.SetGCPercent(garbagePercent))
	if err := h.start(ctx, a.endpoints); err != nil {
		return nil, nil, err
	}
	if err := h.covered(ctx); err != nil {
		return nil, nil, err
	}
	if !pauseFor(ctx, o.warmup) {
		return nil, nil, ctx.Err()
	}
	fmt.Fprintf(a.err, "%d regions have leases; measuring for %v.\n", h.keeping().Led, o.duration)
	return h.measure(ctx, a, c, o)
}

// creationRounds is how often tables are created in the place of those that failed: the metasrv leader may change meanwhile.
const creationRounds = 5

// create creates the tables.
func (h *heartbeatBench) create(ctx context.Context, a *app, l *links, o *benchOptions) error {
	missing, named := h.tableCount(), uint64(0)
	for range creationRounds {
		created, err := loadgen.Run(ctx, loadgen.Config{
			Clients: o.clients, Count: missing, Reason: reasonOf, Progress: a.benchProgress("creating tables"),
		}, func(client int) loadgen.Op {
			create := h.tables.operation(l, client)
			return func(ctx context.Context, n uint64) error { return create(ctx, named+n) }
		})
		if err = cmp.Or(err, ctx.Err()); err != nil {
			return err
		}
		named += missing
		if missing -= min(missing, created.Latency.Count()); missing == 0 {
			return nil
		}
		fmt.Fprintf(a.err, "%d tables were not created: %v\n", missing, created.Errors)
	}
	return fmt.Errorf("%d of %d tables were not created in %d attempts", missing, h.tableCount(), creationRounds)
}

// start lets the nodes beat.
func (h *heartbeatBench) start(ctx context.Context, endpoints []string) error {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	h.stop, h.work = stop, &errgroup.Group{}
	for i, placed := range h.placed {
		n, err := h.newNode(endpoints, benchNodeID(i), placed.replicas)
		if err != nil {
			return err
		}
		h.nodes = append(h.nodes, n)
	}
	interval := max(h.interval, time.Second)
	for i, n := range h.nodes {
		h.work.Go(func() error {
			defer n.client.Close()
			// Nodes don't start at the same moment.
			if !pauseFor(running, interval*time.Duration(i)/time.Duration(len(h.nodes))) {
				return nil
			}
			return n.task.Run(running)
		})
	}
	return nil
}

// coverLimit bounds the wait for the first leases of all regions.
const coverLimit = 5 * time.Minute

var errNotCovered = errors.New("not all regions got a lease")

// covered waits until every region that is led has a lease.
func (h *heartbeatBench) covered(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, coverLimit, errNotCovered)
	defer cancel()
	for {
		s := h.keeping()
		if s.Led > 0 && s.Covered == s.Led {
			return nil
		}
		if !pauseFor(ctx, time.Second) {
			return fmt.Errorf("%w: %d of %d", context.Cause(ctx), s.Covered, s.Led)
		}
	}
}

// keeping adds up how the nodes' leases stand.
func (h *heartbeatBench) keeping() client.KeeperStats {
	var sum client.KeeperStats
	for _, n := range h.nodes {
		s := n.keeper.Stats()
		sum.Led += s.Led
		sum.Covered += s.Covered
		sum.Lapsed += s.Lapsed
		sum.Lapses += s.Lapses
	}
	return sum
}

func (h *heartbeatBench) take() beatFigures {
	var sum beatFigures
	for _, n := range h.nodes {
		f := n.take()
		sum.add(&f)
	}
	return sum
}

// lookPeriod is how often the run is looked at while it is measured.
const lookPeriod = 20 * time.Millisecond

func (h *heartbeatBench) measure(ctx context.Context, a *app, c *client.Client, o *benchOptions) (*loadgen.Result, []loadgen.Figure, error) {
	before, usedBefore := h.keeping(), memberUses(ctx, c)
	h.take()
	began := time.Now()
	h.lastAnswer.Store(began.UnixNano())
	pause := time.Duration(0)
	ticker := time.NewTicker(lookPeriod)
	defer ticker.Stop()
	for now := began; now.Sub(began) < o.duration && ctx.Err() == nil; {
		select {
		case now = <-ticker.C:
		case <-ctx.Done():
		}
		pause = max(pause, time.Duration(now.UnixNano()-h.lastAnswer.Load()))
	}
	ended := time.Now()
	sum, after := h.take(), h.keeping()
	// Also after an interruption.
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.timeout)
	defer cancel()
	used := memberUses(asking, c)
	h.ended.Store(true)
	res := &loadgen.Result{Began: began, Ended: ended, Latency: sum.latency, Errors: sum.errors, LongestPause: pause}
	figures := h.figures(sum, before, after, ended.Sub(began))
	figures = append(figures, leaderFigures(usedBefore, used)...)
	return res, append(figures, useFigures(usedBefore, used, ended.Sub(began), sum, h.replicas)...), nil
}

// leaderFigures say how often members became the metasrv leader, and how many nodes they then took for failed, each time they
// did. What a process counted that was killed is not known.
func leaderFigures(before, after map[string]memberUse) []loadgen.Figure {
	terms, failures := 0.0, 0.0
	for id, is := range after {
		was := before[id]
		if was.started != is.started {
			was = memberUse{}
		}
		terms += is.terms - was.terms
		failures += is.failures - was.failures
	}
	return []loadgen.Figure{{Name: "metasrv_leader_changes", Value: terms}, {Name: "nodes_taken_for_failed", Value: failures}}
}

// figures are what a person wants to know of the run besides its latency.
func (h *heartbeatBench) figures(f beatFigures, before, after client.KeeperStats, d time.Duration) []loadgen.Figure {
	lost := after.Lapses - before.Lapses + uint64(after.Lapsed) //nolint:gosec // not negative
	return []loadgen.Figure{
		{Name: "regions_led", Value: float64(after.Led)},
		{Name: "leases_lost", Value: float64(lost)},
		{Name: "replicas_ungranted", Value: float64(f.refused)},
		{Name: "longest_silence_of_a_node_ms", Value: float64(f.silence.Milliseconds())},
		{Name: "lines_per_second", Value: float64(f.lines) / d.Seconds()},
		{Name: "full_reports", Value: float64(f.full)},
		{Name: "full_reports_asked_for", Value: float64(f.fullWanted)},
		{Name: "answers_pushed", Value: float64(f.pushed)},
		{Name: "instructions", Value: float64(f.instructions)},
	}
}

// useFigures says what the members used. A process that was restarted in between is left out.
func useFigures(before, after map[string]memberUse, d time.Duration, f beatFigures, replicas uint32) []loadgen.Figure {
	var figures []loadgen.Figure
	cpu, known := 0.0, len(after) > 0
	for _, id := range slices.Sorted(maps.Keys(after)) {
		was, is := before[id], after[id]
		if was.started != is.started {
			known = false
			continue
		}
		cpu += is.cpuSeconds - was.cpuSeconds
		role := "follower"
		if is.leader {
			role = "leader"
		}
		figures = append(figures,
			loadgen.Figure{Name: fmt.Sprintf("cores_used_by_%s_%s", role, id), Value: (is.cpuSeconds - was.cpuSeconds) / d.Seconds()},
			loadgen.Figure{Name: fmt.Sprintf("resident_mb_of_%s_%s", role, id), Value: float64(is.resident >> 20)})
	}
	if reports := float64(f.latency.Count()) * float64(replicas) / 1e6; known && reports > 0 {
		figures = append(figures,
			loadgen.Figure{Name: "cpu_seconds_per_million_region_reports", Value: cpu / reports},
			loadgen.Figure{Name: "cpu_seconds_per_million_lines", Value: cpu / (float64(f.lines) / 1e6)})
	}
	return figures
}

// end stops the nodes.
func (h *heartbeatBench) end() {
	if h.stop != nil {
		h.ended.Store(true)
		h.stop()
		_ = h.work.Wait() // it was seen in the figures
	}
}

// clean drops the tables. The nodes take part: what they had is gone.
func (h *heartbeatBench) clean(ctx context.Context, c *client.Client, o *benchOptions) ([]string, error) {
	h.end()
	if !o.keep && h.stop != nil {
		nodes, err := startBenchNodes(ctx, c, h.tables.nodeCount)
		if err != nil {
			return nil, err
		}
		h.tables.nodes = nodes
	}
	return h.tables.clean(ctx, c, o)
}

// committedConf is the conf_version of a region when its table has been committed.
const committedConf = 2

// place notes where the replicas of a table were put.
func (h *heartbeatBench) place(name []byte, c *creation) error {
	table := &metasrvpb.TableName{CatalogName: defaultCatalog, SchemaName: benchSchema, TableName: string(name)}
	leads := uint64(0)
	for _, r := range c.replicas {
		i := c.peers[r.node] - firstBenchNode
		if i >= uint64(len(h.placed)) {
			return errUnknownNode
		}
		role := metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
		if r.region != leads { // the first one of a region leads it
			leads, role = r.region, metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
		}
		h.placed[i].add(&metasrvpb.RegionStat{
			RegionId: r.region, TableName: table, ReplicaId: r.replica, Role: role, LeaderEpoch: 1, ConfVersion: committedConf,
		})
	}
	return nil
}
