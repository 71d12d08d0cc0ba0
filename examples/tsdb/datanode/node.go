package datanode

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// stopTimeout is how long a stopping datanode waits for requests under way.
const stopTimeout = 10 * time.Second

// Config says who a datanode is and where it stores, listens and reports.
type Config struct {
	// NodeID is unique in the cluster and stays with the data folder.
	NodeID metasrv.NodeID
	// Listen is the address of the gRPC port, host:port.
	Listen string
	// Advertise is the address that frontends and other datanodes dial. Default: where it listens.
	Advertise string
	// Metasrv are gRPC addresses of members.
	Metasrv []string
	DataDir string
	// Zone is a failure domain, sent as label zone where it isn't empty.
	Zone string
	// OpenReplicas is how many replicas keep their file open while nobody uses them. Default: that of store.Config.
	OpenReplicas int
	// Journal is a file to which the node appends what it acknowledges, and what it stores for region leaders: for checks of
	// a cluster. None if empty.
	Journal string
	// Interval between heartbeats until metasrv names another one. Default: that of the client library.
	Interval time.Duration
	Logger   *slog.Logger
	// OnListen is told the address once requests are answered. May be nil.
	OnListen func(addr string)
}

// Validate returns ErrInvalidArgument naming the field that can't be used.
func (c Config) Validate() error {
	switch {
	case c.NodeID == 0:
		return metasrv.InvalidArgument("node-id", "is missing, or 0")
	case c.DataDir == "":
		return metasrv.InvalidArgument("data-dir", "is missing")
	case len(c.Metasrv) == 0:
		return metasrv.InvalidArgument("metasrv", "names no member")
	case c.OpenReplicas < 0:
		return metasrv.InvalidArgument("open-replicas", "is negative")
	}
	host, _, err := net.SplitHostPort(c.Listen)
	if err != nil {
		return metasrv.InvalidArgument("listen", "%q is not host:port", c.Listen)
	}
	if ip := net.ParseIP(host); c.Advertise == "" && (host == "" || ip.IsUnspecified()) {
		return metasrv.InvalidArgument("advertise", "is missing: others can't dial %q", c.Listen)
	}
	return nil
}

// Run serves until ctx ends, finishes requests under way, closes the files and returns nil. It returns an error
// where the node can't serve: Config.Validate's, store.ErrLocked, a port in use, or, told by metasrv, that
// the folder belongs to another cluster (metasrv.ErrClusterMismatch), that another process has the node id
// (metasrv.ErrNodeIDTaken), or that the registration is over (metasrv.ErrStaleIncarnation).
func Run(ctx context.Context, c Config) (err error) {
	if err := c.Validate(); err != nil {
		return err
	}
	plain := cmp.Or(c.Logger, slog.New(slog.DiscardHandler))
	c.Logger = plain.With("node_id", c.NodeID)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", c.Listen)
	if err != nil {
		return listenError(c.Listen, err)
	}
	defer func() { _ = listener.Close() }() // the server closes it too
	s, err := store.Open(ctx, store.Config{Folder: c.DataDir, NodeID: c.NodeID, MaxOpen: c.OpenReplicas, Logger: c.Logger})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	c.Advertise = cmp.Or(c.Advertise, listener.Addr().String())
	c.Logger.Info("datanode starts", "address", listener.Addr().String(), "data_dir", s.Path(),
		"advertise", c.Advertise, "metasrv", c.Metasrv, "storage_uuid", s.StorageUUID(), "replicas", len(s.Replicas()))

	cl, err := client.New(client.Config{Endpoints: c.Metasrv, Logger: plain})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, cl.Close()) }()
	n := &node{config: c, store: s, keeper: client.NewRegionKeeper(), unbound: make(chan error, 1)}
	n.task = client.NewHeartbeatTask(cl, n.heartbeats(ctx))
	n.service, err = NewService(ServiceConfig{
		Node: c.NodeID, Store: s, Registration: n.task, Keeper: n.keeper, Logger: c.Logger, Journal: c.Journal,
	})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, n.service.Close()) }()
	return n.serve(ctx, listener)
}

func listenError(addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("--listen %s is in use by another process; stop that one, or choose another address", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("--listen %s is not an address of this machine; listen on one of its own and name the other one with --advertise", addr)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("--listen %s may not be listened on by this user; ports below 1024 need a privilege", addr)
	}
	return fmt.Errorf("listen: %w", err)
}

