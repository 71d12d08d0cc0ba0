package main

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
)

// feedClients write while a member is fed; not as fast as they can, for that alone would fill the queues.
const (
	feedClients = 64
	feedRate    = 2000
	maxFeed     = 20 * time.Second
)

// feed measures puts without and with a new member that is fed the state.
func (c *comparison) feed(ctx context.Context, cl *cluster) error {
	help, err := exec.CommandContext(ctx, c.metactl, "member", "--help").CombinedOutput()
	if err != nil {
		return err
	}
	if !strings.Contains(string(help), "add") {
		c.say("feed: this metactl has no member add")
		return nil
	}
	l := c.load("put", feedClients)
	l.rate, l.duration = feedRate, min(l.duration, maxFeed)
	without, with := &figures{}, &figures{}
	r, err := cl.load(ctx, cl, l)
	if err != nil {
		return err
	}
	without.add(r, 0)
	var fed time.Duration
	adding, adds := errgroup.WithContext(ctx)
	adding.Go(func() (err error) {
		sleep(adds, l.warmup)
		fed, err = c.addMember(adds, cl)
		return err
	})
	r, err = cl.load(ctx, cl, l)
	if err := errors.Join(err, adding.Wait()); err != nil {
		return err
	}
	with.add(r, 0)
	c.say("feed put clients=%d rate=%d fed_after=%s p99_without=%.1f p99_with=%.1f ratio=%.2f p50=%.2f/%.2f%s", feedClients, feedRate, fed.Round(time.Millisecond),
		without.p99, with.p99, ratio(with.p99, without.p99), without.p50, with.p50, with.failed("requests"))
	return nil
}

// addMember adds a fourth member to the cluster, starts it, and returns how long it takes until it answers with the
// present state.
func (c *comparison) addMember(ctx context.Context, cl *cluster) (time.Duration, error) {
	addrs, err := freeAddrs(2)
	if err != nil {
		return 0, err
	}
	const id = "m4"
	began := time.Now()
	add := exec.CommandContext(ctx, c.metactl, "member", "add", id, "--raft-addr", addrs[1], "--endpoints", strings.Join(cl.client, ","))
	if out, err := add.CombinedOutput(); err != nil {
		return 0, fmt.Errorf("member add: %w: %s", err, out)
	}
	p, err := start(cl.dir, id, c.metasrv, "server", "--node-id", id, "--data-dir", filepath.Join(cl.dir, id), "--grpc-addr", addrs[0],
		"--raft-addr", addrs[1], "--http-addr", "127.0.0.1:0", "--initial-cluster-state", "existing")
	if err != nil {
		return 0, err
	}
	cl.processes = append(cl.processes, p)
	err = firstRead(ctx, addrs[0])
	return time.Since(began), err
}
