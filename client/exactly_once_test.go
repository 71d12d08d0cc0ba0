package client

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

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
	cc, release, err := c.conns.use(m.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	// gRPC uses a connection before it says that it is ready; only from then on is another state its loss.
	eventually(t, "the connection is ready", func() bool { return cc.GetState() == connectivity.Ready })
	m.stop()
	// Until the client has noticed, a request that it hands to the connection counts as sent.
	eventually(t, "loss of the connection noticed", func() bool { return cc.GetState() != connectivity.Ready })
	done := make(chan error, 1)
	go func() {
		_, err := put(t.Context(), c, "k")
		done <- err
	}()
	eventually(t, "a refused dial", func() bool { return cc.GetState() == connectivity.TransientFailure })
	cluster.expire()
	startMemberAt(t, m.addr, cluster.lead)
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
