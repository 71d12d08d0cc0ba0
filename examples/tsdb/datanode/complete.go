package datanode

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// confirmTimeout bounds what a query waits for other datanodes before it begins.
const confirmTimeout = time.Second

// complete returns nil if, at some moment after the call, the replica had every row that was ever acknowledged. A process that
// was paused, or cut off, doesn't know that by itself: its replica may have left the in-sync set, or another one may lead.
func (g *region) complete(ctx context.Context) error {
	return g.reads.join(ctx, g.service, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, confirmTimeout)
		defer cancel()
		if l := g.leadership(); l != nil {
			return l.confirm(ctx)
		}
		return g.askLeader(ctx)
	})
}

// confirm returns nil if, at some moment after the call, nothing was acknowledged but by this leadership. A lease shows it.
// Without one, as while metasrv doesn't answer, the other in-sync replicas can: a new leader is one of them, and no longer
// at this epoch. That takes knowing which they are.
func (l *leadership) confirm(ctx context.Context) error {
	r := l.region.replica
	if l.leased() {
		return nil
	}
	l.mu.Lock()
	over, vouched := l.over, l.vouched
	peers := map[uint64]*metasrvpb.Peer{}
	for id, f := range l.followers {
		if f.required() {
			peers[id] = f.peer
		}
	}
	l.mu.Unlock()
	switch {
	case over != nil:
		return over
	case !vouched:
		return detailed(status.Newf(codes.Unavailable, "region %s: this node has had no lease of metasrv yet since it began to lead, so it can't "+
			"know who is in sync", r.Region()), metasrv.ErrNoLease.Reason)
	}
	group, ctx := errgroup.WithContext(ctx)
	for id, peer := range peers {
		group.Go(func() error {
			route := &tsdbpb.Route{RegionId: uint64(r.Region()), ReplicaId: id, LeaderEpoch: l.epoch}
			return l.region.service.ask(ctx, peer, &tsdbpb.ConfirmRequest{Route: route})
		})
	}
	if err := group.Wait(); err != nil {
		return detailed(status.Newf(codes.Unavailable, "region %s: this node has no lease of metasrv at present, and can't tell without: %v",
			r.Region(), err), metasrv.ErrNoLease.Reason)
	}
	return nil
}

// askLeader has the region leader say that this replica has everything.
func (g *region) askLeader(ctx context.Context) error {
	r := g.replica
	state := r.State()
	if state.Role != followerRole || !state.InSync(r.ID()) {
		return invalid(r.Region(), r, "the replica on this datanode is not in sync")
	}
	for _, c := range state.Config.GetReplicas() {
		if c.GetReplicaId() == state.Config.GetLeaderReplicaId() && state.Config.GetLeaderEpoch() == state.LeaderEpoch {
			return g.service.ask(ctx, c.GetPeer(), &tsdbpb.ConfirmRequest{
				Route:           &tsdbpb.Route{RegionId: uint64(r.Region()), ReplicaId: c.GetReplicaId(), LeaderEpoch: state.LeaderEpoch},
				ReaderReplicaId: uint64(r.ID()),
			})
		}
	}
	return detailed(status.Newf(codes.Unavailable, "region %s: this node does not know yet which node leads it in epoch %d",
		r.Region(), state.LeaderEpoch), "LEADER_UNKNOWN")
}

func (s *Service) ask(ctx context.Context, peer *metasrvpb.Peer, request *tsdbpb.ConfirmRequest) error {
	c, err := s.peer(peer.GetAddr())
	if err != nil {
		return err
	}
	if _, err = c.Confirm(ctx, request); err != nil {
		region, replica := metasrv.RegionID(request.GetRoute().GetRegionId()), request.GetRoute().GetReplicaId()
		return detailed(status.Newf(codes.Unavailable, "region %s: replica %d on node %d at %s: %s",
			region, replica, peer.GetId(), peer.GetAddr(), status.Convert(err).Message()), "NOT_CONFIRMED")
	}
	return nil
}

// Confirm answers other datanodes that are about to answer a query.
func (s *Service) Confirm(ctx context.Context, request *tsdbpb.ConfirmRequest) (*tsdbpb.ConfirmResponse, error) {
	r, err := s.replica(request.GetRoute())
	if err != nil {
		return nil, toStatus(err)
	}
	if request.GetReaderReplicaId() == 0 {
		return &tsdbpb.ConfirmResponse{}, nil
	}
	g := s.region(r)
	l := g.leadership()
	if l == nil || l.epoch != request.GetRoute().GetLeaderEpoch() {
		return nil, toStatus(errHandedOver(g))
	}
	// First whether it leads, then whether a write waits for the reader: in between it may only come in.
	if err := g.complete(ctx); err != nil {
		return nil, toStatus(err)
	}
	if !l.requires(request.GetReaderReplicaId()) {
		return nil, toStatus(invalid(r.Region(), r, fmt.Sprintf("replica %d is not in sync", request.GetReaderReplicaId())))
	}
	return &tsdbpb.ConfirmResponse{}, nil
}

// requires reports whether nothing is acknowledged that a replica lacks.
func (l *leadership) requires(id uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.followers[id]
	return l.over == nil && f != nil && f.required()
}

// rounds has several callers share one answer: that of a round which begins after the call.
type rounds struct {
	mu      sync.Mutex
	next    *round
	running bool
}

type round struct {
	done chan struct{}
	err  error
}

// join returns what ask answers.
func (r *rounds) join(ctx context.Context, s *Service, ask func(context.Context) error) error {
	r.mu.Lock()
	if r.next == nil {
		r.next = &round{done: make(chan struct{})}
	}
	mine := r.next
	if !r.running {
		if !s.begin(func() { r.run(s.ctx, ask) }) {
			r.mu.Unlock()
			return status.Error(codes.Unavailable, "the datanode is stopping")
		}
		r.running = true
	}
	r.mu.Unlock()
	select {
	case <-mine.done:
		return mine.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *rounds) run(ctx context.Context, ask func(context.Context) error) {
	for {
		r.mu.Lock()
		present := r.next
		r.next = nil
		r.running = present != nil
		r.mu.Unlock()
		if present == nil {
			return
		}
		present.err = ask(ctx)
		close(present.done)
	}
}
