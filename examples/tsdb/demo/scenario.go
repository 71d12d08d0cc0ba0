package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	_ "github.com/go-sql-driver/mysql" // registers the driver

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

const (
	tableName   = "metrics"
	secondTable = "deploys"
	datanodes   = 3
	regions     = 4
	replicas    = 2
)

const createMetrics = `CREATE TABLE metrics (
  host VARCHAR(255) NOT NULL,
  metric VARCHAR(64) NOT NULL,
  device VARCHAR(64) NOT NULL,
  ts TIMESTAMP(6) NOT NULL,
  value DOUBLE,
  PRIMARY KEY (host, metric, device, ts)
) PARTITION BY KEY (metric, device) PARTITIONS 4`

const createDeploys = `CREATE TABLE deploys (
  service VARCHAR(64) NOT NULL,
  ts TIMESTAMP(6) NOT NULL,
  version VARCHAR(64),
  PRIMARY KEY (service, ts)
) PARTITION BY RANGE COLUMNS (service) (
  PARTITION p0 VALUES LESS THAN ('m'),
  PARTITION p1 VALUES LESS THAN (MAXVALUE)
)`

var errInterrupted = errors.New("interrupted")

// demo is one run.
type demo struct {
	// staying: an interrupt is how the run ends.
	staying bool
	out     *local.Steps
	bin     local.Binaries
	keep    bool

	cluster *local.Cluster
	client  *client.Client
	db      *sql.DB
}

