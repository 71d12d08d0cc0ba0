package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

const (
	// timedRegions is how many regions a datanode leads when it is killed, or drained.
	timedRegions = 500
	// kills is how often a datanode is killed; the first kill only brings all regions to the other one.
	kills = 6
	// lease is that of metasrv's defaults, and slack what a failover may take behind its end.
	lease, slack = 3 * time.Second, 500 * time.Millisecond
	// probeAttempts is how often a write to a region is tried; a frontend tries for long by itself.
	probeAttempts = 3
	drainWriters  = 4
	// electionPoll is how often metasrv is asked who leads: seldom enough that the answers, of all regions, cost little.
	electionPoll = 100 * time.Millisecond
	drainTimeout = 5 * time.Minute
)

// times measures, with the defaults of all programs, how long the regions of a datanode can't be written when it is killed,
// and what clients notice when it is drained.
type times struct {
	out     *local.Steps
	cluster *local.Cluster
	client  *client.Client
	db      *sql.DB
}

func measure(ctx context.Context, bin local.Binaries, out *local.Steps) (err error) {
	dir, err := os.MkdirTemp("", "metasrv-times-")
	if err != nil {
		return err
	}
	t := &times{out: out}
	if t.cluster, err = local.New(dir, bin, local.Size{Members: 3, Datanodes: 3, Frontends: 1}); err != nil {
		return err
	}
	defer func() {
		t.cluster.Kill()
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := t.start(ctx); err != nil {
		return err
	}
	defer func() { _ = t.db.Close() }()
	defer func() { _ = t.client.Close() }()
	return errors.Join(t.failover(ctx), t.drain(ctx))
}

// start brings up two datanodes, with a table of which both have all regions, and then a third one.
func (t *times) start(ctx context.Context) (err error) {
	_ = mysql.SetLogger(silent{}) // refused only where it is nil
	c := t.cluster
	for _, m := range c.Members {
		if err := c.StartMember(m); err != nil {
			return err
		}
	}
	if err := c.Wait(ctx, "a metasrv leader", func() bool { return c.Leader(ctx) != nil }); err != nil {
		return err
	}
	if err := errors.Join(c.StartDatanode(c.Datanodes[0]), c.StartDatanode(c.Datanodes[1]), c.StartFrontend(c.Frontends[0], "--write-timeout", writeTimeout)); err != nil {
		return err
	}
	if t.client, err = client.New(client.Config{Endpoints: c.Endpoints()}); err != nil {
		return err
	}
	if t.db, err = sql.Open("mysql", "root@tcp("+c.Frontends[0].MySQL+")/public"); err != nil {
		return err
	}
	if err := c.Wait(ctx, "two live datanodes and a frontend", func() bool {
		return local.LiveDatanodes(ctx, t.client) == 2 && c.Frontends[0].Healthy(ctx)
	}); err != nil {
		return err
	}
	began := time.Now()
	if _, err := t.db.ExecContext(ctx, createTimed()); err != nil {
		return err
	}
	t.out.Print("a table of %d regions with 2 replicas was created in %s", timedRegions, time.Since(began).Round(time.Millisecond))
	if err := c.StartDatanode(c.Datanodes[2]); err != nil {
		return err
	}
	_, err = t.probe(ctx, 0)
	return err
}

// createTimed makes a table that has row k in its k-th region.
func createTimed() string {
	bounds := make([]string, timedRegions)
	for i := range bounds {
		bounds[i] = fmt.Sprintf("PARTITION p%d VALUES LESS THAN (%d)", i, i+1)
	}
	bounds[timedRegions-1] = fmt.Sprintf("PARTITION p%d VALUES LESS THAN (MAXVALUE)", timedRegions-1)
	return "CREATE TABLE timed (k BIGINT PRIMARY KEY, v BIGINT) COMMENT 'replicas=2' PARTITION BY RANGE COLUMNS (k) (" +
		strings.Join(bounds, ", ") + ")"
}

// probe has a client for each region write a row to it, all beginning now, until it is acknowledged, and returns how long that
// took, sorted: a region can be written when a write to it is acknowledged.
func (t *times) probe(ctx context.Context, v int) ([]time.Duration, error) {
	took, errs := make([]time.Duration, timedRegions), make([]error, timedRegions)
	var clients sync.WaitGroup
	began := time.Now()
	for k := range timedRegions {
		clients.Go(func() {
			statement := fmt.Sprintf("INSERT INTO timed VALUES (%d, %d)", k, v)
			for attempt := 1; ; attempt++ {
				_, err := t.db.ExecContext(ctx, statement)
				took[k] = time.Since(began)
				if err == nil || attempt == probeAttempts || !sleep(ctx, 100*time.Millisecond) {
					errs[k] = err
					return
				}
			}
		})
	}
	clients.Wait()
	slices.Sort(took)
	return took, errors.Join(errs...)
}

// failover kills the two datanodes in turn, each when it leads all regions.
func (t *times) failover(ctx context.Context) error {
	var elections, writes []time.Duration
	for n := range kills {
		victim := t.cluster.Datanodes[n%2]
		if err := t.whole(ctx); err != nil {
			return err
		}
		led, err := t.leads(ctx, victim.ID)
		if err != nil {
			return err
		}
		// What the same writes take while all is well. It opens the connections too.
		well, err := t.probe(ctx, n+1)
		if err != nil {
			return err
		}
		// At any moment between two heartbeats.
		sleep(ctx, time.Duration(rand.Int64N(int64(time.Second)))) //nolint:gosec // any moment will do
		victim.Process.Kill()
		elected := t.awaitElections(ctx, victim.ID)
		gone, err := t.probe(ctx, n+1)
		if err != nil {
			return err
		}
		election, first, middle, last := <-elected, gone[0], gone[timedRegions/2], gone[timedRegions-1]
		t.out.Print("killed datanode %d with %d region leaders → the last led elsewhere after %s; writes to %d regions acknowledged after "+
			"%s (first), %s (median), %s (last); while all was well %s (last)", victim.ID, led, ms(election), timedRegions, ms(first), ms(middle),
			ms(last), ms(well[timedRegions-1]))
		if n > 0 {
			elections, writes = append(elections, election), append(writes, last)
		}
		if err := t.cluster.StartDatanode(victim); err != nil {
			return err
		}
	}
	elected, written := median(elections), median(writes)
	t.out.Print("median of %d: the last of %d regions led elsewhere after %s, written elsewhere after %s (lease %s)",
		len(elections), timedRegions, ms(elected), ms(written), lease)
	if written > lease+slack {
		return fmt.Errorf("the median until the last region is written elsewhere is %s, above %s", ms(written), lease+slack)
	}
	return nil
}

func ms(d time.Duration) time.Duration { return d.Round(time.Millisecond) }

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}

