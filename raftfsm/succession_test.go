package raftfsm

import (
	"testing"
	"testing/synctest"
	"time"
)

// slowElections lets followers wait so long for heartbeats that no election of their own ends a test in time.
func slowElections(c *cluster) {
	c.timing.Heartbeat, c.timing.Election, c.timing.LeaderLease = 3*time.Second, 3*time.Second, 2*time.Second
}

func TestEndedLeaderIsSucceededAtOnce(t *testing.T) { synctest.Test(t, endedLeaderIsSucceededAtOnce) }

func endedLeaderIsSucceededAtOnce(t *testing.T) {
	c := newCluster(t, 3, slowElections)
	i, old := c.leader()
	l, _ := old.Leadership()
	if _, err := put(t.Context(), old, "k", "v"); err != nil {
		t.Fatal(err)
	}
	c.stop(i)
	began := time.Now()
	_, next := c.leader()
	// Followers take their turns after 0.75 and 2.25 s. By missing heartbeats, it would be 3 to 6 s.
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("succeeded after %v", took)
	}
	// The first one may lack the last entry.
	if now, _ := next.Leadership(); now.Term > l.Term+2 {
		t.Errorf("term %d follows term %d", now.Term, l.Term)
	}
}

// A leader that can't be reached has not ended: only missing heartbeats tell.
func TestCutOffLeaderIsSucceededByTimeout(t *testing.T) {
	synctest.Test(t, cutOffLeaderIsSucceededByTimeout)
}

func cutOffLeaderIsSucceededByTimeout(t *testing.T) {
	c := newCluster(t, 3, slowElections)
	i, old := c.leader()
	c.net.Cut(c.servers[i].RaftAddr)
	began := time.Now()
	eventually(t, "another member leads", func() bool {
		for j, n := range c.nodes {
			if _, ok := n.Leadership(); ok && j != i {
				return true
			}
		}
		return false
	})
	if took := time.Since(began); took < 3*time.Second/2 {
		t.Errorf("succeeded after %v", took)
	}
	eventually(t, "the old one lets go", func() bool { _, ok := old.Leadership(); return !ok })
}

// A follower that ends does not make the others doubt a leader that is there.
func TestEndedFollowerChangesNothing(t *testing.T) { synctest.Test(t, endedFollowerChangesNothing) }

func endedFollowerChangesNothing(t *testing.T) {
	c := newCluster(t, 3, slowElections)
	i, leader := c.leader()
	l, _ := leader.Leadership()
	for j := range c.nodes {
		if j != i {
			c.stop(j)
			c.start(j)
		}
	}
	if _, err := put(t.Context(), leader, "k", "v"); err != nil {
		t.Fatal(err)
	}
	if now, ok := leader.Leadership(); !ok || now.Term != l.Term {
		t.Errorf("term %d follows term %d", now.Term, l.Term)
	}
}
