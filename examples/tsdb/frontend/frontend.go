package frontend

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/frontend/cluster"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/engine"
	"github.com/metasrv/metasrv/examples/tsdb/frontend/influx"
)

// Version of the program.
const Version = "0.1.0"

// DefaultNodeID is for the only frontend of a cluster; datanodes count from 1.
const DefaultNodeID metasrv.NodeID = 101

// stopTimeout is how long a stopping frontend waits for requests under way.
const stopTimeout = 10 * time.Second

// Config says who a frontend is and where it listens.
type Config struct {
	// NodeID is unique among datanodes and frontends.
	NodeID metasrv.NodeID
	// MySQLListen and HTTPListen are host:port.
	MySQLListen, HTTPListen string
	// Metasrv are gRPC addresses of members.
	Metasrv []string
	// AutoPartitions is the number of regions of tables that line protocol creates. Default 1.
	AutoPartitions uint32
	// Timeout ends writes that are not acknowledged. Default cluster.DefaultTimeout.
	Timeout time.Duration
	Logger  *slog.Logger
	// OnListen is told the addresses once requests are answered. May be nil.
	OnListen func(mysqlAddr, httpAddr string)
}

// Validate returns ErrInvalidArgument naming the field that can't be used.
func (c Config) Validate() error {
	switch {
	case c.NodeID == 0:
		return metasrv.InvalidArgument("node-id", "is 0; give each node a number of its own, for example %d", DefaultNodeID)
	case len(c.Metasrv) == 0:
		return metasrv.InvalidArgument("metasrv", "names no member")
	case c.Timeout < 0:
		return metasrv.InvalidArgument("write-timeout", "%s is negative", c.Timeout)
	}
	for _, l := range []struct{ field, addr string }{
		{"mysql-listen", c.MySQLListen}, {"http-listen", c.HTTPListen},
	} {
		if _, _, err := net.SplitHostPort(l.addr); err != nil {
			return metasrv.InvalidArgument(l.field, "%q is not host:port", l.addr)
		}
	}
	return nil
}

// Run serves until ctx ends, finishes HTTP requests under way, ends the connections of MySQL clients and returns
// nil. It returns an error where the frontend can't serve: Config.Validate's, a port in use, or, told by metasrv,
// that another process took the node id (metasrv.ErrStaleIncarnation).
func Run(ctx context.Context, c Config) (err error) {
	if err := c.Validate(); err != nil {
		return err
	}
	unnamed := cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Logger = unnamed.With("node_id", c.NodeID)
	mysqlListener, err := listen(ctx, "mysql-listen", c.MySQLListen)
	if err != nil {
		return err
	}
	defer func() { _ = mysqlListener.Close() }() // the server closes it too
	httpListener, err := listen(ctx, "http-listen", c.HTTPListen)
	if err != nil {
		return err
	}
	defer func() { _ = httpListener.Close() }() // the server closes it too
	c.Logger.Info("frontend starts", "mysql", mysqlListener.Addr().String(), "http", httpListener.Addr().String(),
		"metasrv", c.Metasrv)

	cl, err := client.New(client.Config{Endpoints: c.Metasrv, Logger: c.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	tables := cluster.New(cluster.Config{Client: cl, Logger: c.Logger, Timeout: c.Timeout})
	defer func() { err = errors.Join(err, tables.Close()) }()
	sqlServer, err := engine.New(mysqlListener, tables, c.Logger)
	if err != nil {
		return err
	}
	f := &frontend{
		config: c, tables: tables, sql: sqlServer,
		task: client.NewHeartbeatTask(cl, heartbeats(c, unnamed, mysqlListener.Addr(), httpListener.Addr())),
		http: &http.Server{
			Handler: handler(tables, c), ReadHeaderTimeout: stopTimeout,
			ErrorLog: slog.NewLogLogger(c.Logger.Handler(), slog.LevelDebug),
		},
	}
	if c.OnListen != nil {
		c.OnListen(mysqlListener.Addr().String(), httpListener.Addr().String())
	}
	return f.serve(ctx, httpListener)
}

type frontend struct {
	config Config
	tables *cluster.Cluster
	sql    *engine.Server
	http   *http.Server
	task   *client.HeartbeatTask
}

// listen opens the port of a flag.
func listen(ctx context.Context, flag, addr string) (net.Listener, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("--%s %s is in use by another process; stop that one, or choose another address", flag, addr)
	case err != nil:
		return nil, fmt.Errorf("--%s %s: %w", flag, addr, err)
	}
	return l, nil
}

// heartbeats returns how the frontend is registered. The task adds the node_id to the lines of the logger itself.
func heartbeats(c Config, logger *slog.Logger, mysqlAddr, httpAddr net.Addr) client.HeartbeatConfig {
	return client.HeartbeatConfig{
		Peer: &metasrvpb.Peer{Id: uint64(c.NodeID), Addr: mysqlAddr.String()},
		NodeInfo: &metasrvpb.NodeInfo{
			Role: metasrvpb.NodeRole_NODE_ROLE_FRONTEND, Version: Version,
			Attrs: map[string]string{"mysql": mysqlAddr.String(), "http": httpAddr.String()},
		},
		Logger: logger,
	}
}

func handler(tables *cluster.Cluster, c Config) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/write", influx.New(tables, influx.Config{
		DefaultSchema: metasrv.DefaultSchema, Partitions: c.AutoPartitions, Logger: c.Logger,
	}))
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "ok\n") // a client that has gone needs no answer
	})
	return mux
}

// serve answers requests and beats until ctx ends or one of the two can't go on.
func (f *frontend) serve(ctx context.Context, httpListener net.Listener) error {
	background, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := f.http.Serve(httpListener); !errors.Is(err, http.ErrServerClosed) {
			return fmt.Errorf("http: %w", err)
		}
		return nil
	})
	group.Go(f.sql.Serve)
	group.Go(func() error {
		if err := f.task.Run(background); err != nil {
			return fmt.Errorf("heartbeats: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		if err := f.tables.Run(background); err != nil && background.Err() == nil {
			return fmt.Errorf("watch of routes: %w", err)
		}
		return nil
	})
	group.Go(func() error {
		<-serving.Done()
		defer end()
		return f.stop()
	})
	return group.Wait()
}

// stop takes no more requests, waits for HTTP requests under way, for some time, and ends MySQL connections.
func (f *frontend) stop() error {
	f.config.Logger.Info("frontend stops")
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	err := f.http.Shutdown(ctx)
	if errors.Is(err, context.DeadlineExceeded) {
		err = f.http.Close()
	}
	return errors.Join(err, f.sql.Close())
}