// awaitElections tells when a datanode leads nothing any more, by metasrv's state.
func (t *times) awaitElections(ctx context.Context, node uint64) <-chan time.Duration {
	began, elected := time.Now(), make(chan time.Duration, 1)
	go func() {
		for sleep(ctx, electionPoll) {
			if n, err := t.leads(ctx, node); err == nil && n == 0 {
				break
			}
		}
		elected <- time.Since(began)
	}()
	return elected
}

// whole waits until all replicas are in sync.
func (t *times) whole(ctx context.Context) error {
	return t.cluster.Wait(ctx, "all replicas are in sync", func() bool { return local.InSync(ctx, t.client) })
}

// leads returns how many regions a datanode leads.
func (t *times) leads(ctx context.Context, node uint64) (n int, err error) {
	answer, err := t.client.Cluster().ListRegions(ctx, &metasrvpb.ListRegionsRequest{})
	for _, r := range answer.GetRegions() {
		if leader := leaderOf(r); leader.GetPeer().GetId() == node {
			n++
		}
	}
	return n, err
}

// drain drains the datanode that leads all regions while clients write: no write fails.
func (t *times) drain(ctx context.Context) error {
	if err := t.whole(ctx); err != nil {
		return err
	}
	d := t.cluster.Datanodes[kills%2]
	led, err := t.leads(ctx, d.ID)
	if err != nil {
		return err
	}
	writing, stop := context.WithCancel(ctx)
	defer stop()
	var mu sync.Mutex
	var slowest time.Duration
	writes, failed := 0, error(nil)
	var clients sync.WaitGroup
	for range drainWriters {
		clients.Go(func() {
			for sleep(writing, 10*time.Millisecond) {
				began := time.Now()
				_, err := t.db.ExecContext(ctx, fmt.Sprintf("INSERT INTO timed VALUES (%d, 1)", rand.IntN(timedRegions))) //nolint:gosec // spreads the load
				mu.Lock()
				writes, slowest, failed = writes+1, max(slowest, time.Since(began)), errors.Join(failed, err)
				mu.Unlock()
			}
		})
	}
	began := time.Now()
	started, err := t.client.Cluster().StartProcedure(ctx, &metasrvpb.StartProcedureRequest{Reason: "its time is taken", Procedure: &metasrvpb.StartProcedureRequest_DrainNode{
		DrainNode: &metasrvpb.DrainNode{NodeId: d.ID},
	}})
	p := started.GetProcedure()
	for err == nil && !ended(p) && time.Since(began) < drainTimeout && sleep(ctx, 200*time.Millisecond) {
		var answer *metasrvpb.GetProcedureResponse
		answer, err = t.client.Cluster().GetProcedure(ctx, &metasrvpb.GetProcedureRequest{ProcedureId: p.GetProcedureId()})
		p = answer.GetProcedure()
	}
	stop()
	clients.Wait()
	if err = errors.Join(err, failed); err != nil {
		return fmt.Errorf("drain of datanode %d: %w", d.ID, err)
	}
	if p.GetState() != metasrvpb.ProcedureState_PROCEDURE_STATE_DONE {
		return fmt.Errorf("drain of datanode %d: %s after %s: %s", d.ID, p.GetState(), time.Since(began).Round(time.Second), p.GetError())
	}
	t.out.Print("drained datanode %d, which led %d of %d regions, in %s: of %d writes of clients none failed, the slowest took %s",
		d.ID, led, timedRegions, time.Since(began).Round(100*time.Millisecond), writes, slowest.Round(time.Millisecond))
	return nil
}
