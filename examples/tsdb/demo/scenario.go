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
)

const (
	tableName   = "metrics"
	secondTable = "deploys"
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
	out     *steps
	bin     binaries
	keep    bool

	cluster *cluster
	client  *client.Client
	db      *sql.DB
}

// run starts the cluster, plays a scenario on it and ends all that was started.
func (d *demo) run(ctx context.Context, scenario func(context.Context) error) (err error) {
	dir, err := os.MkdirTemp("", "metasrv-demo-")
	if err != nil {
		return err
	}
	if d.cluster, err = newCluster(dir, d.bin); err != nil {
		return err
	}
	d.out.print("data and logs in %s (removed at the end)", dir)
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
			d.out.print("data and logs stay in %s", dir)
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
	errs = append(errs, d.cluster.stop())
	d.out.print("all processes ended")
	return errors.Join(errs...)
}

// start brings up every process and creates the first table.
func (d *demo) start(ctx context.Context) error {
	c := d.cluster
	for _, m := range c.members {
		if err := c.startMember(m); err != nil {
			return err
		}
	}
	var leader *member
	if err := c.wait(ctx, "a metasrv leader", func() bool { leader = c.leader(ctx); return leader != nil }); err != nil {
		return err
	}
	d.out.print("three members of metasrv run, %s was elected metasrv leader", leader.id)
	for i := range datanodes {
		if err := c.startDatanode(i); err != nil {
			return err
		}
	}
	if err := c.startFrontend(); err != nil {
		return err
	}
	if err := d.connect(); err != nil {
		return err
	}
	if err := c.wait(ctx, "three live datanodes and the frontend", func() bool {
		return d.liveDatanodes(ctx) == datanodes && httpOK(ctx, "http://"+c.http+"/health")
	}); err != nil {
		return err
	}
	d.out.print("three datanodes and a frontend run and send heartbeats")
	return d.createTable(ctx, createMetrics, tableName, regions)
}

func (d *demo) connect() (err error) {
	var endpoints []string
	for _, m := range d.cluster.members {
		endpoints = append(endpoints, m.grpc)
	}
	if d.client, err = client.New(client.Config{Endpoints: endpoints}); err != nil {
		return err
	}
	d.db, err = sql.Open("mysql", "root@tcp("+d.cluster.mysql+")/public")
	return err
}

func (d *demo) liveDatanodes(ctx context.Context) int {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	nodes, err := d.client.Cluster().ListNodes(ctx, &metasrvpb.ListNodesRequest{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE})
	if err != nil {
		return 0
	}
	live := 0
	for _, n := range nodes.Nodes {
		if n.State == metasrvpb.NodeState_NODE_STATE_LIVE {
			live++
		}
	}
	return live
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
	d.out.print("table %s created in %s: %d regions with %d replicas each on %d datanodes",
		name, took.Round(time.Millisecond), wantRegions, replicas, len(answer.Peers))
	return nil
}

// survive kills the metasrv leader under load and checks that nothing is lost.
func (d *demo) survive(ctx context.Context) error {
	writing, stopWriting := context.WithCancel(ctx)
	defer stopWriting()
	w := &writer{url: "http://" + d.cluster.http + "/write?precision=us&db=public", host: hostName(), dir: d.cluster.dir, every: 50 * time.Millisecond}
	type outcome struct {
		ledger *ledger
		err    error
	}
	written := make(chan outcome, 1)
	go func() {
		l, err := w.run(writing)
		written <- outcome{l, err}
	}()
	d.out.print("writing the metrics of this machine as line protocol")
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
	if err := sleep(ctx, time.Second); err != nil {
		return err
	}
	stopWriting()
	result := <-written
	if result.err != nil {
		return result.err
	}
	d.out.print("%d rows acknowledged in %d batches, %d attempts were repeated",
		len(result.ledger.acknowledged), result.ledger.batches, result.ledger.retries)
	if err := d.verify(ctx, result.ledger); err != nil {
		return err
	}
	return d.cluster.healthy()
}

func (d *demo) killLeader(ctx context.Context) (*member, error) {
	c := d.cluster
	old := c.leader(ctx)
	if old == nil {
		return nil, errors.New("there is no metasrv leader to kill")
	}
	begin := time.Now()
	old.process.kill()
	old.process = nil
	d.out.print("metasrv leader %s killed (kill -9), still writing", old.id)
	var next *member
	if err := c.wait(ctx, "a new metasrv leader", func() bool { next = c.leader(ctx); return next != nil }); err != nil {
		return nil, err
	}
	d.out.print("%s is the new metasrv leader after %s", next.id, time.Since(begin).Round(time.Millisecond))
	return old, nil
}

// restart brings a killed member back and waits until it has what the metasrv leader has.
func (d *demo) restart(ctx context.Context, m *member) error {
	if err := d.cluster.startMember(m); err != nil {
		return err
	}
	begin := time.Now()
	err := d.cluster.wait(ctx, "the restarted member catches up", func() bool {
		leader := d.cluster.leader(ctx)
		if leader == nil {
			return false
		}
		want, err := leader.status(ctx)
		if err != nil {
			return false
		}
		got, err := m.status(ctx)
		return err == nil && got.AppliedIndex >= want.AppliedIndex && m.ready(ctx)
	})
	if err == nil {
		d.out.print("%s restarted from its folder and caught up after %s", m.id, time.Since(begin).Round(time.Millisecond))
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
