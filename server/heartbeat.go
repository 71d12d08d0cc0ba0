package server

import (
	"context"
	"errors"
	"io"
	"log/slog"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// heartbeatService is the Heartbeat service over the sessions of package heartbeat.
type heartbeatService struct {
	metasrvpb.UnimplementedHeartbeatServer
	*services
}

// AskLeader tells the client address of the metasrv leader, on every member.
func (s heartbeatService) AskLeader(context.Context, *metasrvpb.AskLeaderRequest) (*metasrvpb.AskLeaderResponse, error) {
	resp := &metasrvpb.AskLeaderResponse{Header: revision(s.node.View())}
	if record, ok := s.node.Leader(); ok && record.GetGrpcAddr() != "" {
		resp.Leader = &metasrvpb.Peer{Addr: record.GetGrpcAddr()}
	}
	return resp, nil
}

// Heartbeat serves one node until its stream ends, another one takes its place, or the term does.
func (s heartbeatService) Heartbeat(stream grpc.BidiStreamingServer[metasrvpb.HeartbeatRequest, metasrvpb.HeartbeatResponse]) error {
	req, err := stream.Recv()
	if err != nil {
		return streamEnd(err)
	}
	t := s.term.Load()
	if t == nil {
		return s.notLeader()
	}
	ctx, cancel := context.WithCancelCause(stream.Context())
	defer cancel(nil)
	defer context.AfterFunc(t.ctx, func() { cancel(context.Cause(t.ctx)) })()

	session := heartbeat.NewSession(heartbeat.SessionConfig{
		Tracker: t.tracker, Proposer: s.node, Viewer: s.node, Barrier: s.node, PlanDrops: s.planDrops, PlanVersion: s.planVersion,
		Logger: s.log,
	})
	defer session.Close()
	requests := s.receive(ctx, stream)
	for {
		if err := s.beat(ctx, t, session, stream, req); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
		select {
		case r := <-requests:
			if r.err != nil {
				return streamEnd(r.err)
			}
			req = r.request
		case <-session.Replaced():
			return metasrv.ErrStreamReplaced.With("node %s opened another stream", session.NodeID())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// beat answers one request.
func (s heartbeatService) beat(
	ctx context.Context, t *term, session *heartbeat.Session,
	stream grpc.BidiStreamingServer[metasrvpb.HeartbeatRequest, metasrvpb.HeartbeatResponse], req *metasrvpb.HeartbeatRequest,
) error {
	discardUnknown(req.GetNode())
	discardUnknown(req.GetPeer())
	resp, err := s.handle(ctx, t, session, req)
	if err != nil {
		return err
	}
	resp.Header = revision(s.node.View())
	return stream.Send(resp)
}

// handle takes a beat as part of the term. The term does not wait for the answer to be sent: a node that reads none
// must not keep this member from leading again.
func (s heartbeatService) handle(
	ctx context.Context, t *term, session *heartbeat.Session, req *metasrvpb.HeartbeatRequest,
) (*metasrvpb.HeartbeatResponse, error) {
	if !t.join() {
		return nil, s.notLeader()
	}
	defer t.leave()
	return session.HandleBeat(ctx, req)
}

// received is a request of a stream, or why there is none.
type received struct {
	request *metasrvpb.HeartbeatRequest
	err     error
}

// receive returns the requests of a stream. It goes on until ctx ends or the stream does, which is at the
// latest when its handler has returned.
func (s *services) receive(
	ctx context.Context, stream grpc.BidiStreamingServer[metasrvpb.HeartbeatRequest, metasrvpb.HeartbeatResponse],
) <-chan received {
	requests := make(chan received)
	s.helpers.Go(func() {
		for {
			req, err := stream.Recv()
			select {
			case requests <- received{req, err}:
			case <-ctx.Done():
				return
			}
			if err != nil {
				return
			}
		}
	})
	return requests
}

// planVersion changes with whatever planDrops reads.
func (s *services) planVersion() uint64 {
	version := s.hub.planVersion() << 1
	if s.node.Status().Quarantined {
		version |= 1
	}
	return version
}

// planDrops returns what a node must drop: nothing while a restored or recovered state is not confirmed, for the node may
// have what that state has lost.
func (s *services) planDrops(
	v state.View, node metasrv.NodeID, report []heartbeat.ReportedReplica,
) ([]*metasrvpb.DropRegion, []*storagepb.DroppedReplica) {
	drop, confirmed := s.unwanted(v, node, report)
	if quarantined(v) != nil {
		drop = nil
	}
	return drop, confirmed
}

// unwanted is the router's rule of what a node must drop, in the words of package heartbeat.
func (s *services) unwanted(
	v state.View, node metasrv.NodeID, report []heartbeat.ReportedReplica,
) ([]*metasrvpb.DropRegion, []*storagepb.DroppedReplica) {
	replicas := each(report, func(r heartbeat.ReportedReplica) router.ReportedReplica {
		return router.ReportedReplica{Region: r.Region, Replica: r.Replica, LeaderEpoch: r.LeaderEpoch, ConfVersion: r.ConfVersion}
	})
	drop, confirmed, err := router.ReplicasToDrop(v, node, replicas)
	if err != nil {
		s.log.Error("report of a node could not be compared with the routes", slog.Uint64("node_id", uint64(node)), slog.Any("error", err))
		return nil, nil
	}
	return drop, confirmed
}

// discardUnknown removes fields that this version does not know: a newer node is welcome, but what it says
// beyond that must not enter the log.
func discardUnknown(m proto.Message) {
	if !m.ProtoReflect().IsValid() || state.Known(m) == nil {
		return
	}
	b, err := proto.Marshal(m)
	if err == nil {
		err = proto.UnmarshalOptions{DiscardUnknown: true}.Unmarshal(b, m)
	}
	if err != nil {
		proto.Reset(m)
	}
}

// streamEnd returns the error of a stream, nil where the client closed it.
func streamEnd(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}
