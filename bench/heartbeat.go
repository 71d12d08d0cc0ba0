package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// heartbeatLoad is nodes that keep leases, each with so many replicas of regions that have one.
func (c *comparison) heartbeatLoad() load {
	nodes, regions := 1000, 1000
	if c.quick {
		nodes, regions = 30, 100
	}
	return load{op: "heartbeat", clients: 4, warmup: c.warmup, duration: c.duration, more: []string{
		"--nodes", fmt.Sprint(nodes), "--regions", fmt.Sprint(regions), "--regions-per-table", fmt.Sprint(regions), "--keep",
	}}
}

// heartbeat measures what it costs to keep the leases of many regions, and what nodes notice of it when the leader is killed.
func (c *comparison) heartbeat(ctx context.Context) error {
	for _, kill := range []bool{false, true} {
		clusters, end, err := c.start(ctx, c.store())
		if err != nil {
			return err
		}
		err = c.beats(ctx, clusters[0], kill)
		end()
		if err != nil {
			return err
		}
	}
	return nil
}

// beats measures one run. The leader is killed when half of it is over.
func (c *comparison) beats(ctx context.Context, cl *cluster, kill bool) error {
	l, what := c.heartbeatLoad(), "heartbeat"
	if kill {
		what = "heartbeat with a kill of the leader"
		l.measuring = func() {
			if !sleep(ctx, c.duration/2) {
				return
			}
			if leader, err := cl.awaitLeader(ctx); err == nil {
				cl.processes[leader].kill()
			}
		}
	}
	r, err := cl.load(ctx, cl, l)
	if err != nil {
		return err
	}
	f := &figures{}
	f.add(r, 0)
	c.say("%s%s", alone(what, f), figuresOf(r))
	for i, m := range cl.memory()[:members] {
		c.say("memory member=%d rss=%dMB anon=%dMB", i+1, m.resident>>20, m.anonymous>>20)
	}
	return nil
}

// figuresOf returns the figures of a report as name=value.
func figuresOf(r *loadgen.Report) string {
	var b strings.Builder
	fmt.Fprintf(&b, " p999=%.1f longest_pause=%s", r.LatencyMS.P999, time.Duration(r.LongestPauseMS*float64(time.Millisecond)).Round(time.Millisecond))
	for _, f := range r.Figures {
		fmt.Fprintf(&b, " %s=%.5g", f.Name, f.Value)
	}
	return b.String()
}
