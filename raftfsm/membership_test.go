package raftfsm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
)

// A member is replaced while clients write: the new one joins, catches up, votes; the old one is removed, notices, and
// is never let in again.
func TestMemberIsReplacedUnderWrites(t *testing.T) {
	c := newCluster(t, 3, func(c *cluster) {
		c.log = LogRetention{Trailing: 50, Threshold: 50, Interval: 20 * time.Millisecond}
	})
	_, leader := c.leader()
	ctx := within(t, time.Minute)
	writing, stop := context.WithCancel(ctx)
	written := make(chan int, 1) // also where nobody asks, for the test has failed
	go func() {
		n := 0
		for ; writing.Err() == nil; n++ {
			_, l := c.leader()
			if _, err := put(writing, l, key(n), "v"); err != nil {
				n-- // again, perhaps with another leader
			}
		}
		written <- n
	}()
	d := c.join("d")
	eventually(t, "the new member says what it waits for", func() bool {
		return strings.Contains(c.nodes[d].Status().Waiting, "metactl member add d --raft-addr d:3003")
	})
	at := leader.ConfigurationIndex()
	if _, err := leader.PromoteMember(ctx, "d", Change{}); !errors.Is(err, metasrv.ErrMemberNotFound) {
		t.Errorf("promoted before it was added: %v", err)
	}
	if _, err := leader.AddMember(ctx, c.servers[d], Change{At: at + 1}); !errors.Is(err, metasrv.ErrConfigurationChanged) {
		t.Errorf("added on a configuration that is not there: %v", err)
	}
	added, err := leader.AddMember(ctx, c.servers[d], Change{At: at})
	if err != nil {
		t.Fatal(err)
	}
	if again, err := leader.AddMember(ctx, c.servers[d], Change{At: at}); err != nil || again != added {
		t.Errorf("added again: %d, %v; want %d", again, err, added)
	}
	eventually(t, "it is promoted", func() bool {
		_, err := leader.PromoteMember(ctx, "d", Change{})
		if err != nil && !errors.Is(err, metasrv.ErrMemberNotCaughtUp) {
			t.Fatal(err)
		}
		return err == nil
	})
	old := leader
	eventually(t, "a metasrv leader that is to be removed hands over", func() bool {
		_, err := old.RemoveMember(ctx, old.cfg.MemberID, Removal{}, Change{})
		if err != nil && !errors.Is(err, metasrv.ErrNotLeader) && !errors.Is(err, metasrv.ErrNotTransferred) {
			t.Fatal(err)
		}
		return errors.Is(err, metasrv.ErrNotLeader)
	})
	_, leader = c.leader()
	if _, err := leader.RemoveMember(ctx, old.cfg.MemberID, Removal{}, Change{}); err != nil {
		t.Fatal(err)
	}
	if _, err := leader.RemoveMember(ctx, old.cfg.MemberID, Removal{}, Change{}); err != nil {
		t.Errorf("removed again: %v", err)
	}
	eventually(t, "the removed member ends", func() bool { return old.Err() != nil })
	stop()
	n := <-written
	view, err := leader.Barrier(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if get(view, key(i)) != "v" {
			t.Fatalf("%s is lost", key(i))
		}
	}
	eventually(t, "the new member has it all", func() bool { return get(c.nodes[d].View(), key(n-1)) == "v" })
	for i, s := range c.servers {
		if s.ID != old.cfg.MemberID {
			continue
		}
		_ = old.Close(context.Background())
		c.nodes[i] = nil
		if _, err := Open(c.config(i)); err == nil || !strings.Contains(err.Error(), "was removed from the cluster") {
			t.Errorf("a removed member was started again: %v", err)
		}
		if _, err := leader.AddMember(ctx, s, Change{}); !errors.Is(err, metasrv.ErrMemberRemoved) {
			t.Errorf("its id was taken again: %v", err)
		}
		if err := os.RemoveAll(c.folder(i)); err != nil {
			t.Fatal(err)
		}
		if n, err := Open(c.config(i)); err == nil || !strings.Contains(err.Error(), "was removed from the cluster") {
			t.Errorf("its id was started again: %v", err)
			_ = n.Close(context.Background())
		}
	}
}

