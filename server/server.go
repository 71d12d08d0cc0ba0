package server

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/reflection"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
)

const (
	maxResponseBytes = 256 << 20
	// streamWorkers is the number of requests that are served without growing a new goroutine stack each.
	streamWorkers = 256
	// leaderService is the name under which the health service tells whether this member is the metasrv leader.
	leaderService = "metasrv.leader"
	healthPeriod  = 100 * time.Millisecond
	readyPeriod   = 5 * time.Millisecond
)

// Server is a running member.
type Server struct {
	cfg       Config
	services  *services
	duties    *duties
	listeners *listeners
	dir       *dataDir
	grpc      *grpc.Server
	http      *http.Server
	// pprof is nil unless asked for.
	pprof    *http.Server
	health   *health.Server
	registry *prometheus.Registry
	// stopping ends streams, with the error for their clients as its cause.
	stopping context.Context
	stop     context.CancelCauseFunc
	// ready is set while the node serves.
	ready atomic.Bool
	// background runs what serves; its context ends when the first part failed or the member stops.
	background *errgroup.Group
	failed     context.Context
	end        context.CancelFunc

	closeOnce sync.Once
	closeErr  error
}

// Start opens a member and serves it. It returns when the ports are open and the data is read, which is before
// there is a metasrv leader. A wrong configuration is a ConfigError. Close the server in any case.
func Start(cfg Config) (*Server, error) { return start(cfg, openNode) }

// nodeOpener opens the node of a server whose ports are open.
type nodeOpener func(s *Server) (Node, error)

func start(cfg Config, open nodeOpener) (_ *Server, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	s := &Server{cfg: cfg, services: &services{memberID: cfg.NodeID, started: time.Now(), log: cfg.Logger, routes: newEncoder()}}
	s.services.flags = flags{beats: cfg.heartbeats(), repairAfter: cfg.RepairAfter}
	s.services.beats.duration = newAnswerHistogram()
	s.services.turns = heartbeat.NewTurns(heartbeat.DefaultTurns())
	s.duties = &duties{services: s.services, metrics: newFailoverMetrics(s.services)}
	if s.dir, err = openDataDir(cfg.DataDir, cfg.NodeID); err != nil {
		return nil, err
	}
	if s.listeners, err = listen(&cfg); err != nil {
		return nil, errors.Join(err, s.dir.close())
	}
	s.stopping, s.stop = context.WithCancelCause(context.Background())
	ctx, end := context.WithCancel(context.Background())
	s.end = end
	s.background, s.failed = errgroup.WithContext(ctx)

	s.registry = newRegistry()
	s.http = newHTTP(s.live, s.readiness, s.registry)
	s.background.Go(func() error { return serving("HTTP", s.http.Serve(s.listeners.http)) })

	if s.listeners.pprof != nil {
		s.pprof = newPprof()
		s.background.Go(func() error { return serving("pprof", s.pprof.Serve(s.listeners.pprof)) })
	}

	if s.services.node, err = open(s); err != nil {
		return nil, errors.Join(err, s.closeEarly())
	}
	s.serve()
	return s, nil
}

// serve starts what needs the node.
func (s *Server) serve() {
	s.services.hub = newHub(s.services.node)
	s.services.placed.source = s.services.node
	s.registry.MustRegister(newNodeCollector(s.services.node), s.duties.metrics)
	s.services.beats.register(s.registry)
	s.health = health.NewServer()
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	s.health.SetServingStatus(leaderService, healthpb.HealthCheckResponse_NOT_SERVING)
	s.grpc = s.newGRPC()
	s.ready.Store(true)
	s.background.Go(func() error { return serving("gRPC", s.grpc.Serve(s.listeners.grpc)) })
	s.background.Go(func() error { return s.services.hub.run(s.failed) })
	s.background.Go(func() error { return s.watchHealth(s.failed) })
	s.background.Go(func() error { return s.compareFlags(s.failed) })
	s.background.Go(func() error { return s.watchNode(s.failed) })
	s.background.Go(func() error { return s.releaseMemory(s.failed) })
}

func (s *Server) newGRPC() *grpc.Server {
	i := &interceptor{
		services: s.services, metrics: newRPCMetrics(s.registry), stopping: s.stopping,
	}
	g := grpc.NewServer(
		grpc.UnaryInterceptor(i.unary),
		grpc.StreamInterceptor(i.stream),
		grpc.ForceServerCodecV2(newCodec(s.services.turns)),
		grpc.MaxRecvMsgSize(metasrv.MaxRequestBytes),
		grpc.MaxSendMsgSize(maxResponseBytes),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 30 * time.Second, Timeout: 10 * time.Second}),
		grpc.WaitForHandlers(true),
	)
	s.services.register(g)
	healthpb.RegisterHealthServer(g, s.health)
	reflection.Register(g)
	return g
}

