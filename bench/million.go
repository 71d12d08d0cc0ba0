package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// regionsOfATable is what metactl bench create-table makes by default.
const regionsOfATable = 10

// million measures a cluster with a million regions: how fast they are created, what they hold of memory, how soon a
// restarted member answers, and how much longer puts take while a new member is fed.
func (c *comparison) million(ctx context.Context) error {
	clusters, end, err := c.start(ctx, c.store())
	if err != nil {
		return err
	}
	defer end()
	cl := clusters[0]
	before := cl.memory()
	r, cpu, err := measure(ctx, cl.pids(), func() (*loadgen.Report, error) { return tableLoad(ctx, cl, c.tables) })
	if err != nil {
		return err
	}
	created := &figures{}
	created.add(r, cpu)
	regions := r.Operations * regionsOfATable
	c.say("%s", alone(fmt.Sprintf("create-table clients=256 tables=%d regions=%d", c.tables, regions), created))
	if regions == 0 {
		return errors.New("no region was created")
	}
	c.sayMemory("right after", cl, before, regions)
	if err := c.quiet(ctx); err != nil {
		return err
	}
	c.sayMemory("once quiet", cl, before, regions)
	if err := c.restarts(ctx, cl, before, regions); err != nil {
		return err
	}
	return c.feed(ctx, cl)
}

// sayMemory says what the members hold more than before, by region.
func (c *comparison) sayMemory(when string, cl *cluster, before []resident, regions uint64) {
	perRegion := func(b, a uint64) float64 { return float64(a-min(a, b)) / float64(regions) }
	for i, now := range cl.memory()[:members] {
		c.say("memory %s member=%d rss=%dMB anon=%dMB bytes_per_region: rss=%.0f anon=%.0f", when, i+1, now.resident>>20, now.anonymous>>20,
			perRegion(before[i].resident, now.resident), perRegion(before[i].anonymous, now.anonymous))
	}
}

// quiet waits until the members have written their images, which they do when a burst is over, and given back what they don't need.
func (c *comparison) quiet(ctx context.Context) error {
	if !c.quick {
		sleep(ctx, 20*time.Second)
	}
	return ctx.Err()
}

// resident is what a member holds in memory, in bytes.
type resident struct{ resident, anonymous uint64 }

func (c *cluster) memory() []resident {
	var all []resident
	for _, p := range c.processes {
		rss, anon, _ := memory(p.pid())
		all = append(all, resident{rss, anon})
	}
	return all
}

// restarts kills a follower and then all members, and measures how soon a linearizable read is answered.
func (c *comparison) restarts(ctx context.Context, cl *cluster, before []resident, regions uint64) error {
	leader, err := cl.awaitLeader(ctx)
	if err != nil {
		return err
	}
	follower := (leader + 1) % members
	cl.processes[follower].kill()
	began := time.Now()
	if err := cl.startMember(follower); err != nil {
		return err
	}
	if err := firstRead(ctx, cl.client[follower]); err != nil {
		return err
	}
	c.say("restart of one member: first linearizable read on it after %s", time.Since(began).Round(time.Millisecond))
	sleep(ctx, settleTime)
	now := cl.memory()[follower]
	c.say("memory after restart rss=%dMB anon=%dMB bytes_per_region: rss=%.0f anon=%.0f", now.resident>>20, now.anonymous>>20,
		float64(now.resident-before[follower].resident)/float64(regions), float64(now.anonymous-before[follower].anonymous)/float64(regions))
	for _, p := range cl.processes {
		p.kill()
	}
	began = time.Now()
	for i := range members {
		if err := cl.startMember(i); err != nil {
			return err
		}
	}
	if err := firstRead(ctx, cl.client[follower]); err != nil {
		return err
	}
	c.say("restart of all members: first linearizable read after %s", time.Since(began).Round(time.Millisecond))
	return nil
}

// firstRead asks a member until it answers a linearizable read.
func firstRead(ctx context.Context, addr string) error {
	ctx, cancel := context.WithTimeout(ctx, electionLimit)
	defer cancel()
	for {
		err := readOnce(ctx, addr)
		if err == nil {
			return nil
		}
		if !sleep(ctx, 5*time.Millisecond) {
			return fmt.Errorf("%s answers no linearizable read: %w", addr, err)
		}
	}
}

func readOnce(ctx context.Context, addr string) error {
	conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	_, err = metasrvpb.NewStoreClient(conn).Range(ctx, &metasrvpb.RangeRequest{
		Header: &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_LINEARIZABLE}, Key: []byte("bench/first"),
	})
	return err
}
