package raftfsm

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metasrv/metasrv"
)

func TestThreeMembersElectReplicateAndCatchUp(t *testing.T) {
	c := newCluster(t, 3)
	old, leader := c.leader()
	ctx := within(t, time.Minute)
	if _, err := put(ctx, leader, "before", "1"); err != nil {
		t.Fatal(err)
	}
	for i, n := range c.nodes {
		eventually(t, "every member has the value", func() bool { return get(n.View(), "before") == "1" })
		eventually(t, "every member knows the client address of the metasrv leader", func() bool {
			record, ok := n.Leader()
			return ok && record.GrpcAddr == c.servers[old].ID+":3002"
		})
		if i != old {
			if _, err := put(ctx, n, "x", "y"); !errors.Is(err, metasrv.ErrNotLeader) {
				t.Errorf("a follower answered a write with %v, want ErrNotLeader", err)
			}
			if _, err := n.Barrier(ctx); !errors.Is(err, metasrv.ErrNotLeader) {
				t.Errorf("a follower answered a barrier with %v, want ErrNotLeader", err)
			}
		}
	}
	c.stop(old)
	_, leader = c.leader()
	if _, err := put(ctx, leader, "after", "2"); err != nil {
		t.Fatal(err)
	}
	view, err := leader.Barrier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if get(view, "before") != "1" || get(view, "after") != "2" {
		t.Errorf("the new metasrv leader has before=%s after=%s", get(view, "before"), get(view, "after"))
	}
	n := c.start(old)
	eventually(t, "the restarted member catches up", func() bool { return get(n.View(), "after") == "2" })
}

func TestRestartOfAllKeepsEverything(t *testing.T) {
	c := newCluster(t, 3)
	_, leader := c.leader()
	ctx := within(t, time.Minute)
	for i := range 100 {
		if _, err := put(ctx, leader, key(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	id, revision := leader.ClusterID(), leader.View().Revision()
	for i := range c.nodes {
		c.stop(i)
	}
	for i := range c.nodes {
		c.start(i)
	}
	_, leader = c.leader()
	view, err := leader.Barrier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if get(view, key(i)) != "v" {
			t.Fatalf("%s is lost", key(i))
		}
	}
	if leader.ClusterID() != id || view.Revision() != revision {
		t.Errorf("cluster id %d and revision %d, want %d and %d", leader.ClusterID(), view.Revision(), id, revision)
	}
}

func TestClusterInSimulatedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		started := time.Now()
		for i := range 20 {
			at, leader := c.leader()
			if _, err := put(within(t, time.Minute), leader, key(i), "v"); err != nil {
				t.Fatal(err)
			}
			addr := c.servers[at].RaftAddr
			c.net.Cut(addr)
			eventually(t, "the metasrv leader that is cut off lets go", func() bool {
				_, leads := leader.Leadership()
				return !leads
			})
			_, next := c.leader()
			if view, err := next.Barrier(within(t, time.Minute)); err != nil || get(view, key(i)) != "v" {
				t.Fatalf("round %d: %v, %s", i, err, get(next.View(), key(i)))
			}
			c.net.Heal(addr)
			eventually(t, "the healed member catches up", func() bool { return get(c.nodes[at].View(), key(i)) == "v" })
			time.Sleep(20 * time.Second)
		}
		t.Logf("simulated %s", time.Since(started))
	})
}

func TestProposeEndsWithItsContext(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	for i := range c.nodes {
		if i != at {
			c.net.Cut(c.servers[i].RaftAddr)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := put(ctx, leader, "x", "1")
	if !errors.Is(err, metasrv.ErrOutcomeUnknown) && !errors.Is(err, metasrv.ErrNotLeader) {
		t.Errorf("a write without majority ended with %v, want ErrOutcomeUnknown or ErrNotLeader", err)
	}
}

// A member that lags by more than the log keeps gets a snapshot, under writes, and goes on from it after a restart.
func TestLaggingMemberGetsASnapshot(t *testing.T) {
	c := newCluster(t, 3, func(c *cluster) {
		c.log = LogRetention{Trailing: 10, Threshold: 20, Interval: 20 * time.Millisecond}
	})
	at, leader := c.leader()
	behind := (at + 1) % 3
	c.stop(behind)
	ctx := within(t, time.Minute)
	for i := range 300 {
		for {
			if _, err := put(ctx, leader, key(i), "v"); err == nil {
				break
			} else if ctx.Err() != nil {
				t.Fatal(err)
			}
			_, leader = c.leader() // a busy machine may have made another one
		}
	}
	eventually(t, "the metasrv leader drops what the image has", func() bool {
		return leader.Status().FlushedIndex > 250
	})
	n := c.start(behind)
	caughtUp := func() bool { return get(n.View(), key(0)) == "v" && get(n.View(), key(299)) == "v" }
	eventually(t, "the member catches up", caughtUp)
	if _, err := n.Read(ctx, 1); !errors.Is(err, metasrv.ErrCompacted) {
		t.Errorf("its feed from revision 1 answers %v: it did not get a snapshot", err)
	}
	if _, err := put(ctx, leader, "after", "1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it follows the log again", func() bool { return get(n.View(), "after") == "1" })
	c.stop(behind)
	n = c.start(behind)
	eventually(t, "it continues from the snapshot after a restart", func() bool {
		return caughtUp() && get(n.View(), "after") == "1"
	})
}

// A metasrv leader that is asked to close hands over first, so the others need no election.
func TestCloseHandsOverTheLeadership(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		at, leader := c.leader()
		if _, err := put(within(t, time.Minute), leader, "x", "1"); err != nil {
			t.Fatal(err)
		}
		for _, n := range c.nodes {
			eventually(t, "every member has the value", func() bool { return get(n.View(), "x") == "1" })
		}
		began := time.Now()
		if err := leader.Close(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		c.nodes[at] = nil
		c.leader()
		if took := time.Since(began); took >= c.timing.Heartbeat {
			t.Errorf("the next metasrv leader came after %s of simulated time: it was elected, not handed the leadership", took)
		}
	})
}
