package client

import (
	"context"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

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
	startMemberAt(t, m.addr, cluster.lead)
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
