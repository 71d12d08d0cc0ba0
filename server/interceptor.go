package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// protocolVersion is sent in every response header.
const protocolVersion = 1

// interceptor stands before every RPC: it refuses what this member must not answer, fills the headers of
// responses, turns errors into statuses and panics into errors, measures and logs.
type interceptor struct {
	*services
	metrics *rpcMetrics
	// stopping is cancelled, with an error for clients as its cause, when the member stops.
	stopping context.Context
}

func (i *interceptor) unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	started := time.Now()
	method, early := nativeMethod(info.FullMethod)
	resp, err := i.answer(ctx, method, early, req, handler)
	s := i.finish(ctx, method, started, err)
	switch {
	case s == nil:
		return resp, nil
	case early:
		return refusalInHeader(method, s, i.header())
	}
	return nil, s.Err()
}

func (i *interceptor) answer(
	ctx context.Context, method string, early bool, req any, handler grpc.UnaryHandler,
) (resp any, err error) {
	defer recovered(&err)
	if access, ours := accessOf(method); ours {
		if err := i.admit(access, early, req); err != nil {
			return nil, err
		}
	}
	if resp, err = handler(ctx, req); err == nil {
		i.complete(resp)
	}
	return resp, err
}

func (i *interceptor) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	started := time.Now()
	method, early := nativeMethod(info.FullMethod)
	ctx, cancel := context.WithCancelCause(ss.Context())
	defer cancel(nil)
	defer context.AfterFunc(i.stopping, func() { cancel(context.Cause(i.stopping)) })()

	open := i.metrics.openStreams.WithLabelValues(method)
	open.Inc()
	defer open.Dec()

	access, ours := accessOf(method)
	err := func() (err error) {
		defer recovered(&err)
		return handler(srv, &stream{ServerStream: ss, ctx: ctx, interceptor: i, access: access, early: early, admitted: !ours})
	}()
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	s := i.finish(ss.Context(), method, started, err)
	switch {
	case s == nil:
		return nil
	case early:
		resp, err := refusalInHeader(method, s, i.header())
		if err != nil {
			return err
		}
		return ss.SendMsg(resp)
	}
	return s.Err()
}

// admit refuses requests that this member must not answer. Callers of the early public protocol choose the
// cluster id that they send by their own configuration: it says nothing of this cluster.
func (i *interceptor) admit(access access, early bool, req any) error {
	if r, ok := req.(interface {
		GetHeader() *metasrvpb.RequestHeader
	}); ok && !early {
		want, have := r.GetHeader().GetClusterId(), i.clusterID()
		if want != 0 && have != 0 && want != have {
			return metasrv.ErrClusterMismatch.With("the request is for cluster %d, this is cluster %d", want, have)
		}
		if life := r.GetHeader().GetClusterIncarnation(); life != 0 && have != 0 && life != i.incarnation.Load() {
			return metasrv.ErrClusterMismatch.With("the request is for cluster %d in its life %016x, it was restored or recovered since and is in its life %016x",
				have, life, i.incarnation.Load())
		}
	}
	if access == accessWrite || access == accessHeartbeat {
		return i.requireLeader()
	}
	return nil
}

// header returns what all response headers of this member have in common.
func (i *interceptor) header() *metasrvpb.ResponseHeader {
	return &metasrvpb.ResponseHeader{
		ProtocolVersion: protocolVersion, ClusterId: i.clusterID(), ClusterIncarnation: i.incarnation.Load(),
		ClusterGeneration: i.generation.Load(), Member: i.memberID,
	}
}

// complete fills the header of a response; handlers set its revision only.
func (i *interceptor) complete(resp any) {
	m, ok := resp.(interface {
		proto.Message
		GetHeader() *metasrvpb.ResponseHeader
	})
	if !ok {
		return
	}
	h := m.GetHeader()
	if h == nil {
		h = &metasrvpb.ResponseHeader{}
		setHeader(m, h)
	}
	h.ProtocolVersion, h.ClusterId, h.Member = protocolVersion, i.clusterID(), i.memberID
	h.ClusterIncarnation, h.ClusterGeneration = i.incarnation.Load(), i.generation.Load()
}

// setHeader sets the field header of a message that has one.
func setHeader(m proto.Message, h *metasrvpb.ResponseHeader) {
	r := m.ProtoReflect()
	if fd := r.Descriptor().Fields().ByName("header"); fd != nil {
		r.Set(fd, protoreflect.ValueOfMessage(h.ProtoReflect()))
	}
}

// finish measures and logs an answered RPC. It returns the status of its error, nil where there is none.
func (i *interceptor) finish(ctx context.Context, method string, started time.Time, err error) *status.Status {
	var s *status.Status
	if err != nil {
		s = statusOf(err, i.leaderElsewhere())
	}
	elapsed := time.Since(started)
	i.metrics.observe(method, s.Code(), elapsed)
	level := slog.LevelDebug
	if failed(s.Code()) {
		level = slog.LevelError
	}
	if s != nil && i.log.Enabled(ctx, level) {
		args := []any{"method", method, "code", s.Code().String(), "error", err, "duration", elapsed}
		if p, ok := errors.AsType[*panicError](err); ok {
			args = append(args, "stack", string(p.stack))
		}
		i.log.Log(ctx, level, "request not answered", args...)
	}
	return s
}

// failed reports whether a code says that something is broken here, not that a request was refused.
func failed(c codes.Code) bool {
	return c == codes.Internal || c == codes.Unknown || c == codes.DataLoss
}

// recovered turns a panic of a handler into ErrInternal: one bad request must not end the member.
func recovered(err *error) {
	if p := recover(); p != nil {
		*err = &panicError{value: p, stack: debug.Stack()}
	}
}

// panicError is a panic of a handler. Its stack is for the log, not for the caller.
type panicError struct {
	value any
	stack []byte
}

func (e *panicError) Error() string {
	return fmt.Sprintf("the request made the member panic: %v", e.value)
}

func (e *panicError) Unwrap() error { return metasrv.ErrInternal }

// stream checks the first request of a stream and fills the headers of its responses.
type stream struct {
	grpc.ServerStream
	interceptor *interceptor
	ctx         context.Context
	access      access
	early       bool
	admitted    bool
}

// Context returns the context of the stream, which also ends when the member stops.
func (s *stream) Context() context.Context { return s.ctx }

func (s *stream) RecvMsg(m any) error {
	if err := s.ServerStream.RecvMsg(m); err != nil || s.admitted {
		return err
	}
	s.admitted = true
	return s.interceptor.admit(s.access, s.early, m)
}

func (s *stream) SendMsg(m any) error {
	s.interceptor.complete(m)
	return s.ServerStream.SendMsg(m)
}
