package server

import (
	"context"
	"errors"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
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

	var waiting atomic.Int32
	session := heartbeat.NewSession(heartbeat.SessionConfig{
		Tracker: t.tracker, Proposer: s.node, Viewer: s.node, Barrier: s.node, Dispatcher: t.dispatcher, Logger: s.log,
		Turns: s.turns, Newer: func() bool { return waiting.Load() > 0 },
	})
	defer session.Close()
	n := nodeStream{heartbeatService: s, term: t, session: session, stream: stream, waiting: &waiting}
	err = n.serve(ctx, req, n.receive(ctx))
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// pushPause lies between two answers that no request asked for: what comes up meanwhile goes with the next one.
const pushPause = 50 * time.Millisecond

// nodeStream is the stream of one node.
type nodeStream struct {
	heartbeatService
	term    *term
	session *heartbeat.Session
	stream  grpc.BidiStreamingServer[metasrvpb.HeartbeatRequest, metasrvpb.HeartbeatResponse]
	// waiting counts the requests that have arrived and that serve has not taken.
	waiting *atomic.Int32
}

// serve answers the first request and those that follow, and tells the node in between what has come up.
func (n *nodeStream) serve(ctx context.Context, first *metasrvpb.HeartbeatRequest, requests <-chan received) error {
	var pause <-chan time.Time // runs after a push
	err := n.beat(ctx, first)
	for err == nil {
		wake := n.session.Wake()
		if pause != nil {
			wake = nil
		}
		select {
		case r := <-requests:
			if r.err != nil {
				return streamEnd(r.err)
			}
			n.waiting.Add(-1)
			err = n.beat(ctx, r.request)
		case <-wake:
			err = n.respond(func() (*metasrvpb.HeartbeatResponse, error) { return n.session.Push(ctx) })
			pause = time.After(pushPause)
		case <-pause:
			pause = nil
		case <-n.session.Replaced():
			return metasrv.ErrStreamReplaced.With("node %s opened another stream", n.session.NodeID())
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return err
}

// beat answers one request.
func (n *nodeStream) beat(ctx context.Context, req *metasrvpb.HeartbeatRequest) error {
	defer n.beats.answered(time.Now())
	discardUnknown(req.GetNode())
	discardUnknown(req.GetPeer())
	return n.respond(func() (*metasrvpb.HeartbeatResponse, error) { return n.session.HandleBeat(ctx, req) })
}

// respond sends an answer, if there is one, that is made as part of the term. The term does not wait for it to be sent: a
// node that reads none must not keep this member from leading again.
func (n *nodeStream) respond(answer func() (*metasrvpb.HeartbeatResponse, error)) error {
	if !n.term.join() {
		return n.notLeader()
	}
	resp, err := answer()
	n.term.leave()
	if err != nil || resp == nil {
		return err
	}
	if resp.GetFullReportWanted() {
		n.beats.FullAsked.Add(1)
	}
	resp.Header = revision(n.node.View())
	return n.stream.Send(resp)
}

// received is a request of a stream, or why there is none.
type received struct {
	request *metasrvpb.HeartbeatRequest
	err     error
}

// receive returns the requests of the stream. It goes on until ctx ends or the stream does, which is at the
// latest when its handler has returned.
func (n *nodeStream) receive(ctx context.Context) <-chan received {
	requests := make(chan received)
	n.helpers.Go(func() {
		for {
			req, err := n.stream.Recv()
			if err == nil {
				n.waiting.Add(1)
			}
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
