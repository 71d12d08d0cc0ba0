package raftfsm

import (
	"context"
	"errors"
	"io/fs"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/memnet"
)

// openGate admits every member.
func openGate(addr string) raftGate {
	return raftGate{greet: func() greeting { return greeting{addr: addr} }, admit: func(greeting) error { return nil }}
}

// testTransports returns two transports that reach each other.
func testTransports(t *testing.T, timeout time.Duration) (a, b *transport) {
	t.Helper()
	network := &memnet.Net{}
	open := func(addr string) *transport {
		listener, err := network.Host(addr).Listen(addr)
		if err != nil {
			t.Fatal(err)
		}
		m := newMux(network.Host(addr), listener, addr, nil, openGate(addr))
		trans := newTransport(m, timeout, nil, newPins(1, nil, nil), newRaftLogger(testLogger()))
		t.Cleanup(func() {
			trans.CloseStreams()
			_ = trans.Close()
			_ = m.Close()
		})
		return trans
	}
	return open("a:1"), open("b:1")
}

// hashicorp/raft#695: heartbeats are handled by raft's main goroutine, in turn with everything else.
func TestHeartbeatsTakeNoShortcut(t *testing.T) {
	a, b := testTransports(t, time.Second)
	shortcut := false
	b.SetHeartbeatHandler(func(rpc raft.RPC) {
		shortcut = true
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
	})
	done := make(chan error, 1)
	go func() {
		heartbeat := &raft.AppendEntriesRequest{Term: 1, RPCHeader: raft.RPCHeader{Addr: []byte("a:1")}}
		done <- a.AppendEntries("b", "b:1", heartbeat, &raft.AppendEntriesResponse{})
	}()
	select {
	case rpc := <-b.Consumer():
		rpc.Respond(&raft.AppendEntriesResponse{}, nil)
		<-done
	case <-done:
	}
	if shortcut {
		t.Error("a heartbeat was handled beside raft's main goroutine")
	}
}

// hashicorp/raft#612: v1.7.3 still has it. pipelineReplicate goes on sending when the follower has refused an append and
// nobody takes the answers any more, and then waits for ever. So there is no pipeline.
func TestReplicationUsesNoPipeline(t *testing.T) {
	a, _ := testTransports(t, time.Second)
	if _, err := a.AppendEntriesPipeline("b", "b:1"); !errors.Is(err, raft.ErrPipelineReplicationNotSupported) {
		t.Errorf("opened a pipeline: %v", err)
	}
}

