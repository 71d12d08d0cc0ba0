package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"time"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// manyClients is the number of clients of the measurements that have one only.
const manyClients = 256

func (c *comparison) many() int {
	if c.quick {
		return 16
	}
	return manyClients
}

// empty measures what gRPC alone costs.
func (c *comparison) empty(ctx context.Context) error {
	target, err := newEmptyTarget(c.dir)
	if err != nil {
		return err
	}
	defer target.process.kill()
	c.emptied = &figures{}
	for range c.rounds {
		if err := c.settle(ctx); err != nil {
			return err
		}
		r, cpu, err := measure(ctx, []int{target.process.pid()}, func() (*loadgen.Report, error) {
			return target.load(ctx, c.load("empty", c.many()))
		})
		if err != nil {
			return err
		}
		c.emptied.add(r, cpu)
	}
	c.say("%s", alone(fmt.Sprintf("empty clients=%d", c.many()), c.emptied))
	return nil
}

func (c *comparison) put(ctx context.Context) error { return c.puts(ctx, "metasrv", c.store()) }

// putWAL measures puts with the other log store, if this build has it.
func (c *comparison) putWAL(ctx context.Context) error {
	help, err := exec.CommandContext(ctx, c.metasrv, "server", "--help").CombinedOutput()
	if err != nil {
		return err
	}
	if !strings.Contains(string(help), "--log-store") {
		c.say("put-wal: this metasrv has no --log-store")
		return nil
	}
	m := metasrv{label: "metasrv-wal", bin: c.metasrv, metactl: c.metactl, serverOptions: []string{"--log-store=wal"}}
	return c.puts(ctx, "metasrv-wal", m)
}

func (c *comparison) puts(ctx context.Context, label string, k kind) error {
	for _, clients := range c.counts {
		// New clusters for each number of clients: the logs of both grow alike.
		clusters, end, err := c.start(ctx, k, etcd{bin: c.etcd})
		if err != nil {
			return err
		}
		all, err := c.alternate(ctx, clusters, c.load("put", clients))
		end()
		if err != nil {
			return err
		}
		c.say("%s", compared(fmt.Sprintf("put clients=%d", clients), label, all[0], all[1]))
	}
	return nil
}

// ranges measures linearizable reads of one key on the leader.
func (c *comparison) ranges(ctx context.Context) error {
	clusters, end, err := c.start(ctx, c.store(), etcd{bin: c.etcd})
	if err != nil {
		return err
	}
	defer end()
	for _, cl := range clusters {
		if err := c.fill(ctx, cl); err != nil {
			return err
		}
	}
	all, err := c.alternate(ctx, clusters, c.load("range", c.many()))
	if err != nil {
		return err
	}
	c.say("%s", compared(fmt.Sprintf("range clients=%d", c.many()), "metasrv", all[0], all[1]))
	return nil
}

// fillAttempts is how often the keys are written until no write failed: on a busy machine the leader may change.
const fillAttempts = 5

// fill writes every key once.
func (c *comparison) fill(ctx context.Context, cl *cluster) error {
	l := load{op: "put", clients: 64, keys: c.keys, valueSize: c.valueSize, count: c.keys, sequential: true}
	var failed map[string]uint64
	for range fillAttempts {
		r, err := cl.load(ctx, cl, l)
		if err != nil {
			return err
		}
		if failed = r.Errors; len(failed) == 0 {
			return nil
		}
	}
	return fmt.Errorf("%s was not filled: %v", cl.name(), failed)
}

// routeTables is how many tables the lookups choose from, of 10 regions each.
const routeTables = 2000

// route measures lookups on the leader.
func (c *comparison) route(ctx context.Context) error {
	clusters, end, err := c.start(ctx, c.store())
	if err != nil {
		return err
	}
	defer end()
	if err := createTables(ctx, clusters[0], min(routeTables, c.tables)); err != nil {
		return err
	}
	for _, m := range []struct {
		what string
		more []string
	}{
		{"level=linearizable", nil},
		{"level=stale", []string{"--read-level", "stale"}},
		{"level=linearizable tables=100", []string{"--tables-per-call", "100"}},
	} {
		l := c.load("route", c.many())
		l.keys, l.more = 0, m.more
		all, err := c.alternate(ctx, clusters, l)
		if err != nil {
			return err
		}
		line := alone(fmt.Sprintf("route clients=%d %s", c.many(), m.what), all[0])
		if c.emptied != nil && c.emptied.cpu > 0 {
			line += fmt.Sprintf(" of_empty=%.2f", float64(all[0].cpu)/float64(c.emptied.cpu))
		}
		c.say("%s", line)
	}
	return nil
}

// createTables makes about so many tables of 10 regions and two replicas on simulated datanodes.
func createTables(ctx context.Context, cl *cluster, count uint64) error {
	r, err := tableLoad(ctx, cl, count)
	if err == nil && r.Operations < count/2 {
		err = fmt.Errorf("%d of %d tables were created: %v", r.Operations, count, r.Errors)
	}
	return err
}

func tableLoad(ctx context.Context, cl *cluster, count uint64) (*loadgen.Report, error) {
	return cl.load(ctx, cl, load{op: "create-table", clients: 256, count: count, more: []string{"--nodes", "10", "--keep"}})
}

// failover kills the leader of both stores again and again.
func (c *comparison) failover(ctx context.Context) error {
	var line []string
	for _, k := range []kind{c.store(), etcd{bin: c.etcd}} {
		clusters, end, err := c.start(ctx, k)
		if err != nil {
			return err
		}
		took, err := failovers(ctx, clusters[0], c.kills)
		end()
		if err != nil {
			return err
		}
		median, worst := medianAndWorst(took)
		line = append(line, fmt.Sprintf("%s_median=%s %s_worst=%s", k.name(), median.Round(time.Millisecond), k.name(), worst.Round(time.Millisecond)))
	}
	c.say("failover kills=%d %s", c.kills, strings.Join(line, " "))
	return nil
}
