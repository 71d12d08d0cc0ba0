package client

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// fakeMember is a member that plays what a test says, over a real connection. Real members can't be made to
// lose an answer after they executed, or to disagree about who leads, at a chosen moment.
type fakeMember struct {
	addr   string
	server *grpc.Server
	served chan struct{}

	mu     sync.Mutex
	unary  func(ctx context.Context, method string, request proto.Message) (proto.Message, error)
	stream func(method string, stream grpc.ServerStream) error
	calls  []string
}

// startMember starts a member on a free loopback port. It answers UNIMPLEMENTED until it is told better.
func startMember(t *testing.T) *fakeMember {
	t.Helper()
	return startMemberAt(t, "127.0.0.1:0", func(*fakeMember) {})
}

// startMemberAt starts a member at an address that is known, where clients may ask it at once: play says before how it
// answers.
func startMemberAt(t *testing.T, addr string, play func(*fakeMember)) *fakeMember {
	t.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	m := &fakeMember{addr: listener.Addr().String(), served: make(chan struct{})}
	m.server = grpc.NewServer(
		grpc.UnaryInterceptor(func(ctx context.Context, request any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			m.mu.Lock()
			m.calls = append(m.calls, info.FullMethod)
			unary := m.unary
			m.mu.Unlock()
			if unary == nil {
				return next(ctx, request)
			}
			return unary(ctx, info.FullMethod, request.(proto.Message))
		}),
		grpc.StreamInterceptor(func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
			m.mu.Lock()
			m.calls = append(m.calls, info.FullMethod)
			stream := m.stream
			m.mu.Unlock()
			if stream == nil {
				return next(srv, ss)
			}
			return stream(info.FullMethod, ss)
		}),
	)
	metasrvpb.RegisterCatalogServer(m.server, metasrvpb.UnimplementedCatalogServer{})
	metasrvpb.RegisterRouterServer(m.server, metasrvpb.UnimplementedRouterServer{})
	metasrvpb.RegisterStoreServer(m.server, metasrvpb.UnimplementedStoreServer{})
	metasrvpb.RegisterClusterServer(m.server, metasrvpb.UnimplementedClusterServer{})
	metasrvpb.RegisterHeartbeatServer(m.server, metasrvpb.UnimplementedHeartbeatServer{})
	play(m)
	go func() {
		defer close(m.served)
		_ = m.server.Serve(listener)
	}()
	t.Cleanup(m.stop)
	return m
}

// stop ends the member as kill -9 would: connections break at once.
func (m *fakeMember) stop() {
	m.server.Stop()
	<-m.served
}

func (m *fakeMember) onUnary(f func(ctx context.Context, method string, request proto.Message) (proto.Message, error)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.unary = f
}

func (m *fakeMember) onStream(f func(method string, stream grpc.ServerStream) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.stream = f
}

// answer makes the member answer every unary call alike.
func (m *fakeMember) answer(response proto.Message, err error) {
	m.onUnary(func(context.Context, string, proto.Message) (proto.Message, error) { return response, err })
}

// follows makes the member refuse everything as a follower of leader; empty means that it knows none.
func (m *fakeMember) follows(leader string) {
	m.answer(nil, notLeader(leader))
	m.onStream(func(_ string, stream grpc.ServerStream) error {
		_ = stream.RecvMsg(&metasrvpb.HeartbeatRequest{})
		return notLeader(leader)
	})
}