// No voter is removed whose absence would stop the cluster.
func TestRemovalKeepsAQuorum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		at, leader := c.leader()
		silent, other := c.servers[(at+1)%3], c.servers[(at+2)%3]
		ctx := within(t, time.Minute)
		for _, s := range c.servers {
			if _, err := leader.RemoveMember(ctx, s.ID, Removal{Force: true}, Change{}); !errors.Is(err, metasrv.ErrQuorumAtRisk) || !strings.Contains(err.Error(), "--shrink") {
				t.Errorf("removed one of three that work: %v", err)
			}
		}
		c.net.Cut(silent.RaftAddr)
		if _, err := leader.RemoveMember(ctx, other.ID, Removal{Shrink: true}, Change{}); !errors.Is(err, metasrv.ErrQuorumAtRisk) || !strings.Contains(err.Error(), "silent: "+silent.ID) {
			t.Errorf("removed a voter that the cluster needs: %v", err)
		}
		if _, err := leader.RemoveMember(ctx, silent.ID, Removal{}, Change{}); err != nil {
			t.Errorf("the silent one: %v", err)
		}
		if _, err := leader.RemoveMember(ctx, other.ID, Removal{}, Change{}); err != nil {
			t.Errorf("down to one: %v", err)
		}
		if _, err := leader.RemoveMember(ctx, c.servers[at].ID, Removal{Force: true}, Change{}); !errors.Is(err, metasrv.ErrQuorumAtRisk) {
			t.Errorf("removed the last voter: %v", err)
		}
	})
}

// A member that lags, or doesn't answer, gets no vote.
func TestPromotionWaitsForTheState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		_, leader := c.leader()
		ctx := within(t, time.Minute)
		server := Server{ID: "b", RaftAddr: "b:3003"}
		if _, err := leader.AddMember(ctx, server, Change{}); err != nil {
			t.Fatal(err)
		}
		if _, err := leader.PromoteMember(ctx, "b", Change{}); !errors.Is(err, metasrv.ErrMemberNotCaughtUp) || !strings.Contains(err.Error(), "does not answer") {
			t.Errorf("promoted a member that was never started: %v", err)
		}
		brief, cancel := context.WithTimeout(ctx, time.Second)
		_, err := leader.PromoteMember(brief, "b", Change{})
		if cancel(); !errors.Is(err, metasrv.ErrMemberNotCaughtUp) {
			t.Errorf("who waits for a second only hears %v", err)
		}
		other := c.config(0)
		other.MemberID, other.DataDir, other.RaftAddr = server.ID, filepath.Join(t.TempDir(), "other"), server.RaftAddr
		other.Member = &storagepb.MemberRecord{RaftAddr: server.RaftAddr}
		other.InitialCluster, other.Network = []Server{server}, c.net.Host(server.RaftAddr)
		stranger, err := Open(other)
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "it leads another cluster", func() bool { _, leads := stranger.Leadership(); return leads })
		if _, err := leader.PromoteMember(ctx, "b", Change{}); !errors.Is(err, metasrv.ErrMemberNotCaughtUp) || !strings.Contains(err.Error(), "is part of cluster") {
			t.Errorf("promoted a member of another cluster: %v", err)
		}
		if err := stranger.Close(ctx); err != nil {
			t.Error(err)
		}
		b := c.join("b")
		eventually(t, "it is promoted", func() bool {
			_, err := leader.PromoteMember(ctx, "b", Change{})
			return err == nil
		})
		if err := c.nodes[b].Err(); err != nil {
			t.Error(err)
		}
	})
}

// A change that waits for another one ends with its request.
func TestChangesWaitForEachOther(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		_, leader := c.leader()
		_, unlock, err := leader.configure(within(t, time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := leader.TransferLeadership(within(t, time.Second), ""); !errors.Is(err, metasrv.ErrNotReady) || !strings.Contains(err.Error(), "busy") {
			t.Errorf("a second change ended with %v", err)
		}
		time.AfterFunc(time.Second, unlock)
		if _, err := leader.TransferLeadership(within(t, time.Minute), leader.cfg.MemberID); err != nil {
			t.Errorf("the next change: %v", err)
		}
	})
}

