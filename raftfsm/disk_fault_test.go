package raftfsm

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

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
	c.timing.Heartbeat, c.timing.Election, c.timing.LeaderLease = 2*time.Second, 2*time.Second, 1900*time.Millisecond
}

// faultyTimeout is the time after which a disk is taken to hang: longer than any sync of a busy machine takes.
const faultyTimeout = 2 * time.Second

// faultyCluster is a cluster whose logs can be made to fail.
func faultyCluster(t *testing.T, size int) (*cluster, []*faultyLog) {
	logs := make([]*faultyLog, size)
	return newCluster(t, size, func(c *cluster) {
		c.timing.DiskTimeout = faultyTimeout
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
	if err := leader.Err(); !strings.Contains(err.Error(), "raft.db has not returned for "+faultyTimeout.String()+": the disk hangs") {
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