// hangs makes the member accept calls and never answer.
func (m *fakeMember) hangs() {
	m.onUnary(func(ctx context.Context, _ string, _ proto.Message) (proto.Message, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	m.onStream(func(_ string, stream grpc.ServerStream) error {
		<-stream.Context().Done()
		return stream.Context().Err()
	})
}

func (m *fakeMember) count(method string) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, c := range m.calls {
		if c == method {
			n++
		}
	}
	return n
}

// refusal is a metasrv error as the server sends it.
func refusal(err *metasrv.Error, more ...proto.Message) error {
	code := map[metasrv.Kind]codes.Code{
		metasrv.KindInternal:           codes.Internal,
		metasrv.KindInvalidArgument:    codes.InvalidArgument,
		metasrv.KindNotFound:           codes.NotFound,
		metasrv.KindAlreadyExists:      codes.AlreadyExists,
		metasrv.KindFailedPrecondition: codes.FailedPrecondition,
		metasrv.KindAborted:            codes.Aborted,
		metasrv.KindUnavailable:        codes.Unavailable,
		metasrv.KindResourceExhausted:  codes.ResourceExhausted,
		metasrv.KindOutOfRange:         codes.OutOfRange,
		metasrv.KindUnimplemented:      codes.Unimplemented,
	}[err.Kind]
	st, detailErr := status.New(code, err.Error()).
		WithDetails(&errdetails.ErrorInfo{Reason: err.Reason, Domain: errorDomain})
	for _, d := range more {
		if detailErr == nil {
			st, detailErr = st.WithDetails(protoadapt.MessageV1Of(d))
		}
	}
	if detailErr != nil {
		panic(detailErr)
	}
	return st.Err()
}

func notLeader(leader string) error {
	detail := &metasrvpb.NotLeader{}
	if leader != "" {
		detail.Leader = &metasrvpb.Member{GrpcAddr: leader}
	}
	return refusal(metasrv.ErrNotLeader.With("this member is not the metasrv leader"), detail)
}

func retryAfter(d time.Duration) proto.Message {
	return &errdetails.RetryInfo{RetryDelay: durationpb.New(d)}
}

// fakeCluster executes writes as the replicated state does: once a request id.
type fakeCluster struct {
	mu       sync.Mutex
	next     uint64
	sessions map[uint64]*fakeSession
	puts     map[string]int // executions by key
	closed   []uint64       // sessions closed by CloseSession
}

type fakeSession struct {
	acknowledged uint64
	results      map[uint64]proto.Message
}

func newFakeCluster() *fakeCluster {
	return &fakeCluster{sessions: map[uint64]*fakeSession{}, puts: map[string]int{}}
}

// lead makes m serve as the metasrv leader of the cluster.
func (f *fakeCluster) lead(m *fakeMember) { m.onUnary(f.serve) }

func (f *fakeCluster) serve(_ context.Context, method string, request proto.Message) (proto.Message, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch r := request.(type) {
	case *metasrvpb.OpenSessionRequest:
		f.next++
		f.sessions[f.next] = &fakeSession{results: map[uint64]proto.Message{}}
		return &metasrvpb.OpenSessionResponse{Session: f.next}, nil
	case *metasrvpb.CloseSessionRequest:
		delete(f.sessions, r.GetSession())
		f.closed = append(f.closed, r.GetSession())
		return &metasrvpb.CloseSessionResponse{}, nil
	case *metasrvpb.PutRequest:
		id := r.GetHeader().GetRequestId()
		s := f.sessions[id.GetSession()]
		if s == nil || id.GetSequence() <= s.acknowledged {
			return nil, refusal(metasrv.ErrSessionExpired.With("session %d", id.GetSession()))
		}
		s.acknowledged = max(s.acknowledged, id.GetAcknowledged())
		for sequence := range s.results {
			if sequence <= s.acknowledged {
				delete(s.results, sequence)
			}
		}
		if result, ok := s.results[id.GetSequence()]; ok {
			return result, nil
		}
		f.puts[string(r.GetKey())]++
		f.next++
		result := &metasrvpb.PutResponse{Header: &metasrvpb.ResponseHeader{Revision: f.next}}
		s.results[id.GetSequence()] = result
		return result, nil
	case *metasrvpb.RangeRequest:
		return &metasrvpb.RangeResponse{}, nil
	}
	return nil, status.Errorf(codes.Unimplemented, "%s", method)
}

// expire forgets all sessions.
func (f *fakeCluster) expire() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.sessions)
}

func (f *fakeCluster) executions(key string) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.puts[key]
}

// dial returns a client with short pauses, closed at the end of the test.
func dial(t *testing.T, change func(*Config), endpoints ...string) *Client {
	t.Helper()
	cfg := Config{
		Endpoints:      endpoints,
		MinBackoff:     time.Millisecond,
		MaxBackoff:     20 * time.Millisecond,
		AttemptTimeout: 2 * time.Second,
		CallTimeout:    10 * time.Second,
		Logger:         slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	if change != nil {
		change(&cfg)
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return c
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// deadAddr returns an address that refuses connections.
func deadAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// eventually waits until ok holds.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("not in time: %s", what)
		}
		time.Sleep(time.Millisecond)
	}
}

func put(ctx context.Context, c *Client, key string) (*metasrvpb.PutResponse, error) {
	return c.Store().Put(ctx, &metasrvpb.PutRequest{Key: []byte(key), Value: []byte("v")}, Once())
}

func rangeAll(ctx context.Context, c *Client) error {
	_, err := c.Store().Range(ctx, &metasrvpb.RangeRequest{Key: []byte("a")})
	return err
}

func wantIs(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error is %v, want %v", err, target)
	}
}