// A follower that refuses appends again and again under load catches up as soon as it takes them.
func TestFollowerThatRefusedAppendsCatchesUp(t *testing.T) {
	c, logs := faultyCluster(t, 3)
	at, leader := c.leader()
	other := (at + 1) % 3
	var refused atomic.Int32
	refuse := func() error {
		if rand.IntN(2) == 0 && refused.Add(1) <= 40 {
			return &fs.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC}
		}
		return nil
	}
	logs[other].before.Store(&refuse)
	for i := range 300 {
		if _, err := put(within(t, time.Minute), leader, key(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the follower catches up", func() bool { return get(c.nodes[other].View(), key(299)) == "v" })
	if refused.Load() == 0 {
		t.Error("nothing was refused")
	}
}

// lagging returns a cluster whose member behind is stopped, and needs a snapshot when it is started.
func lagging(t *testing.T) (c *cluster, leader *Node, behind int) {
	t.Helper()
	c = newCluster(t, 3, func(c *cluster) {
		c.log = LogRetention{Trailing: 10, Threshold: 20, Interval: 20 * time.Millisecond}
		steady(c)
	})
	at, leader := c.leader()
	for i := range 5 {
		mustPut(t, leader, key(i))
	}
	behind = (at + 1) % 3
	eventually(t, "the follower has the first entries", func() bool { return get(c.nodes[behind].View(), key(4)) == "v" })
	c.stop(behind)
	for i := range 200 {
		mustPut(t, leader, key(i))
	}
	eventually(t, "the log is shortened", func() bool {
		first, err := leader.store.FirstIndex()
		return err == nil && first > 100
	})
	return c, leader, behind
}

// hashicorp/raft#697: when a snapshot is installed the log is emptied, so no old entries stay before a gap.
func TestInstallLeavesNoGapInTheLog(t *testing.T) {
	c, leader, behind := lagging(t)
	n := c.start(behind)
	mustPut(t, leader, "after")
	eventually(t, "the member catches up", func() bool { return get(n.View(), "after") == "v" })
	eventually(t, "the member follows the log", func() bool {
		mustPut(t, leader, "more")
		if err := n.Err(); err != nil {
			t.Fatal(err)
		}
		first, err := n.store.FirstIndex()
		return err == nil && first > 0
	})
	eventually(t, "the log has no gap", func() bool { return wholeLog(t, n.store) })
}

// wholeLog reports whether all entries between the first and the last are there; false where the log was shortened while
// it was read.
func wholeLog(t *testing.T, store *logStore) bool {
	t.Helper()
	bounds := func() (first, last uint64) {
		first, err := store.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		if last, err = store.LastIndex(); err != nil {
			t.Fatal(err)
		}
		return first, last
	}
	first, last := bounds()
	for i := first; i <= last; i++ {
		err := store.GetLog(i, &raft.Log{})
		if err == nil {
			continue
		}
		if now, _ := bounds(); now > i {
			return false
		}
		t.Fatalf("entry %d of %d to %d: %v", i, first, last, err)
	}
	return true
}

// hashicorp/raft#697: a member whose log goes on beyond the snapshot with entries that nobody acknowledged gets the same
// snapshot again and again, since raft takes the emptied log for what it was. It ends, and a restart puts it right.
func TestInstallsWithoutProgressEndTheMember(t *testing.T) {
	c, leader, behind := lagging(t)
	store, err := openLog(filepath.Join(c.folder(behind), "raft.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	last, err := store.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	var entry raft.Log
	if err := store.GetLog(last, &entry); err != nil {
		t.Fatal(err)
	}
	for i := range uint64(1000) {
		if err := store.StoreLog(&raft.Log{Index: last + 1 + i, Term: entry.Term, Type: raft.LogNoop}); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	n := c.start(behind)
	select {
	case <-n.Done():
	case <-time.After(30 * time.Second):
		t.Fatal("installs go on without end")
	}
	if err := n.Err(); !strings.Contains(err.Error(), "3 snapshots were installed") {
		t.Errorf("ended with %v", err)
	}
	_ = n.Close(context.Background())
	n = c.start(behind)
	mustPut(t, leader, "after")
	eventually(t, "the restarted member catches up", func() bool { return get(n.View(), "after") == "v" })
}

// hashicorp/raft#696: a transfer that does not end within two election timeouts ends the member.
func TestTransferThatDoesNotEnd(t *testing.T) {
	var failure error
	g := &transferGuard{election: 300 * time.Millisecond, fail: func(err error) { failure = err }}
	start := time.Now()
	limit := 2*g.election + transferSlack
	for _, step := range []struct {
		after time.Duration
		err   error
		ends  bool
	}{
		{0, raft.ErrLeadershipTransferInProgress, false},
		{limit, raft.ErrLeadershipTransferInProgress, false},
		{limit + 1, nil, false}, // it has ended
		{limit + 2, raft.ErrLeadershipTransferInProgress, false},
		{2*limit + 2, raft.ErrLeadershipTransferInProgress, false},
		{2*limit + 3, raft.ErrLeadershipTransferInProgress, true},
	} {
		g.note(step.err, start.Add(step.after))
		if ended := failure != nil; ended != step.ends {
			t.Errorf("after %s: ended is %v (%v)", step.after, ended, failure)
		}
	}
}

// The same with raft: the transfer waits for a member that does not answer.
func TestTransferToASilentMemberEndsTheLeader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 3)
		at, leader := c.leader()
		mustPut(t, leader, "before")
		silent := make(chan struct{})
		other := c.nodes[(at+1)%3]
		leader.trans.beforeTimeoutNow = func() { <-silent }
		future := leader.raft.LeadershipTransferToServer(raft.ServerID(other.cfg.MemberID), raft.ServerAddress(other.cfg.RaftAddr))
		for leader.Err() == nil {
			if _, err := put(within(t, time.Second), leader, "during", "v"); err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		close(silent)
		_ = future.Error()
		if err := leader.Err(); err == nil || !strings.Contains(err.Error(), "transfer of the leadership") {
			t.Errorf("the metasrv leader goes on with %v", err)
		}
		_ = leader.Close(context.Background())
		c.nodes[at] = nil
		c.leader()
	})
}

// The duties of a term begin when those of the last one have ended, also where the member wins it again at once.
func TestDutiesOfTermsDoNotOverlap(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		var running, most, terms atomic.Int32
		c := newCluster(t, 3, func(c *cluster) {
			c.configure = func(i int, cfg *Config) {
				if i != 0 {
					return
				}
				cfg.Duties = func(ctx context.Context, _ Leadership) error {
					terms.Add(1)
					most.Store(max(most.Load(), running.Add(1)))
					<-ctx.Done()
					<-release // a duty that takes long to end
					running.Add(-1)
					return nil
				}
			}
		})
		first := c.nodes[0]
		lead := func(n *Node) {
			eventually(t, "the leadership is handed over", func() bool {
				for _, from := range c.nodes {
					if from != n && from.raft.State() == raft.Leader {
						_ = from.raft.LeadershipTransferToServer(raft.ServerID(n.cfg.MemberID), raft.ServerAddress(n.cfg.RaftAddr)).Error()
					}
				}
				return n.raft.State() == raft.Leader
			})
		}
		c.leader()
		lead(first)
		eventually(t, "the duties of the first term run", func() bool { return running.Load() == 1 })
		lead(c.nodes[1])
		lead(first)
		time.Sleep(10 * time.Second)
		if terms.Load() != 1 {
			t.Error("the duties of the next term began while those of the last one ran")
		}
		close(release)
		eventually(t, "the duties of the next term run", func() bool { return terms.Load() > 1 })
		if most.Load() != 1 {
			t.Errorf("the duties of %d terms ran at once", most.Load())
		}
	})
}

// What raft answers says whether a command may have been executed.
func TestProposeErrors(t *testing.T) {
	for err, want := range map[error]error{
		raft.ErrNotLeader:                    metasrv.ErrNotLeader,
		raft.ErrLeadershipTransferInProgress: metasrv.ErrNotLeader,
		raft.ErrEnqueueTimeout:               metasrv.ErrOverloaded,
		metasrv.ErrDiskFull:                  metasrv.ErrDiskFull,
		raft.ErrLeadershipLost:               metasrv.ErrOutcomeUnknown,
		raft.ErrRaftShutdown:                 metasrv.ErrOutcomeUnknown,
		raft.ErrAbortedByRestore:             metasrv.ErrOutcomeUnknown,
		syscall.EIO:                          metasrv.ErrOutcomeUnknown,
	} {
		if got := proposeError(err); !errors.Is(got, want) {
			t.Errorf("%v is %v, want %v", err, got, want)
		}
	}
}
