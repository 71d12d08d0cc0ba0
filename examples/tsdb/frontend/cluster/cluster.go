package cluster

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Defaults of Config.
const (
	DefaultTimeout         = 15 * time.Second
	DefaultScanConcurrency = 8
	DefaultAnswerTimeout   = 2 * time.Second
	DefaultRoutePatience   = 3 * time.Second
	DefaultSchemaAge       = 5 * time.Second
)

// Config says how tables are reached. Only Client has no default.
type Config struct {
	Client *client.Client
	Logger *slog.Logger
	// Timeout ends a write, and the attempts to begin the scan of a region, where the context has no earlier
	// deadline. Default 15 s.
	Timeout time.Duration
	// ScanConcurrency is how many regions one scan reads at a time. Default 8.
	ScanConcurrency int
	// AnswerTimeout is how long one replica may take to say that it reads; then another one is asked. The rows may
	// take longer. Default 2 s.
	AnswerTimeout time.Duration
	// RoutePatience is how long the scan of a region that its leader doesn't answer waits for metasrv to say which followers
	// are in sync. After that those are read that were when metasrv last said so; they may lack rows that were
	// acknowledged since. Default 3 s.
	RoutePatience time.Duration
	// SchemaAge is how long what is known of schemas is believed. Default 5 s.
	SchemaAge time.Duration
	// DialOptions are used for connections to datanodes. Default: plaintext.
	DialOptions []grpc.DialOption
}

// Cluster is safe for concurrent use. Close it after everything that uses it has ended.
type Cluster struct {
	cfg      Config
	catalog  metasrvpb.CatalogClient
	router   metasrvpb.RouterClient
	routes   *client.RouteCache
	nodes    *nodes
	schemas  schemas
	suspects suspects
	// silentUntil is the time, in ns since 1970, until which scans wait less for metasrv, since it didn't answer lately.
	silentUntil atomic.Int64
	// background is the context of what no caller waits for; end ends it.
	background context.Context
	end        context.CancelFunc
}

// New returns a Cluster. It doesn't own the client.
func New(cfg Config) *Cluster {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Timeout == 0 {
		cfg.Timeout = DefaultTimeout
	}
	if cfg.ScanConcurrency == 0 {
		cfg.ScanConcurrency = DefaultScanConcurrency
	}
	if cfg.AnswerTimeout == 0 {
		cfg.AnswerTimeout = DefaultAnswerTimeout
	}
	if cfg.RoutePatience == 0 {
		cfg.RoutePatience = DefaultRoutePatience
	}
	if cfg.SchemaAge == 0 {
		cfg.SchemaAge = DefaultSchemaAge
	}
	background, end := context.WithCancel(context.Background())
	return &Cluster{
		background: background, end: end,
		cfg:     cfg,
		catalog: cfg.Client.Catalog(),
		router:  cfg.Client.Router(),
		routes:  client.NewRouteCache(cfg.Client, client.WithRouteLogger(cfg.Logger)),
		nodes:   newNodes(cfg.DialOptions),
	}
}

// Run keeps the routes fresh until ctx ends. Without it they are fetched again when a datanode refuses them.
func (c *Cluster) Run(ctx context.Context) error { return c.routes.Run(ctx) }

// Close ends what runs in the background and closes the connections to datanodes.
func (c *Cluster) Close() error {
	c.end()
	c.schemas.questions.Wait()
	return c.nodes.close()
}

// Name returns the full name of a table of a schema.
func (c *Cluster) Name(schema, table string) metasrv.TableName {
	return metasrv.TableName{Catalog: metasrv.DefaultCatalog, Schema: schema, Table: table}
}

// TableNames returns the names of a schema's public tables, sorted.
func (c *Cluster) TableNames(ctx context.Context, schema string) ([]string, error) {
	resp, err := c.catalog.ListTables(ctx, &metasrvpb.ListTablesRequest{
		CatalogName: metasrv.DefaultCatalog, SchemaName: schema,
	})
	if err != nil {
		return nil, fmt.Errorf("list tables of %s: %w", schema, plain(err))
	}
	var names []string
	for _, t := range resp.GetTables() {
		names = append(names, t.GetTableName().GetTableName())
	}
	return names, nil
}

// Table returns a public table, as it is in the route cache. One that doesn't exist is
// metasrv.ErrTableNotFound.
func (c *Cluster) Table(ctx context.Context, name metasrv.TableName) (*Table, error) {
	if err := name.Validate(); err != nil {
		return nil, err
	}
	r, err := c.routes.Get(ctx, name)
	if err != nil {
		return nil, plain(err)
	}
	return &Table{Name: r.Name, ID: r.ID, Schema: r.Schema, SchemaVersion: r.SchemaVersion}, nil
}

// PartitionRule returns the partition rule of a table, nil where it has none.
func (c *Cluster) PartitionRule(ctx context.Context, t *Table) (*metasrvpb.PartitionRule, error) {
	resp, err := c.catalog.GetTable(ctx, &metasrvpb.GetTableRequest{TableId: uint64(t.ID)})
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", t.Name, err)
	}
	return resp.GetTable().GetPartitionRule(), nil
}

// DropTable drops a table; one that doesn't exist is metasrv.ErrTableNotFound.
func (c *Cluster) DropTable(ctx context.Context, name metasrv.TableName) error {
	_, err := c.router.Delete(ctx, &metasrvpb.DeleteRequest{TableName: nameProto(name)})
	c.routes.Invalidate(name, 0)
	if err != nil {
		return fmt.Errorf("drop table %s: %w", name, plain(err))
	}
	return nil
}

// route returns the route of a table as it was looked up. A table of another id or schema has its name by now
// is metasrv.ErrSchemaVersionChanged.
func (c *Cluster) route(ctx context.Context, t *Table) (*client.TableRoute, error) {
	r, err := c.routes.Get(ctx, t.Name)
	if err != nil {
		return nil, err
	}
	return r, same(t, r)
}

func same(t *Table, r *client.TableRoute) error {
	if r.ID != t.ID || r.SchemaVersion != t.SchemaVersion {
		return metasrv.ErrSchemaVersionChanged.With("table %s was changed since the statement began: repeat it", t.Name)
	}
	return nil
}

func nameProto(n metasrv.TableName) *metasrvpb.TableName {
	return &metasrvpb.TableName{CatalogName: n.Catalog, SchemaName: n.Schema, TableName: n.Table}
}

// Pauses between attempts.
const (
	minBackoff = 20 * time.Millisecond
	maxBackoff = 300 * time.Millisecond
)

// backoffOf returns how long to wait before attempt n, counted from 1.
func backoffOf(n int) time.Duration {
	d := min(maxBackoff, minBackoff<<min(n, 10))
	return d/2 + rand.N(d/2) //nolint:gosec // spreads retries, guards nothing
}

// pause waits before attempt n, counted from 1, or returns why ctx ended.
func pause(ctx context.Context, n int) error {
	timer := time.NewTimer(backoffOf(n))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
		return nil
	}
}
