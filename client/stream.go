package client

import (
	"context"
	"errors"
	"io"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// openStream opens a stream to one member. The connection stays in use until the stream has ended.
func (c *Client) openStream(
	ctx context.Context, addr string, desc *grpc.StreamDesc, method string, opts []grpc.CallOption,
) (grpc.ClientStream, error) {
	cc, release, err := c.conns.use(addr)
	if err != nil {
		return nil, err
	}
	s, err := cc.NewStream(ctx, desc, method, append(opts[:len(opts):len(opts)], grpc.OnFinish(func(error) { release() }))...)
	if err != nil {
		release()
		return nil, err
	}
	return s, nil
}

// plainStream passes everything through and keeps what its end says about the metasrv leader.
type plainStream struct {
	grpc.ClientStream
	client *Client
	walk   *walk
	method string
}

func (c *Client) newPlainStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts []grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	w := c.members.walk(firstLeader)
	opts = append(opts[:len(opts):len(opts)], grpc.OnFinish(func(error) { done() }))
	s, err := c.openStream(ctx, w.target, desc, method, opts)
	if err != nil {
		done()
		w.next(classify(err))
		return nil, newError(method, err, nil)
	}
	return &plainStream{ClientStream: s, client: c, walk: w, method: method}, nil
}

// RecvMsg implements grpc.ClientStream.
func (s *plainStream) RecvMsg(m any) error {
	err := s.ClientStream.RecvMsg(m)
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	if s.Context().Err() == nil {
		s.walk.next(classify(err))
	}
	return newError(s.method, err, nil)
}

// watchStream is a stream with one request. Until the first answer it is opened again after errors that a
// retry can cure. It is opened by CloseSend, when the request is known.
type watchStream struct {
	client *Client
	ctx    context.Context //nolint:containedctx // a grpc.ClientStream has one
	done   func()
	desc   *grpc.StreamDesc
	method string
	opts   []grpc.CallOption

	request proto.Message
	walk    *walk
	trail   trail
	// searchEnds is when a search for a member that answers is given up; zero while none is under way.
	searchEnds time.Time
	answered   bool

	mu      sync.Mutex // guards current for Header and Trailer
	current grpc.ClientStream
	end     context.CancelFunc // of current
}

func (c *Client) newWatchStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts []grpc.CallOption,
) (grpc.ClientStream, error) {
	ctx, done, err := c.enter(ctx)
	if err != nil {
		return nil, err
	}
	// The caller may end the stream by its context alone.
	context.AfterFunc(ctx, done)
	return &watchStream{client: c, ctx: ctx, done: done, desc: desc, method: method, opts: opts}, nil
}

// SendMsg implements grpc.ClientStream.
func (s *watchStream) SendMsg(m any) error {
	request, ok := m.(proto.Message)
	if !ok || s.request != nil {
		return status.Errorf(codes.Internal, "%s: takes one protobuf message, not a %T", s.method, m)
	}
	s.request = proto.Clone(request)
	return nil
}

// CloseSend implements grpc.ClientStream.
func (s *watchStream) CloseSend() error {
	if s.request == nil {
		return status.Errorf(codes.Internal, "%s: no request was sent", s.method)
	}
	s.walk = s.client.members.walk(s.client.firstAsked(s.method, methods[s.method], s.request))
	return s.search()
}

// search opens the stream at the walk's target or, after errors that a retry can cure, at a later one.
func (s *watchStream) search() error {
	for {
		err := s.open()
		if err == nil {
			return nil
		}
		if err := s.retry(err); err != nil {
			return err
		}
	}
}

// open sends the request to the walk's target.
func (s *watchStream) open() error {
	ctx, cancel := context.WithCancel(s.ctx)
	// The stream outlives this function, waiting for a connection does not outlive the attempt's time.
	late := time.AfterFunc(s.client.cfg.AttemptTimeout, cancel)
	stream, err := s.client.openStream(ctx, s.walk.target, s.desc, s.method, s.opts)
	if err == nil && !late.Stop() {
		err = status.Error(codes.Unavailable, "no connection in time")
	}
	if err == nil {
		// An io.EOF means that RecvMsg will tell the reason.
		if err = stream.SendMsg(s.request); errors.Is(err, io.EOF) {
			err = nil
		}
	}
	if err == nil {
		err = stream.CloseSend()
	}
	if err != nil {
		late.Stop()
		cancel()
		return err
	}
	s.mu.Lock()
	s.current, s.end = stream, cancel
	s.mu.Unlock()
	return nil
}

// retry decides after err: it returns nil when the walk's next target is to be tried, else the final error.
func (s *watchStream) retry(err error) error {
	now := time.Now()
	if s.searchEnds.IsZero() {
		s.searchEnds = now.Add(s.client.cfg.CallTimeout)
	}
	s.trail.add(s.walk.target, err)
	if s.ctx.Err() != nil {
		s.done()
		return newError(s.method, err, s.trail, context.Cause(s.ctx))
	}
	v := classify(err)
	final := v.action == giveUp || v.action == renewSession
	wait := s.walk.next(v)
	if final || now.Add(wait).After(s.searchEnds) || !pause(s.ctx, wait) {
		s.done()
		return newError(s.method, err, s.trail)
	}
	return nil
}

// RecvMsg implements grpc.ClientStream.
func (s *watchStream) RecvMsg(m any) error {
	for {
		err := s.stream().RecvMsg(m)
		if err == nil {
			if err = s.client.lives.observe(s.walk.target, m); err == nil {
				s.answered = true
				return nil
			}
		}
		s.end()
		if errors.Is(err, io.EOF) {
			s.done()
			return err
		}
		if s.answered {
			if s.ctx.Err() == nil {
				s.walk.next(classify(err))
			}
			s.done()
			return newError(s.method, err, nil)
		}
		if err := s.retry(err); err != nil {
			return err
		}
		if err := s.search(); err != nil {
			return err
		}
	}
}

func (s *watchStream) stream() grpc.ClientStream {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.current
}

// Header implements grpc.ClientStream. It is that of the present attempt.
func (s *watchStream) Header() (metadata.MD, error) {
	if current := s.stream(); current != nil {
		return current.Header()
	}
	return nil, nil
}

// Trailer implements grpc.ClientStream.
func (s *watchStream) Trailer() metadata.MD {
	if current := s.stream(); current != nil {
		return current.Trailer()
	}
	return nil
}

// Context implements grpc.ClientStream.
func (s *watchStream) Context() context.Context { return s.ctx }
