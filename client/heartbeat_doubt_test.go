package client

import (
	"context"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// A node whose member is silent goes to the one that another member names as the metasrv leader. Here nothing else leads it there:
// neither member ends a stream or redirects one.
func TestSilentLeaderIsLeftForAnother(t *testing.T) {
	leader, l := leaderMember(t)
	paused, p := leaderMember(t)
	follower := startMember(t)
	follower.hangs()
	follower.onUnary(func(context.Context, string, proto.Message) (proto.Message, error) {
		return &metasrvpb.AskLeaderResponse{Leader: &metasrvpb.Peer{Addr: leader.addr}}, nil
	})
	paused.onUnary(func(ctx context.Context, _ string, _ proto.Message) (proto.Message, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	c := dial(t, nil, paused.addr, follower.addr)
	c.members.lead(paused.addr)
	beatFrom(t, c, nil)
	p.await(t, 2)
	p.set(func() { p.silent = true })
	l.await(t, 2)
}

// One that is only slow keeps its nodes: the others name it.
func TestSlowLeaderKeepsItsNodes(t *testing.T) {
	slow, s := leaderMember(t)
	s.interval = 200 * time.Millisecond
	asked := make(chan struct{}, 1)
	follower := startMember(t)
	follower.follows(slow.addr)
	follower.onUnary(func(context.Context, string, proto.Message) (proto.Message, error) {
		select {
		case asked <- struct{}{}:
		default:
		}
		return &metasrvpb.AskLeaderResponse{Leader: &metasrvpb.Peer{Addr: slow.addr}}, nil
	})
	c := dial(t, nil, slow.addr, follower.addr)
	c.members.lead(slow.addr)
	task, _ := beatFrom(t, c, nil)
	eventually(t, "an answer", func() bool { return task.Incarnation() != 0 })
	s.set(func() { s.ignoring = 2 })
	<-asked
	s.set(func() { s.ignoring = 0 })
	n := len(s.all())
	s.await(t, n+2)
}

// Streams that begin at the same moment don't beat at the same moment from then on.
func TestSecondBeatsAreSpread(t *testing.T) {
	shares := map[float64]bool{}
	for range 100 {
		first, later := heartbeatStream{sequence: 1}, heartbeatStream{sequence: 2}
		share := first.share()
		if share <= 0 || share > 1 || later.share() != 1 {
			t.Fatalf("the second beat comes after %v of an interval, the third after %v", share, later.share())
		}
		shares[share] = true
	}
	if len(shares) < 50 {
		t.Errorf("of 100 second beats %d come at different moments", len(shares))
	}
}
