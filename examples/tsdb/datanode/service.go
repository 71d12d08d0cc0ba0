package datanode

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Version of the program, which Status and registrations carry.
const Version = "0.1.0"

// maxMessage is the largest message that a datanode takes or sends, in bytes.
const maxMessage = 64 << 20

// silenceLimit is how long a connection may be silent before the other side is asked for a sign of life; it is given up after
// half as long again.
const silenceLimit = 10 * time.Second

// dropTimeout is how long a drop waits for requests that use the replica.
const dropTimeout = 5 * time.Second

// Registration is what the service needs of the heartbeat task.
type Registration interface {
	// Incarnation returns the incarnation of the node, 0 before it is registered.
	Incarnation() uint64
	// Beat asks for a heartbeat at once.
	Beat()
	// ChangeInSync asks metasrv for another in-sync set of a region that the node leads.
	ChangeInSync(change *metasrvpb.InSyncChange)
}

// Service is the gRPC service of a datanode.
type Service struct {
	tsdbpb.UnimplementedDatanodeServer

	node         metasrv.NodeID
	store        *store.Store
	logger       *slog.Logger
	registration Registration
	keeper       *client.RegionKeeper
	journal      *journal
	counters     counters // of the node
	// ours says that the data is known to be of the cluster that metasrv is.
	ours atomic.Bool

	// ctx ends replication; work counts the goroutines that do it.
	ctx  context.Context //nolint:containedctx // the life of the service, which outlasts a request
	stop context.CancelFunc
	work sync.WaitGroup
	// copies bounds the copies of replicas that are sent at a time.
	copies chan struct{}

	mu      sync.Mutex
	closed  bool
	regions map[*store.Replica]*region
	peers   map[string]*grpc.ClientConn
}

// ServiceConfig has what a service needs.
type ServiceConfig struct {
	Node metasrv.NodeID
	// Store stays the caller's to close, after the service.
	Store        *store.Store
	Registration Registration
	// Keeper has the leases under which the node writes.
	Keeper *client.RegionKeeper
	Logger *slog.Logger
	// Journal is a file that gets what is acknowledged and stored. None if empty.
	Journal string
}

// NewService returns a service for the replicas of a store.
func NewService(c ServiceConfig) (*Service, error) {
	j, err := openJournal(c.Journal)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	return &Service{
		node: c.Node, store: c.Store, logger: c.Logger, registration: c.Registration, keeper: c.Keeper, journal: j,
		ctx: ctx, stop: stop, copies: make(chan struct{}, maxCopies),
		regions: map[*store.Replica]*region{}, peers: map[string]*grpc.ClientConn{},
	}, nil
}

// Open has the service serve its replicas: they are of the cluster that metasrv is. Until then requests for them
// are UNAVAILABLE, since another cluster means other rows by the same ids. Replicas that led go on leading, once metasrv
// grants a lease for the epoch and the configuration that they remember.
func (s *Service) Open() {
	if s.ours.Swap(true) {
		return
	}
	for _, r := range s.store.Replicas() {
		if r.Damage() == nil {
			s.region(r).lead()
		}
	}
	s.begin(s.watch)
}

// opened returns ErrNotReady before Open.
func (s *Service) opened() error {
	if s.ours.Load() {
		return nil
	}
	return metasrv.ErrNotReady.With("node %s has not heard from metasrv yet whether its data belongs to this cluster", s.node)
}

// Close ends replication under way, whose writes fail, and closes the connections to other datanodes.
func (s *Service) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.stop()
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	errs := []error{s.journal.close()}
	for _, c := range s.peers {
		errs = append(errs, c.Close())
	}
	return errors.Join(errs...)
}

// CreateRegion makes an empty replica, and has it reported to metasrv at once.
func (s *Service) CreateRegion(
	ctx context.Context, request *tsdbpb.CreateRegionRequest,
) (*tsdbpb.CreateRegionResponse, error) {
	// Asked before the replica is made: a process that has been replaced must not vouch by the newer number.
	incarnation := s.registration.Incarnation()
	if incarnation == 0 {
		return nil, toStatus(metasrv.ErrNotReady.With("node %s is not registered with metasrv yet", s.node))
	}
	if err := s.opened(); err != nil {
		return nil, toStatus(err)
	}
	if request.GetRole() == learnerRole {
		return nil, toStatus(metasrv.InvalidArgument("role", "learners are made by metasrv only"))
	}
	r, err := s.store.Create(ctx, request)
	if err != nil {
		return nil, toStatus(err)
	}
	s.region(r).lead() // writes wait for a lease, which follows once the table is public
	s.logger.Info("region created", "region_id", r.Region(), "replica_id", r.ID(), "role", request.GetRole())
	s.registration.Beat()
	return &tsdbpb.CreateRegionResponse{Incarnation: incarnation}, nil
}

// DropRegion deletes a replica.
func (s *Service) DropRegion(
	ctx context.Context, request *tsdbpb.DropRegionRequest,
) (*tsdbpb.DropRegionResponse, error) {
	existed, err := s.drop(ctx, metasrv.RegionID(request.GetRegionId()),
		metasrv.ReplicaID(request.GetReplicaId()), request.GetLeaderEpoch(), "asked by a client")
	if err != nil {
		return nil, toStatus(err)
	}
	s.registration.Beat()
	return &tsdbpb.DropRegionResponse{Existed: existed}, nil
}

