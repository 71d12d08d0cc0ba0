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

// smallDisk makes a file system of some bytes and returns its folder. Its name is gone at once, and an open descriptor leads
// to it: so it ends with the process, also where that is killed. The test is skipped where that isn't allowed.
func smallDisk(t *testing.T, size int) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", size)); err != nil {
		t.Skipf("no small file system: %v", err)
	}
	root, err := os.Open(dir)
	if err := errors.Join(err, syscall.Unmount(dir, syscall.MNT_DETACH)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = root.Close() })
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), root.Fd())
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

// clusterOnDisks starts three members whose disks have as many free bytes as free says: a gigabyte, until it says less.
func clusterOnDisks(t *testing.T, free *[3]atomic.Uint64) *cluster {
	t.Helper()
	return newCluster(t, 3, func(c *cluster) {
		c.configure = func(i int, cfg *Config) {
			free[i].Store(1 << 30)
			cfg.MinFreeDisk = 256 << 20
			cfg.freeSpace = func(string) (uint64, error) { return free[i].Load(), nil }
		}
	})
}

// A member whose folder was removed would acknowledge what nobody finds again.
func TestRemovedFolderEndsTheMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t, 1)
		_, n := c.leader()
		mustPut(t, n, "before")
		if err := os.Rename(c.folder(0), c.folder(0)+".moved"); err != nil {
			t.Fatal(err)
		}
		select {
		case <-n.Done():
			if !strings.Contains(n.Err().Error(), "was removed or renamed") {
				t.Errorf("it ended with %v", n.Err())
			}
		case <-time.After(10 * spacePeriod):
			t.Error("it goes on")
		}
	})
}

// Below the floor the metasrv leader refuses what clients write, by name, and answers reads; with space it goes on, in
// the same term.
func TestWritesAreRefusedBelowTheFloor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free [3]atomic.Uint64
		c := clusterOnDisks(t, &free)
		at, leader := c.leader()
		l, _ := leader.Leadership()
		mustPut(t, leader, "before")
		setAll := func(bytes uint64) { // else the leadership is handed over
			for i := range free {
				free[i].Store(bytes)
			}
		}
		setAll(100 << 20)
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
		setAll(1 << 20)
		eventually(t, "the end of the reserve is seen", func() bool {
			_, err := leader.Propose(within(t, time.Minute), duty)
			return errors.Is(err, metasrv.ErrDiskFull)
		})
		if view, err := leader.Barrier(within(t, time.Minute)); err != nil || get(view, "before") != "v" || get(view, "refused") != "<absent>" {
			t.Errorf("a read without space: %v", err)
		}
		free[at].Store(1 << 30) // first, for it would hand over to members that have space before it knows of its own
		eventually(t, "the metasrv leader has space", func() bool { return leader.Status().DiskFull == nil })
		setAll(1 << 30)
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

// onEachLog runs a test with each kind of log: also with segments that end often, and with those of which not even one
// fits a small disk.
func onEachLog(t *testing.T, test func(t *testing.T, keepLog func(*Config))) {
	for name, keepLog := range map[string]func(*Config){
		"boltdb":             func(*Config) {},
		"wal":                func(c *Config) { c.LogStore = LogStoreWAL },
		"wal/small_segments": func(c *Config) { c.LogStore, c.wal.segment = LogStoreWAL, smallSegment },
	} {
		t.Run(name, func(t *testing.T) { test(t, keepLog) })
	}
}

// A member whose disk is really full refuses writes without ending, keeps every acknowledged key, and goes on when
// there is space.
func TestFullDiskOfTheOnlyMember(t *testing.T) { onEachLog(t, fullDiskOfTheOnlyMember) }

