package datanode

import (
	"context"
	"errors"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
)

// maxWriteID is the longest write id, in bytes.
const maxWriteID = 64

// Write stores rows on all in-sync replicas of a region that this node leads.
func (s *Service) Write(ctx context.Context, request *tsdbpb.WriteRequest) (*tsdbpb.WriteResponse, error) {
	s.awaitLeadership(ctx, request.GetRoute())
	r, err := s.replica(request.GetRoute())
	if err != nil {
		return nil, toStatus(err)
	}
	if n := len(request.GetWriteId()); n == 0 || n > maxWriteID {
		return nil, toStatus(metasrv.InvalidArgument("write_id", "has %d bytes, 1 to %d are allowed", n, maxWriteID))
	}
	if err := batch.Check(request.GetRows(), r.Definition().GetSchema()); err != nil {
		return nil, toStatus(err)
	}
	g := s.region(r)
	repeated, err := g.write(ctx, store.Write{ID: request.GetWriteId(), Rows: request.GetRows()})
	if err != nil {
		return nil, toStatus(err)
	}
	if !repeated {
		s.countWrite(g, request.GetRows())
	}
	return &tsdbpb.WriteResponse{RepeatedWrite: repeated}, nil
}

// leadershipWait is how long a write waits for the leadership that it was sent for.
const leadershipWait = 500 * time.Millisecond

// awaitLeadership gives this node a moment to hear of the leadership that a write was sent for, and to get a lease for it:
// frontends see an election at once, and all writers of the region, refused, would come again and again.
func (s *Service) awaitLeadership(ctx context.Context, route *tsdbpb.Route) {
	r, err := s.named(route)
	if err != nil {
		return
	}
	state, epoch := r.State(), route.GetLeaderEpoch()
	if epoch < state.LeaderEpoch || epoch == state.LeaderEpoch && !state.Leads() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, leadershipWait)
	defer cancel()
	_ = s.keeper.AwaitFirstLease(ctx, r.Region(), epoch) // where there is none, the write is refused, with the reason
}

// Replicate stores writes of the region leader on another replica. The leader's epoch is compared, and a newer one made
// durable, in the transaction that stores them.
func (s *Service) Replicate(
	ctx context.Context, request *tsdbpb.ReplicateRequest,
) (*tsdbpb.ReplicateResponse, error) {
	r, err := s.named(request.GetRoute())
	if err != nil {
		return nil, toStatus(err)
	}
	for _, record := range request.GetRecords() {
		if err := batch.Check(record.GetRows(), r.Definition().GetSchema()); err != nil {
			return nil, toStatus(err)
		}
	}
	g := s.region(r)
	// A newer leader than this replica: it acknowledges nothing from here on.
	g.stopLeading(request.GetRoute().GetLeaderEpoch(), errHandedOver(g))
	before := r.State().StoredSeq
	matched, hint, err := g.replay(ctx, store.Tail{
		Epoch: request.GetRoute().GetLeaderEpoch(), EpochStart: request.GetEpochStart(),
		Previous: store.Position{Epoch: request.GetPrevious().GetEpoch(), Seq: request.GetPrevious().GetSeq()},
		Records:  request.GetRecords(), Committed: request.GetCommittedSeq(),
	})
	if errors.Is(err, store.ErrStaleEpoch) || errors.Is(err, store.ErrNotFound) {
		return nil, toStatus(invalid(r.Region(), r, err.Error()))
	}
	if err != nil {
		return nil, toStatus(err)
	}
	if !matched {
		return &tsdbpb.ReplicateResponse{Hint: &tsdbpb.Position{Epoch: hint.Epoch, Seq: hint.Seq}}, nil
	}
	for _, record := range request.GetRecords() {
		if record.GetSeq() > before {
			s.countWrite(g, record.GetRows())
		}
	}
	return &tsdbpb.ReplicateResponse{Matched: true}, nil
}

// replay stores a part of the leader's log, and notes it.
func (g *region) replay(ctx context.Context, t store.Tail) (matched bool, hint store.Position, err error) {
	g.storing.Lock()
	defer g.storing.Unlock()
	matched, hint, err = g.replica.Replay(ctx, t)
	if n := len(t.Records); err == nil && matched && n > 0 {
		err = g.service.journal.stored(time.Now(), g.replica, t.Epoch, t.Records[n-1].GetSeq())
	}
	return matched, hint, err
}

// Query streams rows of a replica that has all that was acknowledged: the leader, or a follower that is in sync.
func (s *Service) Query(request *tsdbpb.QueryRequest, stream grpc.ServerStreamingServer[tsdbpb.QueryResponse]) error {
	r, err := s.replica(request.GetRoute())
	if err != nil {
		return toStatus(err)
	}
	if err := s.region(r).complete(stream.Context()); err != nil {
		return toStatus(err)
	}
	// The first row may be long in coming; that the query was taken shows at once.
	if err := stream.SendHeader(nil); err != nil {
		return err
	}
	size := 0
	err = r.Query(stream.Context(), request, func(rows *tsdbpb.RowBatch) error {
		size += proto.Size(rows)
		return stream.Send(&tsdbpb.QueryResponse{Rows: rows})
	})
	s.countRead(s.region(r), size)
	if errors.Is(err, store.ErrNotFound) {
		err = invalid(r.Region(), nil, "the replica is not on this datanode")
	}
	return toStatus(err)
}