func (s *Service) drop(
	ctx context.Context, id metasrv.RegionID, replica metasrv.ReplicaID, epoch uint64, reason string,
) (existed bool, err error) {
	if err := s.opened(); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, dropTimeout)
	defer cancel()
	r, err := s.store.Replica(id)
	if errors.Is(err, store.ErrNotFound) {
		return false, nil
	}
	if r.ID() == replica {
		s.region(r).stopLeading(epoch+1, invalid(id, nil, "the replica on this datanode is being dropped"))
	}
	existed, err = s.store.Drop(ctx, id, replica, epoch)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrStaleEpoch):
		return false, invalid(id, r, err.Error())
	case err != nil:
		return false, err
	}
	s.forget(r)
	if existed {
		s.logger.Info("region dropped", "region_id", id, "replica_id", replica, "reason", reason)
	}
	return existed, nil
}

// Status describes the node and its replicas, damaged ones included.
func (s *Service) Status(ctx context.Context, _ *tsdbpb.StatusRequest) (*tsdbpb.StatusResponse, error) {
	out := &tsdbpb.StatusResponse{
		NodeId: uint64(s.node), Incarnation: s.registration.Incarnation(),
		StorageUuid: s.store.StorageUUID(), Version: Version,
	}
	for _, r := range s.store.Replicas() {
		state := r.State()
		d := r.Definition()
		status := &tsdbpb.ReplicaStatus{
			RegionId: uint64(r.Region()), ReplicaId: uint64(r.ID()), Role: state.Role, Demoted: state.Demoted,
			LeaderEpoch: state.LeaderEpoch, ConfVersion: state.ConfVersion,
			RouteVersion: d.GetRoute().GetRouteVersion(), TableName: d.GetTableName(),
			StoredSeq: state.StoredSeq, LogEpoch: state.LogEpoch, ApproximateRows: state.Rows, SizeBytes: r.Size(), File: r.File(),
		}
		if err := r.Damage(); err != nil {
			status.Damage = err.Error()
		} else if rows, err := r.Rows(ctx); err == nil {
			status.ApproximateRows = rows
		}
		_, err := s.keeper.BeginWrite(r.Region())
		status.Leased = err == nil
		out.Replicas = append(out.Replicas, status)
	}
	return out, nil
}

// replica returns the replica that a request names, if the caller's route is the one that it has.
func (s *Service) replica(route *tsdbpb.Route) (*store.Replica, error) {
	r, err := s.named(route)
	if err != nil {
		return nil, err
	}
	if route.GetLeaderEpoch() != r.State().LeaderEpoch {
		return nil, invalid(r.Region(), r, "the replica is at another leader_epoch")
	}
	if v := route.GetRouteVersion(); v != 0 && v < r.Definition().GetRoute().GetRouteVersion() {
		return nil, invalid(r.Region(), r, "the route_version is older than the replica")
	}
	return r, nil
}

// named returns the replica that a request names, whatever its epoch.
func (s *Service) named(route *tsdbpb.Route) (*store.Replica, error) {
	if err := s.opened(); err != nil {
		return nil, err
	}
	id := metasrv.RegionID(route.GetRegionId())
	r, err := s.store.Replica(id)
	if err != nil {
		return nil, invalid(id, nil, "the replica is not on this datanode")
	}
	if uint64(r.ID()) != route.GetReplicaId() {
		return nil, invalid(id, r, "the replica on this datanode is another one")
	}
	if err := r.Damage(); err != nil {
		return nil, err
	}
	if s.isClosed(r) {
		return nil, errClosed(r)
	}
	return r, nil
}

// invalid returns INVALID_ROUTE that names the replica on this node, if there is one.
func invalid(id metasrv.RegionID, r *store.Replica, message string) error {
	e := &routing.Invalid{Message: message, Region: id}
	if r != nil {
		e.Replica = r.ID()
		e.LeaderEpoch = r.State().LeaderEpoch
		e.ConfVersion = r.State().ConfVersion
		e.RouteVersion = r.Definition().GetRoute().GetRouteVersion()
	}
	return e
}

func (s *Service) isClosed(r *store.Replica) bool {
	g := s.region(r)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.closed
}

// region returns what the service keeps of a replica beside the store, as long as the store has the replica.
func (s *Service) region(r *store.Replica) *region {
	s.mu.Lock()
	defer s.mu.Unlock()
	if g := s.regions[r]; g != nil {
		return g
	}
	g := &region{service: s, replica: r}
	if present, err := s.store.Replica(r.Region()); err == nil && present == r {
		s.regions[r] = g
	}
	return g
}

// allRegions returns what the service keeps of all replicas.
func (s *Service) allRegions() []*region {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.regions))
}

func (s *Service) forget(r *store.Replica) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.regions, r)
}

// peer returns the datanode at an address.
func (s *Service) peer(addr string) (tsdbpb.DatanodeClient, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, metasrv.ErrNotReady.With("node %s is stopping", s.node)
	}
	c := s.peers[addr]
	if c == nil {
		var err error
		c, err = grpc.NewClient(addr,
			grpc.WithTransportCredentials(insecure.NewCredentials()),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage), grpc.MaxCallSendMsgSize(maxMessage)),
			// A datanode that hangs closes nothing: a copy that it takes would keep its place for ever.
			grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: silenceLimit, Timeout: silenceLimit / 2}),
			// Writes fail while a follower is away, so its return must be noticed soon.
			grpc.WithConnectParams(grpc.ConnectParams{
				Backoff:           backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second},
				MinConnectTimeout: 2 * time.Second,
			}))
		if err != nil {
			return nil, err
		}
		s.peers[addr] = c
	}
	return tsdbpb.NewDatanodeClient(c), nil
}
