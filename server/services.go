package server

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// services is what the gRPC services of a member share.
type services struct {
	node     Node
	memberID string
	started  time.Time
	log      *slog.Logger
	flags    flags
	// term holds what lives as long as this member is the metasrv leader, nil while it is not.
	term atomic.Pointer[term]
	// helpers are goroutines of streams that read or write them; they end with their streams.
	helpers sync.WaitGroup
	// beats counts heartbeats and leases.
	beats heartbeatMetrics
	// turns bound how many heartbeats are worked on at the same moment.
	turns *heartbeat.Turns
	// hub hands the changes of the state to watches.
	hub *hub
	// routeWatches and catalogWatches are what watches of them have in common.
	routeWatches   shared[routeChange]
	catalogWatches shared[*metasrvpb.CatalogEvent]
	// placed counts the replicas on each node, rotation the placements.
	placed   placements
	rotation atomic.Uint64
	// routes has the encoded routes of tables.
	routes *router.Encoder
	// cluster is the id of the cluster once it is known: it never changes.
	cluster atomic.Uint64
	// incarnation is the life of the cluster; it is known when cluster is.
	incarnation atomic.Uint64
	// generation counts the lives before it.
	generation atomic.Uint64
}

// clusterID returns the id of the cluster, 0 while this member doesn't know it.
func (s *services) clusterID() uint64 {
	if id := s.cluster.Load(); id != 0 {
		return id
	}
	status := s.node.Status()
	s.incarnation.Store(status.Incarnation)
	s.generation.Store(status.Generation)
	s.cluster.Store(status.ClusterID)
	return status.ClusterID
}

// register adds every service, under its own name and where it has one under its early public name.
func (s *services) register(r grpc.ServiceRegistrar) {
	metasrvpb.RegisterHeartbeatServer(r, heartbeatService{services: s})
	metasrvpb.RegisterRouterServer(r, routerService{services: s})
	metasrvpb.RegisterCatalogServer(r, catalogService{services: s})
	metasrvpb.RegisterStoreServer(r, storeService{services: s})
	metasrvpb.RegisterLockServer(r, lockService{services: s})
	metasrvpb.RegisterElectionServer(r, electionService{services: s})
	metasrvpb.RegisterClusterServer(r, clusterService{services: s})
	metasrvpb.RegisterMaintenanceServer(r, maintenanceService{services: s})
	registerEarly(r, s)
}

// execute runs a client's command, fills result with its answer, and returns the header of the response.
func (s *services) execute(
	ctx context.Context, h *metasrvpb.RequestHeader, kind storagepb.CommandKind, command, result proto.Message,
) (*metasrvpb.ResponseHeader, error) {
	r, err := s.propose(ctx, h, kind, command)
	if err != nil {
		return nil, err
	}
	if err := r.Decode(result); err != nil {
		return nil, metasrv.ErrInternal.With("result of %s: %v", kind, err)
	}
	return &metasrvpb.ResponseHeader{Revision: r.Revision}, nil
}

// propose runs a client's command.
func (s *services) propose(
	ctx context.Context, h *metasrvpb.RequestHeader, kind storagepb.CommandKind, command proto.Message,
) (state.Result, error) {
	id, err := commandID(h)
	if err != nil {
		return state.Result{}, err
	}
	return s.node.Propose(ctx, state.Proposal{Kind: kind, Payload: command, ID: id})
}

// firstResult is for a request that is refused before the log. Where the request is the retry of one that was
// executed, it fills result with that one's answer; else it returns the refusal.
func (s *services) firstResult(ctx context.Context, h *metasrvpb.RequestHeader, refusal error, result proto.Message) (*metasrvpb.ResponseHeader, error) {
	id, err := commandID(h)
	if err != nil || id == nil {
		return nil, refusal
	}
	view, err := s.node.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	first, err := machine.Remembered(view, id)
	switch {
	case err != nil:
		return nil, err
	case first == nil:
		return nil, refusal
	}
	r, err := machine.ResultOf(first)
	if err != nil {
		return nil, err
	}
	if err := r.Decode(result); err != nil {
		return nil, metasrv.ErrInternal.With("remembered result: %v", err)
	}
	return &metasrvpb.ResponseHeader{Revision: r.Revision}, nil
}

// wallTime returns the time for display that commands carry.
func wallTime() int64 { return time.Now().UnixMilli() }