func fullDiskOfTheOnlyMember(t *testing.T, keepLog func(*Config)) {
	disk := smallDisk(t, 64<<20)
	c := newCluster(t, 1, func(c *cluster) {
		c.dir = disk
		c.timing.Flush = 50 * time.Millisecond
		c.configure = func(_ int, cfg *Config) { keepLog(cfg) }
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

// A metasrv leader without space hands over where a majority has some without it, and else stays.
func TestLeaderWithoutSpaceHandsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var free [3]atomic.Uint64
		c := clusterOnDisks(t, &free)
		at, leader := c.leader()
		other, third := (at+1)%3, (at+2)%3
		free[third].Store(100 << 20)
		free[at].Store(100 << 20)
		eventually(t, "the shortage is seen", func() bool {
			return leader.Status().DiskFull != nil && c.nodes[third].Status().DiskFull != nil
		})
		time.Sleep(10 * spacePeriod) // simulated
		if now, _ := c.leader(); now != at {
			t.Errorf("member %s hands over although no majority has space", c.servers[at].ID)
		}
		free[third].Store(1 << 30)
		eventually(t, "another member takes writes", func() bool {
			now, leader := c.leader()
			_, err := put(within(t, time.Minute), leader, "after", "1")
			return now != at && err == nil
		})
		free[other].Store(1 << 30)
		time.Sleep(10 * spacePeriod)
		if now, _ := c.leader(); now == at {
			t.Error("the member without space leads again")
		}
	})
}

// A metasrv leader whose disk is really full: another one leads, and takes writes.
func TestFullDiskOfALeader(t *testing.T) {
	disk := smallDisk(t, 64<<20)
	const small = 0
	c := newCluster(t, 3, func(c *cluster) {
		c.timing.Flush = 50 * time.Millisecond
		c.configure = func(i int, cfg *Config) {
			if i == small {
				cfg.DataDir = filepath.Join(disk, "a")
			}
		}
	})
	_, leader := c.leader()
	eventually(t, "the member with the small disk leads", func() bool {
		_, err := leader.TransferLeadership(within(t, 10*time.Second), c.servers[small].ID)
		_, leader = c.leader()
		return err == nil && leader == c.nodes[small]
	})
	empty := fill(t, disk, 128<<10)
	value := strings.Repeat("x", 8<<10)
	acknowledged := map[string]bool{}
	i, elsewhere := 0, 0
	eventually(t, "another member takes writes", func() bool {
		for ; elsewhere < 100; i++ {
			at, leader := c.leader()
			if _, err := put(within(t, time.Second), leader, key(i), value); err != nil {
				i++
				return false
			}
			acknowledged[key(i)] = true
			if at != small {
				elsewhere++
			}
		}
		return true
	})
	if err := c.nodes[small].Err(); err != nil {
		t.Fatalf("the member with the full disk ended: %v", err)
	}
	empty()
	eventually(t, "the member with the small disk has every acknowledged write", func() bool {
		view := c.nodes[small].View()
		for key := range acknowledged {
			if get(view, key) != value {
				return false
			}
		}
		return true
	})
}

// The cluster goes on without a follower whose disk is full, and it catches up when it has space.
func TestFullDiskOfAFollower(t *testing.T) { onEachLog(t, fullDiskOfAFollower) }

func fullDiskOfAFollower(t *testing.T, keepLog func(*Config)) {
	disk := smallDisk(t, 64<<20)
	const small = 2
	c := newCluster(t, 3, func(c *cluster) {
		c.timing.Flush = 50 * time.Millisecond
		// The machine is busy with the full disk, and the other two are to stay in contact.
		c.timing.Heartbeat, c.timing.Election, c.timing.LeaderLease = time.Second, time.Second, time.Second
		c.configure = func(i int, cfg *Config) {
			keepLog(cfg)
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
	if !follower.Status().DiskOut {
		t.Error("the follower doesn't say that it can't follow")
	}
	empty()
	eventually(t, "the follower catches up without a restart", func() bool {
		return get(follower.View(), key(n-1)) == value
	})
	// The metasrv leader goes on with its own changes, such as the rise of the cluster version.
	eventually(t, "both have the same state", func() bool {
		return maps.Equal(contentOf(follower.View()), contentOf(leader.View()))
	})
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
