package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/links"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

const (
	members   = 3
	datanodes = 5
	frontends = 2
	// writeTimeout is what frontends are given: longer than any fault lasts.
	writeTimeout = "45s"
	// repairAfter is after what silence of a node its replicas are rebuilt elsewhere: no less than makes it down.
	repairAfter = "10s"
)

// errViolation: something was lost, or happened that must not. What, was printed.
var errViolation = errors.New("a promise was broken")

// chaos is one run.
type chaos struct {
	config
	out     *local.Steps
	cluster *local.Cluster
	links   *links.Links
	client  *client.Client
	dbs     []*sql.DB
	load    *load
	epochs  *epochs
	faults  *faults

	// end ends the run, at the first violation too.
	end        context.CancelFunc
	mu         sync.Mutex
	violations int
}

// violated notes that a promise was broken, and ends the run.
func (c *chaos) violated(err error) {
	c.mu.Lock()
	c.violations++
	n := c.violations
	c.mu.Unlock()
	if n <= 10 {
		c.out.Print("VIOLATION (seed %d): %v", c.seed, err)
	}
	c.end()
}

func (c *chaos) hasViolations() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.violations > 0
}

func (c *chaos) run(ctx context.Context) (err error) {
	dir, err := os.MkdirTemp("", "metasrv-chaos-")
	if err != nil {
		return err
	}
	c.out.Print("seed %d, for %s; SEED=%d make chaos makes the same faults again; data and logs in %s", c.seed, c.duration, c.seed, dir)
	c.links = links.New()
	if c.cluster, err = local.New(dir, c.bin, local.Size{Members: members, Datanodes: datanodes, Frontends: frontends}); err != nil {
		return err
	}
	defer func() {
		c.close()
		if c.keep || err != nil && c.broken == "" {
			c.out.Print("data and logs stay in %s", dir)
			return
		}
		err = errors.Join(err, os.RemoveAll(dir))
	}()
	if err := c.start(ctx); err != nil {
		return err
	}
	if err := c.disturb(ctx); err != nil {
		return err
	}
	if !c.hasViolations() {
		if err := c.verify(ctx); err != nil {
			return err
		}
	}
	if c.hasViolations() {
		return errViolation
	}
	c.out.Print("nothing acknowledged was lost, missed or there twice (seed %d)", c.seed)
	return nil
}

func (c *chaos) close() {
	for _, db := range c.dbs {
		_ = db.Close()
	}
	if c.client != nil {
		_ = c.client.Close()
	}
	c.links.Close()
	c.cluster.Kill()
}

// disturb lets clients work under faults for as long as the run lasts, and undoes the faults.
func (c *chaos) disturb(ctx context.Context) error {
	clients, stop := context.WithCancel(ctx)
	defer stop()
	disturbed, end := context.WithTimeout(ctx, c.duration)
	defer end()
	c.end = end
	var working, disturbing sync.WaitGroup
	c.load = newLoad(c.dbs, c.violated)
	if c.broken != "" {
		c.load.writePause /= 10 // more is under way when a node stands still
	}
	for w := range writers {
		working.Go(func() { c.load.write(clients, w) })
	}
	for r := range readers {
		working.Go(func() { c.load.read(clients, r) })
	}
	working.Go(func() { c.epochs.watch(clients, c.client, c.violated) })
	working.Go(func() { c.progress(disturbed) })
	c.faults = newFaults(c)
	for _, lane := range c.faults.lanes {
		disturbing.Go(func() { c.faults.run(disturbed, lane) })
	}
	disturbing.Wait()
	c.out.Print("the faults are over: %s", c.faults.tally())
	var err error
	if !c.hasViolations() {
		err = c.settle(ctx)
	}
	stop()
	working.Wait()
	return err
}

// progress prints now and then how the clients get on.
func (c *chaos) progress(ctx context.Context) {
	for n := 1; sleep(ctx, 5*time.Second); n++ {
		if n%3 == 0 {
			c.summary()
		}
		if _, err := c.judge(); err != nil {
			c.violated(err)
		}
	}
}