// run starts the cluster, plays a scenario on it and ends all that was started.
func (d *demo) run(ctx context.Context, scenario func(context.Context) error) (err error) {
	dir, err := os.MkdirTemp("", "metasrv-demo-")
	if err != nil {
		return err
	}
	if d.cluster, err = local.New(dir, d.bin, local.Size{Members: 3, Datanodes: datanodes, Frontends: 1}); err != nil {
		return err
	}
	d.out.Print("data and logs in %s (removed at the end)", dir)
	defer func() {
		stopped := d.end()
		if ctx.Err() != nil { // whatever failed then, failed because of it
			err = errInterrupted
			if d.staying {
				err = nil
			}
		}
		err = errors.Join(err, stopped)
		switch {
		case d.keep, err != nil && !errors.Is(err, errInterrupted):
			d.out.Print("data and logs stay in %s", dir)
		default:
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	if err := d.start(ctx); err != nil {
		return err
	}
	return scenario(ctx)
}

func (d *demo) end() error {
	var errs []error
	if d.db != nil {
		errs = append(errs, d.db.Close())
	}
	if d.client != nil {
		errs = append(errs, d.client.Close())
	}
	errs = append(errs, d.cluster.Stop())
	d.out.Print("all processes ended")
	return errors.Join(errs...)
}

// start brings up every process and creates the first table.
func (d *demo) start(ctx context.Context) error {
	c := d.cluster
	for _, m := range c.Members {
		if err := c.StartMember(m); err != nil {
			return err
		}
	}
	var leader *local.Member
	if err := c.Wait(ctx, "a metasrv leader", func() bool { leader = c.Leader(ctx); return leader != nil }); err != nil {
		return err
	}
	d.out.Print("three members of metasrv run, %s was elected metasrv leader", leader.ID)
	for _, n := range c.Datanodes {
		if err := c.StartDatanode(n); err != nil {
			return err
		}
	}
	if err := c.StartFrontend(c.Frontends[0]); err != nil {
		return err
	}
	if err := d.connect(); err != nil {
		return err
	}
	if err := c.Wait(ctx, "three live datanodes and the frontend", func() bool {
		return local.LiveDatanodes(ctx, d.client) == datanodes && c.Frontends[0].Healthy(ctx)
	}); err != nil {
		return err
	}
	d.out.Print("three datanodes and a frontend run and send heartbeats")
	return d.createTable(ctx, createMetrics, tableName, regions)
}

func (d *demo) connect() (err error) {
	if d.client, err = client.New(client.Config{Endpoints: d.cluster.Endpoints()}); err != nil {
		return err
	}
	d.db, err = sql.Open("mysql", "root@tcp("+d.cluster.Frontends[0].MySQL+")/public")
	return err
}

// createTable runs a CREATE TABLE and checks the route that comes out of it.
func (d *demo) createTable(ctx context.Context, statement, name string, wantRegions int) error {
	begin := time.Now()
	if _, err := d.db.ExecContext(ctx, statement); err != nil {
		return fmt.Errorf("create table %s: %w", name, err)
	}
	took := time.Since(begin)
	answer, err := d.client.Router().Route(ctx, &metasrvpb.RouteRequest{
		TableNames: []*metasrvpb.TableName{{CatalogName: "greptime", SchemaName: "public", TableName: name}},
	})
	if err != nil {
		return err
	}
	route := answer.TableRoutes[0]
	if n := len(route.RegionRoutes); n != wantRegions {
		return fmt.Errorf("table %s has %d regions, want %d", name, n, wantRegions)
	}
	for _, r := range route.RegionRoutes {
		if n := 1 + len(r.FollowerPeerIndexes); n != replicas {
			return fmt.Errorf("region %d of table %s has %d replicas, want %d", r.Region.Id, name, n, replicas)
		}
	}
	d.out.Print("table %s created in %s: %d regions with %d replicas each on %d datanodes",
		name, took.Round(time.Millisecond), wantRegions, replicas, len(answer.Peers))
	return nil
}

// survive kills the metasrv leader and a datanode under load, and checks that nothing is lost.
func (d *demo) survive(ctx context.Context) error {
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	w := &writer{url: "http://" + d.cluster.Frontends[0].HTTP + "/write?precision=us&db=public", host: hostName(), dir: d.cluster.Dir, every: 50 * time.Millisecond}
	type outcome struct {
		ledger *ledger
		err    error
	}
	written := make(chan outcome, 1)
	go func() {
		l, err := w.run(writing)
		written <- outcome{l, err}
	}()
	d.out.Print("writing the metrics of this machine as line protocol")
	if err := sleep(ctx, 2*time.Second); err != nil {
		return err
	}
	killed, err := d.killLeader(ctx)
	if err != nil {
		return err
	}
	if err := d.createTable(ctx, createDeploys, secondTable, 2); err != nil {
		return err
	}
	if err := d.restart(ctx, killed); err != nil {
		return err
	}
	if err := d.killDatanode(ctx, w); err != nil {
		return err
	}
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	stopWriting()
	result := <-written
	if result.err != nil {
		return result.err
	}
	d.out.Print("%d rows acknowledged in %d batches, %d attempts were repeated",
		len(result.ledger.acknowledged), result.ledger.batches, result.ledger.retries)
	if err := d.verify(ctx, result.ledger); err != nil {
		return err
	}
	return d.cluster.Healthy()
}

func (d *demo) killLeader(ctx context.Context) (*local.Member, error) {
	c := d.cluster
	old := c.Leader(ctx)
	if old == nil {
		return nil, errors.New("there is no metasrv leader to kill")
	}
	begin := time.Now()
	old.Process.Kill()
	old.Process = nil
	d.out.Print("metasrv leader %s killed (kill -9), still writing", old.ID)
	var next *local.Member
	if err := c.Wait(ctx, "a new metasrv leader", func() bool { next = c.Leader(ctx); return next != nil }); err != nil {
		return nil, err
	}
	d.out.Print("%s is the new metasrv leader after %s", next.ID, time.Since(begin).Round(time.Millisecond))
	return old, nil
}

// restart brings a killed member back and waits until it has what the metasrv leader has.
func (d *demo) restart(ctx context.Context, m *local.Member) error {
	if err := d.cluster.StartMember(m); err != nil {
		return err
	}
	begin := time.Now()
	err := d.cluster.Wait(ctx, "the restarted member catches up", func() bool {
		leader := d.cluster.Leader(ctx)
		if leader == nil {
			return false
		}
		want, err := leader.Status(ctx)
		if err != nil {
			return false
		}
		got, err := m.Status(ctx)
		return err == nil && got.AppliedIndex >= want.AppliedIndex && m.Ready(ctx)
	})
	if err == nil {
		d.out.Print("%s restarted from its folder and caught up after %s", m.ID, time.Since(begin).Round(time.Millisecond))
	}
	return err
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
