package raftfsm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A member that has no space for the snapshot that it is sent keeps its state, goes on, and gets it when there is space.
func TestInstallOnAFullDisk(t *testing.T) {
	c, leader, behind := lagging(t)
	value := strings.Repeat("x", 64<<10)
	for i := range 100 {
		if _, err := put(t.Context(), leader, "large"+key(i), value); err != nil {
			t.Fatal(err)
		}
	}
	folder := filepath.Join(smallDisk(t, 64<<20), "member")
	if err := os.CopyFS(folder, os.DirFS(c.folder(behind))); err != nil {
		t.Fatal(err)
	}
	empty := fill(t, filepath.Dir(folder), 3<<20)
	c.configure = func(i int, cfg *Config) {
		if i == behind {
			cfg.DataDir = folder
		}
	}
	n := c.start(behind)
	defer c.stop(behind) // before its disk is unmounted
	asBefore := func() bool { return get(n.View(), key(4)) == "v" && get(n.View(), key(199)) == "<absent>" }
	eventually(t, "the disk is full", func() bool { return n.Status().DiskFull != nil })
	eventually(t, "what was received is dropped", func() bool {
		_, err := os.Stat(filepath.Join(folder, "install.db"))
		return os.IsNotExist(err)
	})
	if err := n.Err(); err != nil {
		t.Fatalf("the member ended: %v", err)
	}
	if !asBefore() {
		t.Error("its state has changed")
	}
	c.stop(behind)
	n = c.start(behind)
	if eventually(t, "it replays its log", asBefore); n.Status().DiskFull == nil {
		eventually(t, "the disk is full again", func() bool { return n.Status().DiskFull != nil })
	}
	empty()
	eventually(t, "the member gets the snapshot", func() bool { return get(n.View(), "large"+key(99)) == value })
}

// running cuts off a follower until it needs a snapshot, and lets it come back after f.
func running(t *testing.T, f func(c *cluster, at int)) *Node {
	t.Helper()
	c, leader, behind := lagging(t)
	n := c.start(behind)
	eventually(t, "it has caught up", func() bool { return get(n.View(), key(199)) == "v" && !leader.store.pins.any.Load() })
	c.net.Cut(c.servers[behind].RaftAddr)
	at := n.Status().AppliedIndex
	eventually(t, "the log is shortened", func() bool {
		mustPut(t, leader, "more")
		first, err := leader.store.FirstIndex()
		return err == nil && first > at+10
	})
	f(c, behind)
	c.net.Heal(c.servers[behind].RaftAddr)
	return n
}

// A snapshot that can't take the place of the image for good ends the member: nobody knows which of the two is there.
func TestFailedSwapEndsTheMember(t *testing.T) {
	n := running(t, func(c *cluster, at int) {
		image := filepath.Join(c.folder(at), "state.db")
		if err := os.Remove(image); err != nil {
			t.Fatal(err)
		}
		if err := os.MkdirAll(filepath.Join(image, "in the way"), 0o700); err != nil {
			t.Fatal(err)
		}
	})
	eventually(t, "the member ends", func() bool { return n.Err() != nil })
	if err := n.Err(); !strings.Contains(err.Error(), "install snapshot") {
		t.Errorf("it ended with %v", err)
	}
}

// A received snapshot that can't be read, or is older than the state, changes nothing.
func TestRefusedInstallChangesNothing(t *testing.T) {
	b := newBench(t)
	for range 10 {
		b.putNext()
	}
	store := &snapshotStore{fsm: b.fsm, flusher: b.flusher, dir: t.TempDir()}
	b.checkReceived, b.install = store.checkReceived, store.install
	before := b.current.latest()
	if err := os.WriteFile(store.installPath(), []byte(strings.Repeat("x", 1<<16)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 { // damaged, then, since that was removed, of index 0
		if err := b.Restore(eofCloser{}); err == nil {
			t.Error("installed what is no snapshot, or an older one")
		}
		if _, err := os.Stat(store.installPath()); !os.IsNotExist(err) {
			t.Errorf("it is still there: %v", err)
		}
	}
	if b.current.latest() != before || b.failed {
		t.Error("the state was replaced, or the member has failed")
	}
	b.putNext()
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

// Raft goes on from the index of a received snapshot, and forgets about one of its own that was begun before: else it
// takes a lower index for the latest snapshot, and is sent snapshots without end.
func TestRaftGoesOnFromTheInstalledIndex(t *testing.T) {
	other, b := newBench(t), newBench(t)
	for range 20 {
		other.putNext()
	}
	b.putNext()
	store := &snapshotStore{fsm: b.fsm, flusher: b.flusher, dir: filepath.Dir(b.path), logger: testLogger()}
	b.checkReceived, b.install, b.installed = store.checkReceived, store.install, func() {}
	own, err := b.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	sink, err := store.Create(1, 20, 3, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := snapshotOf(other.fsm.current.Load()).Write(sink); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	meta, source, err := store.Open(sink.ID())
	if err != nil || meta.Index != 20 || meta.Term != 3 {
		t.Fatalf("raft goes on from %+v, %v; want index 20 of term 3", meta, err)
	}
	if err := b.Restore(source); err != nil {
		t.Fatal(err)
	}
	if err := own.Persist(nil); !errors.Is(err, errReplaced) {
		t.Errorf("the member's own snapshot of index 1 was finished after the install: %v", err)
	}
	for _, b := range []*bench{other, b} {
		if err := b.flusher.close(false); err != nil {
			t.Fatal(err)
		}
	}
}

type eofCloser struct{ eof }

func (eofCloser) Close() error { return nil }

// A member whose disk hangs while it receives a snapshot ends as it does for its log: it would not even vote.
func TestHangingDiskEndsAnInstall(t *testing.T) {
	for _, call := range []string{"a write to", "the install of"} {
		t.Run(call, func(t *testing.T) { hangingInstall(t, call) })
	}
}

func hangingInstall(t *testing.T, call string) {
	c, _, behind := lagging(t)
	hanging := make(chan struct{})
	c.configure = func(i int, cfg *Config) {
		if i == behind {
			cfg.Timing.DiskTimeout = faultyTimeout
			cfg.beforeInstallCall = func(what string) {
				if strings.HasPrefix(what, call) {
					<-hanging
				}
			}
		}
	}
	n := c.start(behind)
	select {
	case <-n.Done():
	case <-time.After(time.Minute):
		t.Error("it waits for its disk without end")
	}
	if err := n.Err(); err == nil || !strings.Contains(err.Error(), "install.db has not returned for ") {
		t.Errorf("ended with %v", err)
	}
	close(hanging)
	_ = n.Close(t.Context())
	c.nodes[behind] = nil
}