func (c *chaos) summary() {
	all, known := c.load.rows()
	last := ""
	if f := c.load.lastFailure.Swap(nil); f != nil {
		last = "; last failure: " + *f
	}
	c.out.Print("%d rows sent, %d acknowledged; %d writes, %d failed, the slowest took %s; %d reads, %d failed%s", all, known,
		c.load.writes.Load(), c.load.failedWrites.Load(), time.Duration(c.load.slowest.Swap(0)).Round(time.Millisecond),
		c.load.reads.Load(), c.load.failedReads.Load(), last)
}

// start brings up every process, behind proxies, and creates the tables.
func (c *chaos) start(ctx context.Context) (err error) {
	for _, m := range c.cluster.Members {
		if m.DialGRPC, err = c.links.Listen(m.ID, m.GRPC); err != nil {
			return err
		}
		if m.DialRaft, err = c.links.Listen(m.ID, m.Raft); err != nil {
			return err
		}
	}
	c.links.Started("chaos", os.Getpid())
	for _, m := range c.cluster.Members {
		if err := c.startMember(m); err != nil {
			return err
		}
	}
	if err := c.cluster.Wait(ctx, "a metasrv leader", func() bool { return c.cluster.Leader(ctx) != nil }); err != nil {
		return err
	}
	for _, d := range c.cluster.Datanodes {
		if d.Dial, err = c.links.Listen(datanodeName(d), d.Addr); err != nil {
			return err
		}
		d.Zone = fmt.Sprintf("zone-%d", d.ID%3)
		d.Journal, d.Environment = c.journalFile(d.ID), []string{"TSDB_BROKEN=" + c.broken}
		if err := c.startDatanode(d); err != nil {
			return err
		}
	}
	for _, f := range c.cluster.Frontends {
		if err := c.startFrontend(f); err != nil {
			return err
		}
	}
	if err := c.connect(); err != nil {
		return err
	}
	if err := c.cluster.Wait(ctx, "live datanodes and frontends", func() bool {
		healthy := local.LiveDatanodes(ctx, c.client) == datanodes
		for _, f := range c.cluster.Frontends {
			healthy = healthy && f.Healthy(ctx)
		}
		return healthy
	}); err != nil {
		return err
	}
	c.epochs = newEpochs()
	for _, statement := range []string{createEvents, createLatest} {
		if _, err := c.dbs[0].ExecContext(ctx, statement); err != nil {
			return fmt.Errorf("%s: %w", statement, err)
		}
	}
	c.out.Print("%d members, %d datanodes and %d frontends run, the tables are there", members, datanodes, frontends)
	return nil
}

// silent takes what the driver prints of connections that break: they break all the time.
type silent struct{}

func (silent) Print(...any) {}

func (c *chaos) connect() (err error) {
	_ = mysql.SetLogger(silent{}) // refused only where it is nil
	var direct []string
	for _, m := range c.cluster.Members {
		direct = append(direct, m.GRPC)
	}
	if c.client, err = client.New(client.Config{Endpoints: direct}); err != nil {
		return err
	}
	for _, f := range c.cluster.Frontends {
		db, err := sql.Open("mysql", "root@tcp("+f.MySQL+")/public?timeout=2s")
		if err != nil {
			return err
		}
		db.SetMaxIdleConns(writers + readers)
		c.dbs = append(c.dbs, db)
	}
	return nil
}

func (c *chaos) startMember(m *local.Member) error {
	if err := c.cluster.StartMember(m, "--repair-after", repairAfter); err != nil {
		return err
	}
	c.links.Started(m.ID, m.Process.PID())
	return nil
}

func (c *chaos) startDatanode(d *local.Datanode) error {
	if err := c.cluster.StartDatanode(d); err != nil {
		return err
	}
	c.links.Started(datanodeName(d), d.Process.PID())
	return nil
}

func (c *chaos) startFrontend(f *local.Frontend) error {
	if err := c.cluster.StartFrontend(f, "--write-timeout", writeTimeout); err != nil {
		return err
	}
	c.links.Started(frontendName(f), f.Process.PID())
	return nil
}

// Names of processes as the links have them.
func datanodeName(d *local.Datanode) string { return fmt.Sprintf("d%d", d.ID) }
func frontendName(f *local.Frontend) string { return fmt.Sprintf("f%d", f.ID) }