func TestLeadershipIsTransferred(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	ctx := within(t, time.Minute)
	to := c.servers[(at+1)%3].ID
	if got, err := leader.TransferLeadership(ctx, to); err != nil || got != to {
		t.Fatalf("transferred to %q, %v; want %s", got, err, to)
	}
	now, leader := c.leader()
	if c.servers[now].ID != to {
		t.Errorf("%s leads", c.servers[now].ID)
	}
	if got, err := leader.TransferLeadership(ctx, to); err != nil || got != to {
		t.Errorf("transferred to the one that leads: %q, %v", got, err)
	}
	if _, err := leader.TransferLeadership(ctx, "nobody"); !errors.Is(err, metasrv.ErrMemberNotFound) {
		t.Errorf("transferred to nobody: %v", err)
	}
}

// A transfer ends where nobody else has the leadership afterwards: this member was elected again, or there is no leader.
func TestTransferEndsWithoutSuccessor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		_, leader := c.leader()
		term := leader.raft.CurrentTerm()
		if _, err := leader.awaitSuccessor(within(t, time.Hour), term-1); !errors.Is(err, metasrv.ErrNotTransferred) || !strings.Contains(err.Error(), "elected again") {
			t.Errorf("elected again: %v", err)
		}
		if _, err := leader.awaitSuccessor(within(t, time.Hour), term); !errors.Is(err, metasrv.ErrNotTransferred) || !strings.Contains(err.Error(), "no other member") {
			t.Errorf("nobody else leads: %v", err)
		}
	})
}

// A member moves to another address: the cluster is told first.
func TestMemberMoves(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	moved := (at + 1) % 3
	c.stop(moved)
	ctx := within(t, time.Minute)
	c.servers[moved].RaftAddr = "elsewhere:1"
	if _, err := leader.UpdateMember(ctx, c.servers[moved], Change{}); err != nil {
		t.Fatal(err)
	}
	n := c.start(moved)
	if _, err := put(ctx, leader, "x", "1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it follows at its new address", func() bool { return get(n.View(), "x") == "1" })
}

// A metasrv leader that ended between the removal of a member and the record of it is made up for.
func TestRemovalIsRemembered(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	gone := c.servers[(at+1)%3]
	eventually(t, "its record is there", func() bool { _, ok := leader.publishedMember(gone.ID); return ok })
	c.stop((at + 1) % 3)
	s, _ := findServer(leader.configuration(), gone.ID)
	if err := leader.raft.RemoveServer(s.ID, 0, time.Minute).Error(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the id is remembered", func() bool {
		_, was := machine.Removed(leader.View(), gone.ID)
		return was
	})
}

// A change that waits for another one ends with its request.
func TestChangesOfMembersWaitAsLongAsTheirRequests(t *testing.T) {
	c := newCluster(t, 1)
	_, n := c.leader()
	_, unlock, err := n.configure(within(t, 10*time.Second))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := n.TransferLeadership(ctx, "a"); !errors.Is(err, metasrv.ErrNotReady) {
		t.Errorf("a change beside another one: %v", err)
	}
	unlock()
	if _, err := n.TransferLeadership(within(t, 10*time.Second), "a"); err != nil {
		t.Errorf("a change after the other one: %v", err)
	}
}

// A member that was added, and removed before it has stored anything of raft, has no configuration that would name the
// others. It asks those that it knows from joining, and ends.
func TestMemberRemovedBeforeItWasFedEnds(t *testing.T) {
	store := make(chan struct{})
	var opened atomic.Bool
	c := newCluster(t, 3, func(c *cluster) {
		c.configure = func(i int, cfg *Config) {
			if i < 3 {
				return
			}
			cfg.Timing.DiskTimeout = 0
			cfg.Disk = func(write func() error) error {
				if opened.Load() {
					<-store
				}
				return write()
			}
		}
	})
	t.Cleanup(func() { close(store) })
	_, leader := c.leader()
	ctx := within(t, time.Minute)
	d := c.join("d")
	opened.Store(true)
	if _, err := leader.AddMember(ctx, c.servers[d], Change{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is let in", func() bool { return c.nodes[d].admitted.Load() })
	if _, err := leader.RemoveMember(ctx, "d", Removal{}, Change{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the removed member ends", func() bool { return c.nodes[d].Err() != nil })
	if n := len(c.nodes[d].configuration().Servers); n != 0 {
		t.Fatalf("it knows %d members by raft, the test is for one that was not fed", n)
	}
	if err := c.nodes[d].Err(); !strings.Contains(err.Error(), "was removed from the cluster") {
		t.Errorf("it ended with %v", err)
	}
}
