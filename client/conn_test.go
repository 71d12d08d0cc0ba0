package client

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

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