// Done is closed when the member can't go on; Close then tells why.
func (s *Server) Done() <-chan struct{} { return s.failed.Done() }

// GRPCAddr returns the address on which clients are served.
func (s *Server) GRPCAddr() string { return s.listeners.grpc.Addr().String() }

// HTTPAddr returns the address of the HTTP endpoints.
func (s *Server) HTTPAddr() string { return s.listeners.http.Addr().String() }

// RaftAddr returns the address on which other members are served.
func (s *Server) RaftAddr() string { return s.listeners.raft.Addr().String() }

// Node returns the member's node.
func (s *Server) Node() Node { return s.services.node }

// Close stops the member in order: it tells its clients, waits until requests under way are answered or
// Config.ShutdownTimeout has passed, hands leadership over, flushes and closes. It returns why the member
// failed, if it did. Closing it again returns the same.
func (s *Server) Close() error {
	s.closeOnce.Do(func() { s.closeErr = s.close() })
	return s.closeErr
}

func (s *Server) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout)
	defer cancel()
	s.ready.Store(false)
	s.health.Shutdown()
	s.stop(metasrv.ErrNotReady.With("member %s is stopping", s.cfg.NodeID))
	s.drain(ctx)
	s.services.helpers.Wait()

	closing, done := context.WithTimeout(context.Background(), s.cfg.ShutdownTimeout)
	defer done()
	err := s.services.node.Close(closing)
	return errors.Join(err, s.closeEarly())
}

// drain lets requests that arrived be answered, and cuts them off when ctx ends.
func (s *Server) drain(ctx context.Context) {
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		s.grpc.GracefulStop()
	}()
	select {
	case <-drained:
	case <-ctx.Done():
		s.grpc.Stop()
		<-drained
	}
}

// closeEarly closes what is open before the node is.
func (s *Server) closeEarly() error {
	s.end()
	httpErr := s.http.Close()
	if s.pprof != nil {
		httpErr = errors.Join(httpErr, s.pprof.Close())
	}
	err := s.background.Wait()
	s.stop(nil)
	return errors.Join(err, httpErr, s.listeners.close(), s.dir.close())
}

// WaitReady waits until the member leads or follows a metasrv leader that is ready for clients, as far as the
// member can know: a metasrv leader waits for its own duties. It returns why it can't, or the error of ctx.
func (s *Server) WaitReady(ctx context.Context) error {
	ticker := time.NewTicker(readyPeriod)
	defer ticker.Stop()
	for {
		if s.usable() {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.Done():
			return fmt.Errorf("member %s ended before it was ready", s.cfg.NodeID)
		case <-ticker.C:
		}
	}
}

// Wait serves until ctx ends, which is no error, or the member fails, and closes it.
func (s *Server) Wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		s.cfg.Logger.Info("stopping", "member", s.cfg.NodeID, "cause", context.Cause(ctx))
	case <-s.Done():
	}
	return s.Close()
}

// watchNode fails the member when its node does.
func (s *Server) watchNode(ctx context.Context) error {
	select {
	case <-s.services.node.Done():
		return fmt.Errorf("member %s can't go on: %w", s.cfg.NodeID, s.services.node.Err())
	case <-ctx.Done():
		return nil
	}
}

// releasePeriod is how often memory is given back that the member doesn't need.
const releasePeriod = 4 * time.Second

// releaseMemory gives back what the start and each flush read of the files, and what a burst of writes has left.
func (s *Server) releaseMemory(ctx context.Context) error {
	dir, err := filepath.Abs(s.cfg.DataDir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return nil //nolint:nilerr // the memory then counts, no more
	}
	ticker := time.NewTicker(releasePeriod)
	defer ticker.Stop()
	for rest := (heap{}); ; {
		s.services.node.WhileMapped(func() { releaseMapped(dir) })
		select {
		case <-ticker.C:
			rest.release()
		case <-ctx.Done():
			return nil
		}
	}
}

// serving returns the error with which a server ended, nil where it was stopped.
func serving(what string, err error) error {
	if err == nil || errors.Is(err, http.ErrServerClosed) || errors.Is(err, grpc.ErrServerStopped) || errors.Is(err, net.ErrClosed) {
		return nil
	}
	return fmt.Errorf("serve %s: %w", what, err)
}
