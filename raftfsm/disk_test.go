package raftfsm

import (
	"bytes"
	"context"
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

	"github.com/hashicorp/raft"

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

// faultyLog is a log whose writes can be made to fail or to hang.
type faultyLog struct {
	logDB
	writes atomic.Int32
	before atomic.Pointer[func() error]
}

func (f *faultyLog) StoreLogs(logs []*raft.Log) error {
	f.writes.Add(1)
	if before := f.before.Load(); before != nil {
		if err := (*before)(); err != nil {
			return err
		}
	}
	return f.logDB.StoreLogs(logs)
}

// steady keeps a metasrv leader also where the machine is slow.
func steady(c *cluster) {
	c.timing.Heartbeat, c.timing.Election, c.timing.LeaderLease = 2*time.Second, 2*time.Second, time.Second
}

// faultyCluster is a cluster whose logs can be made to fail.
func faultyCluster(t *testing.T, size int) (*cluster, []*faultyLog) {
	logs := make([]*faultyLog, size)
	return newCluster(t, size, func(c *cluster) {
		c.timing.DiskTimeout = 400 * time.Millisecond
		steady(c)
		c.configure = func(i int, cfg *Config) {
			cfg.wrapLog = func(db logDB) logDB {
				logs[i] = &faultyLog{logDB: db}
				return logs[i]
			}
		}
	}), logs
}

// A failed sync of the log ends the member at once, without another try; what was acknowledged is with the others.
func TestFailedSyncEndsTheMember(t *testing.T) {
	c, logs := faultyCluster(t, 3)
	at, leader := c.leader()
	mustPut(t, leader, "before")
	fail := func() error { return syscall.EIO }
	logs[at].before.Store(&fail)
	writes := logs[at].writes.Load()
	if _, err := put(within(t, time.Minute), leader, "during", "v"); err == nil {
		t.Error("a write was acknowledged whose sync had failed")
	}
	<-leader.Done()
	if err := leader.Err(); !errors.Is(err, syscall.EIO) || !strings.Contains(err.Error(), "raft.db") {
		t.Errorf("the member ended with %v; want the error of the file", err)
	}
	if tries := logs[at].writes.Load() - writes; tries != 1 {
		t.Errorf("%d writes were tried, want 1", tries)
	}
	_ = leader.Close(context.Background())
	c.nodes[at] = nil
	_, next := c.leader()
	if view, err := next.Barrier(within(t, time.Minute)); err != nil || get(view, "before") != "v" {
		t.Errorf("the next metasrv leader: %v", err)
	}
}

// hashicorp/raft#503: a metasrv leader whose disk hangs ends, and meanwhile lets the others elect.
func TestHangingDiskEndsTheMember(t *testing.T) {
	c, logs := faultyCluster(t, 3)
	at, leader := c.leader()
	mustPut(t, leader, "before")
	hanging := make(chan struct{})
	hang := func() error { <-hanging; return nil }
	logs[at].before.Store(&hang)
	if _, err := put(within(t, 10*time.Second), leader, "during", "v"); err == nil {
		t.Error("a write was acknowledged that is not on the disk of the metasrv leader")
	}
	<-leader.Done()
	if err := leader.Err(); !strings.Contains(err.Error(), "raft.db has not returned for 400ms: the disk hangs") {
		t.Errorf("the member ended with %v", err)
	}
	c.nodes[at] = nil
	_, next := c.leader() // while the other one still hangs
	mustPut(t, next, "after")
	if err := leader.Close(within(t, time.Minute)); err == nil || !strings.Contains(err.Error(), "not returned") {
		t.Errorf("closed with %v while a call hangs", err)
	}
	close(hanging)
	leader.wg.Wait()
	eventually(t, "the files are closed at last", func() bool {
		img, err := openImage(filepath.Join(c.folder(at), "state.db"))
		return err == nil && img.close() == nil
	})
}

// A process that was paused in the middle of a call has no hanging disk.
func TestWatchdogDoesNotCountPauses(t *testing.T) {
	var failure error
	dog := newWatchdog(time.Second, func(err error) { failure = err })
	call := dog.begin("the write", 0)
	dog.tick() // one tick only for the time of a pause
	if failure != nil {
		t.Errorf("failed after one tick: %v", failure)
	}
	call.end()
	for range 2 * watchdogTicks {
		dog.tick()
	}
	if failure != nil {
		t.Errorf("failed after the call had returned: %v", failure)
	}
	long := dog.begin("the flush", time.Second)
	for range watchdogTicks + 1 {
		dog.tick()
	}
	if failure != nil {
		t.Errorf("a long call was not given its time: %v", failure)
	}
	for range watchdogTicks {
		dog.tick()
	}
	if failure == nil {
		t.Error("a call that hangs was not seen")
	}
	long.end()
}

// A record that the disk gives back otherwise than it was written is never executed nor sent: the member ends.
func TestDamagedRecordEndsTheMember(t *testing.T) {
	c := newCluster(t, 3)
	at, leader := c.leader()
	third, lagging := (at+1)%3, (at+2)%3
	c.stop(lagging)
	for i := range 40 {
		mustPut(t, leader, key(i))
	}
	c.stop(at) // what it has in memory is right
	store, err := openLog(filepath.Join(c.folder(at), "raft.db"), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	db := store.db
	var entry raft.Log
	if err := db.GetLog(20, &entry); err != nil {
		t.Fatal(err)
	}
	entry.Data = bytes.Clone(entry.Data)
	entry.Data[len(entry.Data)/2] ^= 1
	if err := errors.Join(db.StoreLog(&entry), db.Close()); err != nil {
		t.Fatal(err)
	}
	bad := c.start(at)
	eventually(t, "the member with the damaged record leads", func() bool {
		_ = c.nodes[third].raft.LeadershipTransferToServer(raft.ServerID(bad.cfg.MemberID), raft.ServerAddress(bad.cfg.RaftAddr)).Error()
		_, leads := bad.Leadership()
		return leads
	})
	c.start(lagging) // it needs the entry
	eventually(t, "the damage is found", func() bool { return bad.Err() != nil })
	if err := bad.Err(); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "entry 20 has checksum") {
		t.Errorf("the member ended with %v", err)
	}
	_ = bad.Close(context.Background())
	c.nodes[at] = nil
	c.leader()
	eventually(t, "the other members have everything", func() bool {
		return get(c.nodes[third].View(), key(39)) == "v" && get(c.nodes[lagging].View(), key(39)) == "v"
	})
}

// A log with a record that is wrong or missing behind the image is refused at the start, in words and not with a panic.
func TestDamagedLogIsRefusedAtTheStart(t *testing.T) {
	for name, change := range map[string]func(db logDB) error{
		"entry 20 has checksum": func(db logDB) error {
			var entry raft.Log
			err := db.GetLog(20, &entry)
			entry.Data = append(bytes.Clone(entry.Data), 0)
			return errors.Join(err, db.StoreLog(&entry))
		},
		"entry 21 is missing": func(db logDB) error { return db.DeleteRange(21, 21) },
		"has no checksum": func(db logDB) error {
			var entry raft.Log
			err := db.GetLog(22, &entry)
			entry.Extensions = nil
			return errors.Join(err, db.StoreLog(&entry))
		},
		"the checksum of CurrentTerm": func(db logDB) error { return db.Set(keyCurrentTerm, make([]byte, 12)) },
		"the checksum of LastVoteTerm": func(db logDB) error {
			return db.Set(keyLastVoteTerm, sealedValue(keyCurrentTerm, uint64Bytes(1)))
		},
		"but its term is 0": func(db logDB) error { return db.Set(keyCurrentTerm, sealedValue(keyCurrentTerm, uint64Bytes(0))) },
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, 1, func(c *cluster) { c.timing.Flush = time.Hour })
			_, n := c.leader()
			for i := range 40 {
				mustPut(t, n, key(i))
			}
			n.fail(errors.New("ended without a last flush"))
			_ = n.Close(context.Background())
			c.nodes[0] = nil
			store, err := openLog(filepath.Join(c.folder(0), "raft.db"), func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(change(store.db), store.Close()); err != nil {
				t.Fatal(err)
			}
			n, err = Open(c.config(0))
			if err == nil {
				c.nodes[0] = n
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "raft.db") {
				t.Errorf("opened with %v; want that %s", err, name)
			}
		})
	}
}

// Files from before there were checksums are taken, and have them from then on.
func TestLogWithoutChecksumsIsTaken(t *testing.T) {
	db := memoryLog{raft.NewInmemStore()}
	for i := uint64(1); i <= 3; i++ {
		if err := db.StoreLog(&raft.Log{Index: i, Term: 2}); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(db.Set(keyCurrentTerm, uint64Bytes(2)), db.Set(keyLastVoteTerm, uint64Bytes(2)), db.Set(keyLastVoteCand, []byte("a:1"))); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s, err := guardLog(db, "log", func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		term, err := s.GetUint64(keyCurrentTerm)
		vote, voteErr := s.Get(keyLastVoteCand)
		if err != nil || voteErr != nil || term != 2 || string(vote) != "a:1" || s.checkedFrom != 4 {
			t.Errorf("term %d, vote %q, checked from %d: %v, %v", term, vote, s.checkedFrom, err, voteErr)
		}
		if err := s.GetLog(3, &raft.Log{}); err != nil {
			t.Errorf("an entry from before: %v", err)
		}
	}
}
