package raftfsm

import (
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Rule 1: a cluster is founded by all of its founders, and at once when the last of them is there.
func TestFoundersWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		for i := range 3 {
			c.stop(i)
			if err := os.RemoveAll(c.folder(i)); err != nil {
				t.Fatal(err)
			}
		}
		c.start(0)
		c.start(1)
		time.Sleep(time.Minute)
		for i := range 2 {
			if _, leads := c.nodes[i].Leadership(); leads || c.nodes[i].ClusterID() != 0 {
				t.Errorf("member %s has founded a cluster without member c", c.servers[i].ID)
			}
			if w := c.nodes[i].Status().Waiting; !strings.Contains(w, "c at c:3003 does not answer") {
				t.Errorf("member %s waits for %q", c.servers[i].ID, w)
			}
		}
		began := time.Now()
		c.start(2)
		c.leader()
		if took := time.Since(began); took > 1500*time.Millisecond {
			t.Errorf("the cluster was there %s after its last founder", took)
		}
		eventually(t, "all are of one cluster", func() bool {
			id := c.nodes[0].ClusterID()
			return id != 0 && c.nodes[1].ClusterID() == id && c.nodes[2].ClusterID() == id
		})
	})
}

// A founder that was not there when the others began is let in as long as its folder is the one that they know.
func TestFounderThatStoppedAtTheWrongMoment(t *testing.T) {
	c := newCluster(t, 3)
	c.leader()
	c.stop(2)
	nonce := c.nodes[0].file.Founders["c"]
	if err := os.RemoveAll(c.folder(2)); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(c.folder(2), 0o700); err != nil {
		t.Fatal(err)
	}
	// What it had before it founded: the number of its folder.
	f, err := openMemberFile(c.folder(2))
	if err != nil {
		t.Fatal(err)
	}
	f.Nonce = nonce
	if err := f.save(); err != nil {
		t.Fatal(err)
	}
	n := c.start(2)
	eventually(t, "it follows the others", func() bool { return n.ClusterID() == c.nodes[0].ClusterID() })
}

// Rule 1: a founder whose data is lost waits while nobody can tell it so, gives no vote, and ends when somebody does.
func TestFounderWithoutItsDataGivesNoVote(t *testing.T) {
	for _, state := range []ClusterState{ClusterNew, ClusterExisting} {
		t.Run(string(state), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { founderWithoutItsData(t, state) })
		})
	}
}

func founderWithoutItsData(t *testing.T, state ClusterState) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	lost, behind := (at+1)%3, (at+2)%3
	c.stop(behind)
	if _, err := put(within(t, time.Minute), leader, "x", "acknowledged"); err != nil {
		t.Fatal(err)
	}
	c.stop(at)
	c.stop(lost)
	if err := os.RemoveAll(c.folder(lost)); err != nil {
		t.Fatal(err)
	}
	cfg := c.config(lost)
	cfg.InitialClusterState = state
	empty, err := Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[lost] = empty
	time.Sleep(10 * time.Second)
	n, err := Open(c.config(behind))
	if state == ClusterNew {
		// It learns of its loss as soon as the one that is behind answers.
		eventually(t, "the empty member ends", func() bool { return empty.Err() != nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	c.nodes[behind] = n
	time.Sleep(30 * time.Second)
	if _, leads := n.Leadership(); leads {
		t.Error("a member that lacks what was acknowledged leads with the vote of one that has lost it")
	}
	c.start(at)
	eventually(t, "the empty member ends", func() bool { return empty.Err() != nil })
	if !strings.Contains(empty.Err().Error(), "its data is lost") {
		t.Errorf("it ended with %v", empty.Err())
	}
	_, leader = c.leader()
	view, err := leader.Barrier(within(t, time.Minute))
	if err != nil || get(view, "x") != "acknowledged" {
		t.Errorf("x is %v, %v", get(leader.View(), "x"), err)
	}
}

// Members of another cluster, or of another life of this one, don't get through to raft.
func TestStrangersAreNotAdmitted(t *testing.T) {
	c := newCluster(t, 1)
	c.leader()
	n := c.nodes[0]
	eventually(t, "the cluster has an id", func() bool { return n.ClusterID() != 0 })
	own := n.identity()
	for _, test := range []struct {
		name    string
		g       greeting
		refused bool
	}{
		{"one of its own", greeting{own, "b:3003"}, false},
		{"one that is new", greeting{identity{}, "b:3003"}, false},
		{"another cluster", greeting{identity{own.cluster + 1, 0}, "b:3003"}, true},
		{"another life", greeting{identity{own.cluster, 5}, "b:3003"}, true},
	} {
		if err := n.admit(test.g); (err != nil) != test.refused {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	// On the wire too: what is refused is closed.
	for _, g := range []greeting{{own, "b:3003"}, {identity{own.cluster + 1, 0}, "b:3003"}} {
		conn, err := c.net.Host("b:3003").Dial(t.Context(), "a:3003")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(g.encode()); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = conn.Read(make([]byte, 1))
		if closed := !os.IsTimeout(err); closed != (g.identity != own) {
			t.Errorf("the connection of %+v: %v", g, err)
		}
		_ = conn.Close()
	}
}
