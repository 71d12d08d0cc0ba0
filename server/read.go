package server

import (
	"context"
	"errors"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// maxRevisionWait bounds how long a read waits for its min_revision.
const maxRevisionWait = 5 * time.Second

// read returns the state that a request wants to be answered from. A linearizable read is the metasrv leader's.
func (s *services) read(ctx context.Context, h *metasrvpb.RequestHeader) (state.View, error) {
	var view state.View
	switch level(h) {
	case metasrvpb.ReadLevel_READ_LEVEL_STALE:
		view = s.node.View()
	case metasrvpb.ReadLevel_READ_LEVEL_LINEARIZABLE:
		if err := s.requireLeader(); err != nil {
			return nil, err
		}
		var err error
		if view, err = s.node.Barrier(ctx); err != nil {
			return nil, err
		}
	default:
		return nil, metasrv.InvalidArgument("header.read_level", "%d is not a read level", h.GetReadLevel())
	}
	if view.Revision() >= h.GetMinRevision() {
		return view, nil
	}
	return s.waitRevision(ctx, h.GetMinRevision())
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
