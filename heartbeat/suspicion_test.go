package heartbeat

import (
	"slices"
	"testing"
	"time"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
)

// Node 1 beats each second and sometimes in between, node 2 has a history of three beats: of the one it is known early that it
// is silent. Neither has failed by that.
func TestSuspicionByHistory(t *testing.T) {
	n := memory.New(NewApplier())
	for _, id := range []uint64{1, 2} {
		if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(id), Info: info(id)}); err != nil {
			t.Fatal(err)
		}
	}
	tracker := newTracker(t)
	one, two := mustConnect(t, tracker, 1, 1), mustConnect(t, tracker, 2, 2)
	end := time.Duration(0)
	for i := range 30 {
		end = time.Duration(i) * time.Second
		mustObserve(t, tracker, end, one, &metasrvpb.HeartbeatRequest{})
		if i >= 27 {
			mustObserve(t, tracker, end, two, &metasrvpb.HeartbeatRequest{})
		} else if i%2 == 0 {
			mustObserve(t, tracker, end+100*time.Millisecond, one, &metasrvpb.HeartbeatRequest{})
		}
	}
	for _, c := range []struct {
		silence time.Duration
		want    metasrvpb.NodeState // of node 1; node 2 is live
	}{{0, live}, {1400 * time.Millisecond, live}, {2 * time.Second, suspect}, {2900 * time.Millisecond, suspect}} {
		nodes, err := tracker.Nodes(n.View(), start.Add(end+c.silence))
		if err != nil {
			t.Fatal(err)
		}
		if nodes[0].State != c.want || nodes[1].State != live {
			t.Errorf("after %s: %s and %s, want %s and live", c.silence, nodes[0].State, nodes[1].State, c.want)
		}
		if failed, _ := tracker.Failed(start.Add(end + c.silence)); len(failed) != 0 && slices.Contains(failed, 1) {
			t.Errorf("after %s node 1 counts as failed", c.silence)
		}
	}
	mustObserve(t, tracker, end+3*time.Second, one, &metasrvpb.HeartbeatRequest{})
	if s, err := tracker.Node(n.View(), 1, start.Add(end+3*time.Second)); err != nil || s.State != live {
		t.Errorf("after a beat it is %s, %v", s.State, err)
	}
}
