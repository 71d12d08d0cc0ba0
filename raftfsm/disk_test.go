package raftfsm

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metasrv/metasrv"
)

// smallDisk mounts a file system of some bytes and returns its folder. The test is skipped where that isn't allowed.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("no small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir
}

// fill takes all space of a folder but some bytes; the returned function gives it back.
func fill(t *testing.T, dir string, leave int) (empty func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for {
		free, err := freeSpace(dir)
		if err != nil {
			t.Fatal(err)
		}
		if free <= uint64(leave) {
			return func() {
				if err := os.Remove(path); err != nil {
					t.Error(err)
				}
			}
		}
		if _, err := file.Write(make([]byte, min(64<<10, int(free)-leave))); err != nil {
			t.Fatal(err)
		}
	}
}

// Below the floor the metasrv leader refuses what clients write, by name, and answers reads; with space it goes on, in
// the same term.
func TestWritesAreRefusedBelowTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free [3]atomic.Uint64
		c := newCluster(t, 3, func(c *cluster) {
			c.configure = func(i int, cfg *Config) {
				free[i].Store(1 << 30)
				cfg.MinFreeDisk = 256 << 20
				cfg.freeSpace = func(string) (uint64, error) { return free[i].Load(), nil }
			}
		})
		at, leader := c.leader()
		l, _ := leader.Leadership()
		mustPut(t, leader, "before")
		free[at].Store(100 << 20)
		eventually(t, "the shortage is seen", func() bool { return leader.Status().DiskFull != nil })
		_, err := put(within(t, time.Minute), leader, "refused", "1")
		if !errors.Is(err, metasrv.ErrDiskFull) || !strings.Contains(err.Error(), "member "+c.servers[at].ID) || !strings.Contains(err.Error(), c.folder(at)) {
			t.Errorf("a write below the floor ended with %v; want ErrDiskFull that names member and folder", err)
		}
		duty := putProposal("duty", "1")
		duty.PlannedTerm = l.Term
		if _, err := leader.Propose(within(t, time.Minute), duty); err != nil {
			t.Errorf("a duty below the floor: %v", err)
		}
		free[at].Store(1 << 20)
		eventually(t, "the end of the reserve is seen", func() bool {
			_, err := leader.Propose(within(t, time.Minute), duty)
			return errors.Is(err, metasrv.ErrDiskFull)
		})
		if view, err := leader.Barrier(within(t, time.Minute)); err != nil || get(view, "before") != "v" || get(view, "refused") != "<absent>" {
			t.Errorf("a read without space: %v", err)
		}
		free[at].Store(1 << 30)
		eventually(t, "writes go on", func() bool {
			_, err := put(within(t, time.Minute), leader, "after", "v")
			return err == nil
		})
		if now, leads := leader.Leadership(); !leads || now.Term != l.Term {
			t.Errorf("the leadership of term %d was lost", l.Term)
		}
	})
}

func mustPut(t *testing.T, n *Node, key string) {
	t.Helper()
	if _, err := put(within(t, time.Minute), n, key, "v"); err != nil {
		t.Fatalf("put %s: %v", key, err)
	}
}

// A member whose disk is really full refuses writes without ending, keeps every acknowledged key, and goes on when
// there is space.
func TestFullDiskOfTheOnlyMember(t *testing.T) {
	disk := smallDisk(t, 64<<20)
	c := newCluster(t, 1, func(c *cluster) {
		c.dir = disk
		c.timing.Flush = 50 * time.Millisecond
	})
	_, n := c.leader()
	empty := fill(t, disk, 256<<10)
	acknowledged := map[string]string{}
	value := strings.Repeat("x", 4<<10)
	write := func(i int) error {
		_, err := put(within(t, time.Second), n, key(i), value)
		if err == nil {
			acknowledged[key(i)] = value
		}
		return err
	}
	i := 0
	for refused := 0; n.Status().DiskFull == nil || refused < 20; i++ {
		if write(i) != nil {
			refused++
		}
	}
	if n.Err() != nil {
		t.Fatalf("the member ended: %v", n.Err())
	}
	if err := n.Status().DiskFull; !errors.Is(err, metasrv.ErrDiskFull) {
		t.Errorf("the status says %v", err)
	}
	for key, value := range acknowledged {
		if get(n.View(), key) != value {
			t.Errorf("%s can't be read while the disk is full", key)
		}
	}
	t.Logf("%d of %d writes were taken before the disk was full", len(acknowledged), i)
	empty()
	eventually(t, "writes go on without a restart", func() bool { i++; return write(i) == nil })
	eventually(t, "the image is written again", func() bool { return n.flusher.flushed.Load() > 0 && n.Status().DiskFull == nil })
	c.stop(0)
	n = c.start(0)
	c.leader()
	for key, value := range acknowledged {
		if get(n.View(), key) != value {
			t.Errorf("%s was acknowledged and is lost", key)
		}
	}
}

