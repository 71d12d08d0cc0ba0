package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	putMethod   = metasrvpb.Store_Put_FullMethodName
	rangeMethod = metasrvpb.Store_Range_FullMethodName
	openMethod  = metasrvpb.Cluster_OpenSession_FullMethodName
)

func TestRedirectLeavesTheEndpoints(t *testing.T) {
	leader, follower := startMember(t), startMember(t)
	cluster := newFakeCluster()
	cluster.lead(leader)
	follower.follows(leader.addr)
	c := dial(t, nil, follower.addr)
	for i := range 3 {
		if _, err := put(t.Context(), c, fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	if err := rangeAll(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if n := follower.count(openMethod) + follower.count(putMethod) + follower.count(rangeMethod); n != 1 {
		t.Errorf("the follower was asked %d times, want once: the leader is remembered", n)
	}
	if c.Leader() != leader.addr {
		t.Errorf("leader is %q", c.Leader())
	}
}

func TestWaitsForALeader(t *testing.T) {
	a, b := startMember(t), startMember(t)
	cluster := newFakeCluster()
	a.follows("")
	b.follows("")
	c := dial(t, nil, a.addr, b.addr)
	done := make(chan error, 1)
	go func() {
		_, err := put(t.Context(), c, "k")
		done <- err
	}()
	eventually(t, "both members asked", func() bool { return a.count(openMethod) > 1 && b.count(openMethod) > 1 })
	cluster.lead(b)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestDeadEndpointsAreSkipped(t *testing.T) {
	m := startMember(t)
	newFakeCluster().lead(m)
	c := dial(t, nil, deadAddr(t), deadAddr(t), m.addr)
	if _, err := put(t.Context(), c, "k"); err != nil {
		t.Fatal(err)
	}
}

func TestLeaderKilledAndRestarted(t *testing.T) {
	m := startMember(t)
	cluster := newFakeCluster()
	cluster.lead(m)
	c := dial(t, nil, m.addr)
	if _, err := put(t.Context(), c, "before"); err != nil {
		t.Fatal(err)
	}
	m.stop()
	done := make(chan error, 1)
	go func() {
		_, err := put(t.Context(), c, "after")
		done <- err
	}()
	again := startMemberAt(t, m.addr)
	cluster.lead(again)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A leader that hangs after it executed: another member takes over, and the retry gets the first result.
func TestHungLeaderFailsOver(t *testing.T) {
	a, b := startMember(t), startMember(t)
	cluster := newFakeCluster()
	cluster.lead(b)
	a.onUnary(func(ctx context.Context, method string, request proto.Message) (proto.Message, error) {
		response, err := cluster.serve(ctx, method, request)
		if method == putMethod {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return response, err
	})
	c := dial(t, func(cfg *Config) { cfg.AttemptTimeout = 100 * time.Millisecond }, a.addr, b.addr)
	began := time.Now()
	if _, err := put(t.Context(), c, "k"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > c.cfg.CallTimeout/4 {
		t.Errorf("left the hung member after %s", took)
	}
	if n := cluster.executions("k"); n != 1 || b.count(putMethod) != 1 {
		t.Errorf("executed %d times, second member asked %d times", n, b.count(putMethod))
	}
	// The first attempt leaves time for another member even if the caller's deadline is short.
	a.hangs()
	c = dial(t, nil, a.addr, b.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	if err := rangeAll(ctx, c); err != nil {
		t.Fatal(err)
	}
}

// Calls that take longer than an attempt may are not cut for ever.
func TestSlowCallSucceeds(t *testing.T) {
	m := startMember(t)
	m.onUnary(func(ctx context.Context, _ string, _ proto.Message) (proto.Message, error) {
		select {
		case <-time.After(150 * time.Millisecond):
			return &metasrvpb.RangeResponse{}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	c := dial(t, func(cfg *Config) { cfg.AttemptTimeout = 50 * time.Millisecond }, m.addr)
	if err := rangeAll(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

func TestRedirectLoop(t *testing.T) {
	a, b, third := startMember(t), startMember(t), startMember(t)
	a.follows(b.addr)
	b.follows(a.addr)
	newFakeCluster().lead(third)

	c := dial(t, nil, a.addr, b.addr, third.addr)
	if err := rangeAll(t.Context(), c); err != nil {
		t.Fatalf("a third member leads: %v", err)
	}

	c = dial(t, func(cfg *Config) {
		cfg.MinBackoff, cfg.MaxBackoff = 50*time.Millisecond, 50*time.Millisecond
	}, a.addr, b.addr)
	before := a.count(rangeMethod) + b.count(rangeMethod)
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	err := rangeAll(ctx, c)
	wantIs(t, err, metasrv.ErrNotLeader)
	wantIs(t, err, context.DeadlineExceeded)
	// 20 pauses of at least 25 ms fit, each after maxHops+1 attempts.
	if n := a.count(rangeMethod) + b.count(rangeMethod) - before; n > 21*(maxHops+1) {
		t.Errorf("%d attempts in half a second", n)
	}
}

func TestLostAnswerIsNotExecutedAgain(t *testing.T) {
	for _, lost := range []struct {
		name string
		err  error
	}{
		{"connection", status.Error(codes.Unavailable, "connection reset")},
		{"outcome unknown", refusal(metasrv.ErrOutcomeUnknown)},
		{"canceled", status.Error(codes.Canceled, "stopping")},
	} {
		t.Run(lost.name, func(t *testing.T) {
			m := startMember(t)
			cluster := newFakeCluster()
			var first atomic.Pointer[metasrvpb.PutResponse]
			var ids []*metasrvpb.RequestId
			m.onUnary(func(ctx context.Context, method string, request proto.Message) (proto.Message, error) {
				response, err := cluster.serve(ctx, method, request)
				if r, ok := response.(*metasrvpb.PutResponse); ok {
					ids = append(ids, request.(*metasrvpb.PutRequest).GetHeader().GetRequestId())
					if first.CompareAndSwap(nil, r) {
						return nil, lost.err
					}
				}
				return response, err
			})
			c := dial(t, nil, m.addr)
			got, err := put(t.Context(), c, "k")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first.Load(), got, protocmp.Transform()); diff != "" {
				t.Errorf("not the first result: %s", diff)
			}
			if n := cluster.executions("k"); n != 1 {
				t.Errorf("executed %d times", n)
			}
			if len(ids) != 2 || !proto.Equal(ids[0], ids[1]) {
				t.Errorf("request ids: %v", ids)
			}
		})
	}
}

func TestExpiredSessionIsReplacedBeforeAWriteIsSent(t *testing.T) {
	m := startMember(t)
	cluster := newFakeCluster()
	cluster.lead(m)
	c := dial(t, nil, m.addr)
	if _, err := put(t.Context(), c, "first"); err != nil {
		t.Fatal(err)
	}
	cluster.expire()
	var writers sync.WaitGroup
	for i := range 20 {
		writers.Go(func() {
			if _, err := put(t.Context(), c, fmt.Sprint(i)); err != nil {
				t.Error(err)
			}
		})
	}
	writers.Wait()
	for i := range 20 {
		if n := cluster.executions(fmt.Sprint(i)); n != 1 {
			t.Errorf("%d executed %d times", i, n)
		}
	}
	if n := m.count(openMethod); n != 2 {
		t.Errorf("%d sessions opened, want 2", n)
	}
}

// A write that takes long holds up the watermark of its session: the others go on in another one, before the cluster has
// too much to remember, and the old one is closed when its last write has ended.
func TestLongWriteDoesNotHoldUpOthers(t *testing.T) {
	m := startMember(t)
	cluster := newFakeCluster()
	arrived, release := make(chan struct{}), make(chan struct{})
	arrive := sync.OnceFunc(func() { close(arrived) }) // on a busy machine it is sent again
	m.onUnary(func(ctx context.Context, method string, request proto.Message) (proto.Message, error) {
		if r, ok := request.(*metasrvpb.PutRequest); ok && string(r.GetKey()) == "long" {
			arrive()
			<-release
		}
		return cluster.serve(ctx, method, request)
	})
	// Time enough that the long write is not sent again.
	c := dial(t, func(c *Config) { c.AttemptTimeout, c.CallTimeout = time.Minute, 2*time.Minute }, m.addr)
	long := make(chan error)
	go func() {
		_, err := put(t.Context(), c, "long")
		long <- err
	}()
	<-arrived
	const others = maxUnacknowledged + 10
	for range others {
		if _, err := put(t.Context(), c, "k"); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.count(openMethod); n != 2 {
		t.Errorf("%d sessions opened, want 2", n)
	}
	close(release)
	if err := <-long; err != nil {
		t.Error(err)
	}
	eventually(t, "the session that was left is closed", func() bool {
		cluster.mu.Lock()
		defer cluster.mu.Unlock()
		return fmt.Sprint(cluster.closed) == "[1]"
	})
	if n := cluster.executions("long") + cluster.executions("k"); n != others+1 {
		t.Errorf("%d writes were executed, want %d", n, others+1)
	}
}

func TestExpiredSessionAfterALostAnswerLeavesTheOutcomeUnknown(t *testing.T) {
	m := startMember(t)
	cluster := newFakeCluster()
	m.onUnary(func(ctx context.Context, method string, request proto.Message) (proto.Message, error) {
		response, err := cluster.serve(ctx, method, request)
		if method == putMethod && err == nil {
			cluster.expire()
			return nil, status.Error(codes.Unavailable, "connection reset")
		}
		return response, err
	})
	c := dial(t, nil, m.addr)
	_, err := put(t.Context(), c, "k")
	wantIs(t, err, metasrv.ErrOutcomeUnknown)
	if Reason(err) != metasrv.ErrOutcomeUnknown.Reason || status.Code(err) != codes.Unavailable {
		t.Errorf("reason %s, code %s", Reason(err), status.Code(err))
	}
	if n := cluster.executions("k"); n != 1 {
		t.Errorf("executed %d times", n)
	}
}

// A dial that failed leaves no doubt: the write was not sent.
func TestUnsentWriteSurvivesAnExpiredSession(t *testing.T) {
	m := startMember(t)
	cluster := newFakeCluster()
	cluster.lead(m)
	c := dial(t, nil, m.addr)
	if _, err := put(t.Context(), c, "first"); err != nil {
		t.Fatal(err)
	}
	m.stop()
	cc, release, err := c.conns.use(m.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	// Until the client has noticed, a request that it hands to the connection counts as sent.
	eventually(t, "loss of the connection noticed", func() bool { return cc.GetState() != connectivity.Ready })
	done := make(chan error, 1)
	go func() {
		_, err := put(t.Context(), c, "k")
		done <- err
	}()
	eventually(t, "a refused dial", func() bool { return cc.GetState() == connectivity.TransientFailure })
	cluster.expire()
	cluster.lead(startMemberAt(t, m.addr))
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestWriteThatTimesOutSaysThatItsOutcomeIsUnknown(t *testing.T) {
	m := startMember(t)
	cluster := newFakeCluster()
	m.onUnary(func(ctx context.Context, method string, request proto.Message) (proto.Message, error) {
		response, err := cluster.serve(ctx, method, request)
		if method == putMethod {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return response, err
	})
	c := dial(t, func(cfg *Config) { cfg.CallTimeout = 300 * time.Millisecond }, m.addr)
	_, err := put(t.Context(), c, "k")
	wantIs(t, err, metasrv.ErrOutcomeUnknown)
	wantIs(t, err, context.DeadlineExceeded)
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("code %s", status.Code(err))
	}
}

func TestCallersRequestIDIsKept(t *testing.T) {
	m := startMember(t)
	var got atomic.Pointer[metasrvpb.RequestId]
	m.onUnary(func(_ context.Context, _ string, request proto.Message) (proto.Message, error) {
		got.Store(headerOf(request).GetRequestId())
		return &metasrvpb.PutResponse{}, nil
	})
	c := dial(t, nil, m.addr)
	want := &metasrvpb.RequestId{Session: 9, Sequence: 8, Acknowledged: 7}
	_, err := c.Store().Put(t.Context(), &metasrvpb.PutRequest{Header: &metasrvpb.RequestHeader{RequestId: want}}, Once())
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got.Load(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if n := m.count(openMethod); n != 0 {
		t.Errorf("%d sessions opened", n)
	}
}

func TestCallersMessageIsNotModified(t *testing.T) {
	m := startMember(t)
	newFakeCluster().lead(m)
	c := dial(t, nil, m.addr)
	request := &metasrvpb.PutRequest{Header: &metasrvpb.RequestHeader{ClusterId: 3}, Key: []byte("k")}
	before := proto.CloneOf(request)
	if _, err := c.Store().Put(t.Context(), request, Once()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, request, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

func TestStaleReadsGoRound(t *testing.T) {
	var ms []*fakeMember
	var addrs []string
	for range 3 {
		m := startMember(t)
		m.answer(&metasrvpb.RangeResponse{}, nil)
		ms, addrs = append(ms, m), append(addrs, m.addr)
	}
	c := dial(t, nil, addrs...)
	stale := &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE}
	for range 6 {
		if _, err := c.Store().Range(t.Context(), &metasrvpb.RangeRequest{Header: stale}); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range ms {
		if n := m.count(rangeMethod); n != 2 {
			t.Errorf("%s was asked %d times", m.addr, n)
		}
	}
	if c.Leader() != "" {
		t.Errorf("a stale answer made %s the metasrv leader", c.Leader())
	}
}

func TestFinalErrors(t *testing.T) {
	m := startMember(t)
	c := dial(t, nil, m.addr)

	m.answer(nil, refusal(metasrv.ErrTableNotFound.With("table a.b.c does not exist")))
	_, err := c.Router().Route(t.Context(), &metasrvpb.RouteRequest{})
	wantIs(t, err, metasrv.ErrTableNotFound)
	if errors.Is(err, metasrv.ErrTableExists) {
		t.Error("any reason matches")
	}
	if err.Error() != "table a.b.c does not exist" || Reason(err) != "TABLE_NOT_FOUND" {
		t.Errorf("error %q, reason %q", err, Reason(err))
	}
	for _, e := range []error{err, fmt.Errorf("route: %w", err)} {
		st, ok := status.FromError(e)
		if !ok || st.Code() != codes.NotFound || len(st.Details()) != 1 {
			t.Errorf("status of %v: %v", e, st)
		}
	}
	if n := m.count(metasrvpb.Router_Route_FullMethodName); n != 1 {
		t.Errorf("asked %d times", n)
	}

	m.answer(nil, refusal(metasrv.InvalidArgument("table_names", "is empty"), &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "table_names", Description: "is empty"}},
	}))
	_, err = c.Router().Route(t.Context(), &metasrvpb.RouteRequest{})
	e, ok := errors.AsType[*metasrv.Error](err)
	if !ok || e.Field != "table_names" || e.Message != "is empty" || e.Kind != metasrv.KindInvalidArgument {
		t.Errorf("error is %#v", e)
	}
}

func TestErrorNamesEveryMemberThatWasTried(t *testing.T) {
	m, dead := startMember(t), deadAddr(t)
	m.follows("")
	c := dial(t, func(cfg *Config) { cfg.CallTimeout = 300 * time.Millisecond }, m.addr, dead)
	err := rangeAll(t.Context(), c)
	for _, part := range []string{m.addr, dead, "not the metasrv leader", "refused"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	wantIs(t, err, context.DeadlineExceeded)
	if code := status.Code(err); code != codes.FailedPrecondition && code != codes.Unavailable {
		t.Errorf("code is %s, want that of a member", code)
	}
}

// An attempt that the caller's deadline cut says less than the answer before it.
func TestErrorKeepsWhatWasSaidBeforeTheDeadline(t *testing.T) {
	m := startMember(t)
	var asked atomic.Int32
	m.onUnary(func(ctx context.Context, _ string, _ proto.Message) (proto.Message, error) {
		if asked.Add(1) == 1 {
			return nil, refusal(metasrv.ErrNotReady.With("still starting"))
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	// cut: as after an attempt that took too long, so that the next one may last until the deadline.
	c := dial(t, nil, m.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	k := &call{method: rangeMethod, kind: read, request: &metasrvpb.RangeRequest{}, reply: &metasrvpb.RangeResponse{}, cut: 1}
	err := c.run(ctx, k)
	wantIs(t, err, metasrv.ErrNotReady)
	wantIs(t, err, context.DeadlineExceeded)
}

func TestRetryInfoIsRespected(t *testing.T) {
	m := startMember(t)
	const delay = 300 * time.Millisecond
	var times []time.Time
	m.onUnary(func(context.Context, string, proto.Message) (proto.Message, error) {
		times = append(times, time.Now())
		if len(times) == 1 {
			return nil, refusal(metasrv.ErrNodesNotHeard, retryAfter(delay))
		}
		return &metasrvpb.RangeResponse{}, nil
	})
	c := dial(t, nil, m.addr)
	if err := rangeAll(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	if len(times) != 2 || times[1].Sub(times[0]) < delay {
		t.Errorf("asked at %v", times)
	}

	m.answer(nil, refusal(metasrv.ErrNodesNotHeard.With("waiting for 2 nodes"), retryAfter(time.Hour)))
	began := time.Now()
	err := rangeAll(t.Context(), c)
	wantIs(t, err, metasrv.ErrNodesNotHeard)
	wantIs(t, err, context.DeadlineExceeded)
	if time.Since(began) > 5*time.Second {
		t.Error("waited for a deadline that the member's delay exceeds")
	}
}

func TestContextEndsCalls(t *testing.T) {
	m := startMember(t)
	m.hangs()
	c := dial(t, func(cfg *Config) { cfg.CallTimeout = 200 * time.Millisecond }, m.addr)
	err := rangeAll(t.Context(), c)
	wantIs(t, err, context.DeadlineExceeded)
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("default deadline: %v", err)
	}
	if errors.Is(err, metasrv.ErrOutcomeUnknown) {
		t.Error("a read has no outcome that matters")
	}

	ctx, cancel := context.WithCancel(t.Context())
	asked := m.count(rangeMethod)
	done := make(chan error, 1)
	go func() { done <- rangeAll(ctx, c) }()
	eventually(t, "call under way", func() bool { return m.count(rangeMethod) > asked })
	cancel()
	err = <-done
	wantIs(t, err, context.Canceled)
	if status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestClose(t *testing.T) {
	m := startMember(t)
	cluster := newFakeCluster()
	cluster.lead(m)
	c := dial(t, nil, m.addr)
	if _, err := put(t.Context(), c, "k"); err != nil {
		t.Fatal(err)
	}
	m.onUnary(func(ctx context.Context, method string, request proto.Message) (proto.Message, error) {
		if method == rangeMethod {
			<-ctx.Done()
		}
		return cluster.serve(ctx, method, request)
	})
	done := make(chan error, 1)
	go func() { done <- rangeAll(t.Context(), c) }()
	eventually(t, "call under way", func() bool { return m.count(rangeMethod) == 1 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; status.Code(err) != codes.Canceled || !strings.Contains(err.Error(), "client is closed") {
		t.Errorf("call under way: %v", err)
	}
	cluster.mu.Lock()
	closed := cluster.closed
	cluster.mu.Unlock()
	if diff := cmp.Diff([]uint64{1}, closed); diff != "" {
		t.Errorf("closed sessions: %s", diff)
	}
	if err := rangeAll(t.Context(), c); status.Code(err) != codes.Canceled {
		t.Errorf("call after Close: %v", err)
	}
	if _, err := c.Router().Watch(t.Context(), &metasrvpb.WatchRoutesRequest{}); status.Code(err) != codes.Canceled {
		t.Errorf("watch after Close: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestCloseDoesNotWaitForADeadCluster(t *testing.T) {
	m := startMember(t)
	newFakeCluster().lead(m)
	c := dial(t, nil, m.addr)
	if _, err := put(t.Context(), c, "k"); err != nil {
		t.Fatal(err)
	}
	m.hangs()
	began := time.Now()
	if err := c.Close(); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("closed after %s: %v", time.Since(began), err)
	}
}

func TestMembersAreLearned(t *testing.T) {
	a, b := startMember(t), startMember(t)
	cluster := newFakeCluster()
	serve := func(ctx context.Context, method string, request proto.Message) (proto.Message, error) {
		if method == metasrvpb.Cluster_ListMembers_FullMethodName {
			return &metasrvpb.ListMembersResponse{Members: []*metasrvpb.Member{
				{Id: "a", GrpcAddr: a.addr}, {Id: "b", GrpcAddr: b.addr}, {Id: "c"},
			}}, nil
		}
		return cluster.serve(ctx, method, request)
	}
	a.onUnary(serve)
	b.onUnary(serve)
	c := dial(t, nil, deadAddr(t), a.addr)
	if err := rangeAll(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	eventually(t, "b learned", func() bool { return c.members.isKnown(b.addr) })
	a.stop()
	if _, err := put(t.Context(), c, "k"); err != nil {
		t.Fatal(err)
	}
}

func TestUnusedConnectionsArePruned(t *testing.T) {
	endpoint := startMember(t)
	c := dial(t, func(cfg *Config) { cfg.IdleTimeout = time.Nanosecond }, endpoint.addr)
	for range 5 {
		m := startMember(t)
		m.answer(&metasrvpb.RangeResponse{}, nil)
		endpoint.follows(m.addr)
		c.members.lead(endpoint.addr)
		if err := rangeAll(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	// The endpoint, the metasrv leader, and the one before it: connections are pruned when one is added.
	if n := len(c.conns.byAddr); n > 3 {
		t.Errorf("%d connections", n)
	}
}

func TestUnknownMethodIsSentOnce(t *testing.T) {
	m := startMember(t)
	c := dial(t, func(cfg *Config) { cfg.CallTimeout = 300 * time.Millisecond }, deadAddr(t), m.addr)
	m.answer(nil, status.Error(codes.Unavailable, "lost"))
	err := c.Invoke(t.Context(), "/metasrv.v1.Store/Novelty", &metasrvpb.PutRequest{}, &metasrvpb.PutResponse{})
	// gRPC itself refuses unknown methods, so the interceptor of the fake never runs.
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("error is %v", err)
	}
	k := &call{kind: once}
	if k.mayRetry(verdict{action: another, unknown: true}) || !k.mayRetry(verdict{action: another}) {
		t.Error("an unknown method may be sent again only where it was not executed")
	}
}

func TestClusterOfAsksOneMember(t *testing.T) {
	a, b := startMember(t), startMember(t)
	a.answer(&metasrvpb.StatusResponse{Member: &metasrvpb.Member{Id: "a"}}, nil)
	b.answer(nil, refusal(metasrv.ErrNotReady))
	c := dial(t, nil, a.addr)
	if r, err := c.ClusterOf(a.addr).Status(t.Context(), &metasrvpb.StatusRequest{}); err != nil || r.GetMember().GetId() != "a" {
		t.Errorf("status %v, error %v", r, err)
	}
	_, err := c.ClusterOf(b.addr).Status(t.Context(), &metasrvpb.StatusRequest{})
	wantIs(t, err, metasrv.ErrNotReady)
	if n := b.count(metasrvpb.Cluster_Status_FullMethodName); n != 1 {
		t.Errorf("asked %d times", n)
	}
}

func TestWatchFollowsTheLeaderBeforeItsFirstAnswer(t *testing.T) {
	leader, follower, hung := startMember(t), startMember(t), deadAddr(t)
	follower.follows(leader.addr)
	end := make(chan struct{})
	leader.onStream(func(_ string, stream grpc.ServerStream) error {
		request := &metasrvpb.WatchRoutesRequest{}
		if err := stream.RecvMsg(request); err != nil {
			return err
		}
		if err := stream.SendMsg(&metasrvpb.WatchRoutesResponse{Revision: request.GetStartRevision()}); err != nil {
			return err
		}
		<-end
		return notLeader(follower.addr)
	})
	c := dial(t, nil, hung, follower.addr)
	watch, err := c.Router().Watch(t.Context(), &metasrvpb.WatchRoutesRequest{StartRevision: 7})
	if err != nil {
		t.Fatal(err)
	}
	response, err := watch.Recv()
	if err != nil || response.GetRevision() != 7 {
		t.Fatalf("first answer %v, error %v", response, err)
	}
	close(end)
	_, err = watch.Recv()
	wantIs(t, err, metasrv.ErrNotLeader)
	if c.Leader() != follower.addr {
		t.Errorf("the end of the watch named %s, the client goes to %q", follower.addr, c.Leader())
	}
}

func TestWatchErrors(t *testing.T) {
	m := startMember(t)
	c := dial(t, func(cfg *Config) { cfg.CallTimeout = 300 * time.Millisecond }, m.addr)
	for _, test := range []struct {
		name string
		end  error
		is   error
	}{
		{"final", refusal(metasrv.ErrCompacted), metasrv.ErrCompacted},
		{"no leader for too long", notLeader(""), metasrv.ErrNotLeader},
		{"ended", nil, io.EOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.onStream(func(string, grpc.ServerStream) error { return test.end })
			watch, err := c.Router().Watch(t.Context(), &metasrvpb.WatchRoutesRequest{})
			if err == nil {
				_, err = watch.Recv()
			}
			wantIs(t, err, test.is)
		})
	}
	t.Run("context", func(t *testing.T) {
		m.hangs()
		ctx, cancel := context.WithCancel(t.Context())
		watch, err := c.Router().Watch(ctx, &metasrvpb.WatchRoutesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		_, err = watch.Recv()
		if status.Code(err) != codes.Canceled {
			t.Errorf("error is %v", err)
		}
	})
}

// Writes from many goroutines through members that refuse, redirect, lose answers before and after execution,
// and forget sessions: what was acknowledged was executed once, what was not at most once.
func TestExactlyOnceUnderFaults(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	cluster := newFakeCluster()
	var faults sync.Mutex
	random := rand.New(rand.NewPCG(seed, 1))
	fault := func() int {
		faults.Lock()
		defer faults.Unlock()
		return random.IntN(100)
	}
	var ms [3]*fakeMember
	var addrs []string
	for i := range ms {
		ms[i] = startMember(t)
		addrs = append(addrs, ms[i].addr)
	}
	for _, m := range ms {
		m.onUnary(func(ctx context.Context, method string, request proto.Message) (proto.Message, error) {
			switch n := fault(); {
			case n < 10:
				return nil, notLeader(addrs[n%len(addrs)])
			case n < 13:
				return nil, notLeader("")
			case n < 20:
				return nil, status.Error(codes.Unavailable, "lost before")
			case n < 25:
				return nil, refusal(metasrv.ErrOverloaded)
			case n < 35:
				_, _ = cluster.serve(ctx, method, request)
				return nil, status.Error(codes.Unavailable, "lost after")
			case n < 36:
				cluster.expire()
			}
			return cluster.serve(ctx, method, request)
		})
	}
	c := dial(t, func(cfg *Config) { cfg.CallTimeout = 30 * time.Second }, addrs...)
	var writers sync.WaitGroup
	var unknown, acknowledged atomic.Int64
	for w := range 8 {
		writers.Go(func() {
			for i := range 100 {
				key := fmt.Sprintf("%d/%d", w, i)
				_, err := put(t.Context(), c, key)
				n := cluster.executions(key)
				switch {
				case err == nil && n == 1:
					acknowledged.Add(1)
				case errors.Is(err, metasrv.ErrOutcomeUnknown) && n <= 1:
					unknown.Add(1)
				default:
					t.Errorf("%s: executed %d times, error %v", key, n, err)
				}
			}
		})
	}
	writers.Wait()
	t.Logf("%d acknowledged, %d of unknown outcome", acknowledged.Load(), unknown.Load())
	if acknowledged.Load() == 0 {
		t.Error("nothing was acknowledged")
	}
}
