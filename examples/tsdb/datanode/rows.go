package datanode

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/examples/tsdb/batch"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
)

// maxWriteID is the longest write id, in bytes.
const maxWriteID = 64

// Write stores rows on all replicas of a region that this node leads.
func (s *Service) Write(ctx context.Context, request *tsdbpb.WriteRequest) (*tsdbpb.WriteResponse, error) {
	r, err := s.replica(request.GetRoute())
	if err != nil {
		return nil, toStatus(err)
	}
	if !isLeader(r) {
		return nil, toStatus(invalid(r.Region(), r, "the replica on this datanode is no region leader"))
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

// Replicate stores writes of the region leader on a follower. The leader's epoch is compared, and a newer one
// made durable, in the transaction that stores them.
func (s *Service) Replicate(
	ctx context.Context, request *tsdbpb.ReplicateRequest,
) (*tsdbpb.ReplicateResponse, error) {
	id := metasrv.RegionID(request.GetRoute().GetRegionId())
	r, err := s.named(request.GetRoute())
	if err != nil {
		return nil, toStatus(err)
	}
	if isLeader(r) {
		return nil, toStatus(invalid(id, r, "the replica on this datanode is no follower"))
	}
	before := r.State().StoredSeq
	for _, record := range request.GetRecords() {
		if err := batch.Check(record.GetRows(), r.Definition().GetSchema()); err != nil {
			return nil, toStatus(err)
		}
	}
	stored, err := r.Replay(ctx, request.GetRoute().GetLeaderEpoch(), request.GetPreviousWriteId(), request.GetRecords())
	if errors.Is(err, store.ErrStaleEpoch) || errors.Is(err, store.ErrNotFound) {
		return nil, toStatus(invalid(id, r, err.Error()))
	}
	if err != nil {
		return nil, toStatus(err)
	}
	for _, record := range request.GetRecords() {
		if record.GetSeq() > before && record.GetSeq() <= stored {
			s.countWrite(s.region(r), record.GetRows())
		}
	}
	return &tsdbpb.ReplicateResponse{StoredSeq: stored}, nil
}

// Query streams rows of a replica, leader or follower.
func (s *Service) Query(request *tsdbpb.QueryRequest, stream grpc.ServerStreamingServer[tsdbpb.QueryResponse]) error {
	r, err := s.replica(request.GetRoute())
	if err != nil {
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