// The cluster goes on without a follower whose disk is full, and it catches up when it has space.
func TestFullDiskOfAFollower(t *testing.T) {
	disk := smallDisk(t, 64<<20)
	const small = 2
	c := newCluster(t, 3, func(c *cluster) {
		c.timing.Flush = 50 * time.Millisecond
		c.configure = func(i int, cfg *Config) {
			if i == small {
				cfg.DataDir = filepath.Join(disk, "c")
			}
		}
	})
	at, leader := c.leader()
	if at == small { // its disk is to be a follower's
		c.stop(at)
		at, leader = c.leader()
		c.start(small)
	}
	follower := c.nodes[small]
	eventually(t, "the follower follows", func() bool { return follower.Status().CaughtUp })
	empty := fill(t, disk, 128<<10)
	value := strings.Repeat("x", 8<<10)
	n := 0
	for ; follower.Status().DiskFull == nil || n < 300; n++ {
		if _, err := put(within(t, time.Minute), leader, key(n), value); err != nil {
			t.Fatalf("write %d while a follower's disk is full: %v", n, err)
		}
	}
	if _, leads := leader.Leadership(); !leads || leader != c.nodes[at] {
		t.Error("the metasrv leader has changed")
	}
	for _, m := range c.nodes {
		if m.Err() != nil {
			t.Fatalf("member %s ended: %v", m.cfg.MemberID, m.Err())
		}
	}
	empty()
	want := contentOf(leader.View())
	eventually(t, "the follower catches up without a restart", func() bool {
		return get(follower.View(), key(n-1)) == value
	})
	if got := contentOf(follower.View()); !maps.Equal(got, want) {
		t.Errorf("the follower's state differs: %s", difference(got, want))
	}
}

// A cut that finds no space stays in the next one.
func TestFlushOnAFullDiskKeepsItsKeys(t *testing.T) {
	disk := smallDisk(t, 16<<20)
	b := newBenchIn(t, disk)
	b.flusher.disk = newDisk("a", disk, 0, testLogger())
	b.put("first", "1")
	if err := b.flusher.flush(); err != nil {
		t.Fatal(err)
	}
	empty := fill(t, disk, 64<<10)
	for i := range 100 {
		b.put(key(i), strings.Repeat("x", 4<<10))
	}
	if err := b.flusher.flush(); !errors.Is(err, metasrv.ErrDiskFull) {
		t.Fatalf("flushed with %v; want ErrDiskFull", err)
	}
	b.put("last", "1")
	empty()
	if err := b.flusher.flush(); err != nil {
		t.Fatalf("with space: %v", err)
	}
	a, err := b.flusher.image.load()
	if err != nil || a.index() != b.index || !maps.Equal(contentOf(a.view), contentOf(b.current.latest().view)) {
		t.Errorf("the image of index %d lacks something: %v", b.index, err)
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

// Only a refused write is tried again; what a failed sync has left on the disk is unknown.
func TestWhatCountsAsAFullDisk(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		full bool
	}{
		{"a write without space", &fs.PathError{Op: "write", Path: "raft.db", Err: syscall.ENOSPC}, true},
		{"a write beyond the quota", fmt.Errorf("wrapped: %w", &fs.PathError{Op: "write", Path: "raft.db", Err: syscall.EDQUOT}), true},
		{"growing the file", errors.New("file resize error: truncate raft.db: no space left on device"), true},
		{"a write error", &fs.PathError{Op: "write", Path: "raft.db", Err: syscall.EIO}, false},
		{"a sync", &fs.PathError{Op: "sync", Path: "raft.db", Err: syscall.ENOSPC}, false},
		{"fdatasync", syscall.ENOSPC, false},
		{"a sync after growing", errors.New("file sync error: sync raft.db: no space left on device"), false},
		{"none", nil, false},
	} {
		if full := isDiskFull(c.err); full != c.full {
			t.Errorf("%s: full is %v, want %v", c.name, full, c.full)
		}
	}
}
