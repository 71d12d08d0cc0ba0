package server

import (
	"context"
	"errors"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// maxRevisionWait bounds how long a read waits for its min_revision.
const maxRevisionWait = 5 * time.Second

// reading is the state that a read is answered from.
type reading struct {
	state.View
	// age bounds how far it may be behind, for a stale read where that is known.
	age      time.Duration
	ageKnown bool
}

// header returns the header of a response that was made from the state.
func (s reading) header() *metasrvpb.ResponseHeader {
	h := revision(s.View)
	if s.ageKnown {
		h.AgeMs = proto.Uint64(uint64((s.age + time.Millisecond - 1).Milliseconds())) //nolint:gosec // never negative
	}
	return h
}

// read returns the state that a request wants to be answered from, on any member.
func (s *services) read(ctx context.Context, h *metasrvpb.RequestHeader) (reading, error) {
	return s.readBehind(ctx, h, s.node.ReadBarrier)
}

// readHeard is for answers with what heartbeats say, which the metasrv leader alone hears: unless a stale answer
// will do, it must be this member.
func (s *services) readHeard(ctx context.Context, h *metasrvpb.RequestHeader) (reading, error) {
	if level(h) == metasrvpb.ReadLevel_READ_LEVEL_LINEARIZABLE {
		if err := s.requireLeader(); err != nil {
			return reading{}, err
		}
	}
	return s.readBehind(ctx, h, s.node.Barrier)
}

func (s *services) readBehind(
	ctx context.Context, h *metasrvpb.RequestHeader, barrier func(context.Context) (state.View, error),
) (reading, error) {
	var r reading
	switch level(h) {
	case metasrvpb.ReadLevel_READ_LEVEL_STALE:
		// The age first: the state may only be newer.
		r.age, r.ageKnown = s.node.Age()
		r.View = s.node.View()
	case metasrvpb.ReadLevel_READ_LEVEL_LINEARIZABLE:
		var err error
		if r.View, err = barrier(ctx); err != nil {
			return r, err
		}
	default:
		return r, metasrv.InvalidArgument("header.read_level", "%d is not a read level", h.GetReadLevel())
	}
	if r.Revision() >= h.GetMinRevision() {
		return r, nil
	}
	var err error
	r.View, err = s.waitRevision(ctx, h.GetMinRevision())
	return r, err
}

// level returns the read level that a request means.
func level(h *metasrvpb.RequestHeader) metasrvpb.ReadLevel {
	switch {
	case h.GetReadLevel() != metasrvpb.ReadLevel_READ_LEVEL_UNSPECIFIED:
		return h.GetReadLevel()
	case h.GetMinRevision() > 0:
		return metasrvpb.ReadLevel_READ_LEVEL_STALE
	}
	return metasrvpb.ReadLevel_READ_LEVEL_LINEARIZABLE
}

func (s *services) waitRevision(ctx context.Context, revision uint64) (state.View, error) {
	bounded, cancel := context.WithTimeout(ctx, maxRevisionWait)
	defer cancel()
	view, err := s.node.WaitRevision(bounded, revision)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		return nil, metasrv.ErrNotReady.With("member %s is at revision %d and did not reach %d within %s",
			s.memberID, s.node.View().Revision(), revision, maxRevisionWait)
	}
	return view, err
}

// revision returns the header of a response that was made from a state.
func revision(view state.View) *metasrvpb.ResponseHeader {
	return &metasrvpb.ResponseHeader{Revision: view.Revision()}
}

// commandID returns the id under which the state remembers a request, nil where the caller gave none.
func commandID(h *metasrvpb.RequestHeader) (*storagepb.CommandId, error) {
	id := h.GetRequestId()
	switch {
	case id == nil:
		return nil, nil
	case id.GetSession() == 0:
		return nil, metasrv.InvalidArgument("header.request_id.session", "is 0; open one with Cluster.OpenSession")
	case id.GetSequence() == 0:
		return nil, metasrv.InvalidArgument("header.request_id.sequence", "is 0, sequences begin with 1")
	case id.GetAcknowledged() >= id.GetSequence():
		return nil, metasrv.InvalidArgument("header.request_id.acknowledged",
			"is %d, not below the request's own sequence %d", id.GetAcknowledged(), id.GetSequence())
	}
	return &storagepb.CommandId{
		Session: id.GetSession(), Sequence: id.GetSequence(), Acknowledged: id.GetAcknowledged(),
	}, nil
}