type node struct {
	config  Config
	store   *store.Store
	keeper  *client.RegionKeeper
	service *Service
	task    *client.HeartbeatTask
	// unbound gets why the folder could not be made one of the cluster.
	unbound chan error
}

func (n *node) heartbeats(ctx context.Context) client.HeartbeatConfig {
	gauges := newMachine(ctx, n.store.Path())
	labels := map[string]string{}
	if n.config.Zone != "" {
		labels["zone"] = n.config.Zone
	}
	return client.HeartbeatConfig{
		Peer:      &metasrvpb.Peer{Id: uint64(n.config.NodeID), Addr: n.config.Advertise},
		ClusterID: n.store.ClusterID(),
		NodeInfo: &metasrvpb.NodeInfo{
			Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, Version: Version, Labels: labels,
			Capacity: capacity(ctx, n.store.Path()), StorageUuid: n.store.StorageUUID(),
		},
		Interval: n.config.Interval,
		Collect: func(ctx context.Context) (client.HeartbeatReport, error) {
			report := n.service.report(ctx)
			gauges.fill(ctx, report.NodeStat)
			return report, nil
		},
		OnInstruction: func(ctx context.Context, i *metasrvpb.Instruction) error { return n.service.Instruct(ctx, i) },
		// A failover has many regions promoted at once, each of which waits for the disk.
		InstructionWorkers: 16,
		Keeper:             n.keeper,
		OnInSyncResult:     func(result *metasrvpb.InSyncResult) { n.service.inSyncResult(result) },
		OnRegistered:       func(uint64) { n.bind() },
	}
}

// bind makes the folder one of the cluster that the node is registered with, and serves it from then on.
func (n *node) bind() {
	id := n.task.ClusterID()
	if id == 0 {
		n.config.Logger.Warn("metasrv did not say which cluster it is; nothing is served until it does")
		return
	}
	if err := n.store.BindCluster(id); err != nil {
		select {
		case n.unbound <- err:
		default:
		}
		return
	}
	n.service.Open()
}

// serve answers requests and beats until ctx ends or the heartbeats can't go on.
func (n *node) serve(ctx context.Context, listener net.Listener) error {
	server := grpc.NewServer(
		grpc.MaxRecvMsgSize(maxMessage), grpc.MaxSendMsgSize(maxMessage),
		// Who hangs while it sends a copy, or reads rows, would hold a file here for ever.
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: silenceLimit, Timeout: silenceLimit / 2}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))
	tsdbpb.RegisterDatanodeServer(server, n.service)
	healthpb.RegisterHealthServer(server, health.NewServer())
	reflection.Register(server)

	beats, endBeats := context.WithCancel(context.WithoutCancel(ctx))
	defer endBeats()
	group, serving := errgroup.WithContext(ctx)
	group.Go(func() error {
		if err := server.Serve(listener); !errors.Is(err, grpc.ErrServerStopped) {
			return err
		}
		return nil
	})
	group.Go(func() error {
		return n.heartbeatError(n.task.Run(beats))
	})
	group.Go(func() error {
		select {
		case err := <-n.unbound:
			return err
		case <-serving.Done():
			return nil
		}
	})
	group.Go(func() error {
		// Beats go on until the last request is answered: the node is alive as long.
		<-serving.Done()
		n.stop(server)
		endBeats()
		return nil
	})
	if n.config.OnListen != nil {
		n.config.OnListen(listener.Addr().String())
	}
	return group.Wait()
}

// heartbeatError says what the end of the heartbeats means for this datanode.
func (n *node) heartbeatError(err error) error {
	switch {
	case errors.Is(err, metasrv.ErrClusterMismatch):
		return fmt.Errorf("data folder %s belongs to cluster %d, but %w: use an empty folder (or the metasrv of that cluster)",
			n.store.Path(), n.store.ClusterID(), err)
	case errors.Is(err, metasrv.ErrStaleIncarnation):
		// Which of the reasons it is, metasrv's message says.
		return fmt.Errorf("node %s lost its registration: %w", n.config.NodeID, err)
	case err != nil:
		return fmt.Errorf("heartbeats: %w", err)
	}
	return nil
}

// stop takes no more requests and waits for those under way, for some time.
func (n *node) stop(server *grpc.Server) {
	n.config.Logger.Info("datanode stops")
	late := time.AfterFunc(stopTimeout, server.Stop)
	defer late.Stop()
	server.GracefulStop()
}
