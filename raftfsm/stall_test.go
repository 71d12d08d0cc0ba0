package raftfsm

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

// Who sends a snapshot to a member that stops reading, or that doesn't answer, gives up.
func TestSenderOfASnapshotGivesUp(t *testing.T) {
	for _, tt := range []struct {
		name  string
		reads bool
		size  int64
		limit time.Duration
	}{
		{"nothing is read", false, 160 << 20, sendStall},
		{"a small one is not answered", true, 1 << 20, transportTimeout},
		{"a large one is not answered", true, 160 << 20, 4 * transportTimeout},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a, b := testTransports(t, transportTimeout)
				go func() {
					rpc := <-b.Consumer()
					if tt.reads {
						_, _ = io.Copy(io.Discard, rpc.Reader)
					}
				}()
				began := time.Now()
				req := &raft.InstallSnapshotRequest{Size: tt.size}
				err := a.InstallSnapshot("b", "b:1", req, &raft.InstallSnapshotResponse{}, struct{ io.Reader }{bytes.NewReader(make([]byte, tt.size))})
				if err == nil || !strings.Contains(err.Error(), "timeout") {
					t.Errorf("it ended with %v", err)
				}
				if took := time.Since(began); took != tt.limit {
					t.Errorf("it gave up after %s, want %s", took, tt.limit)
				}
			})
		})
	}
}

// A member whose feeder falls silent drops what it has received, takes part in the cluster again, and is fed later.
func TestMemberDropsASnapshotThatStalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, leader, behind := lagging(t)
		for i := range 100 {
			if _, err := put(within(t, time.Minute), leader, key(i), strings.Repeat("x", 64<<10)); err != nil {
				t.Fatal(err)
			}
		}
		from, to := leader.cfg.RaftAddr, c.servers[behind].RaftAddr
		c.net.Delay(from, to, 200*time.Millisecond)
		n := c.start(behind)
		received := filepath.Join(c.folder(behind), "install.db")
		there := func() bool { _, err := os.Stat(received); return err == nil }
		eventually(t, "a part of the snapshot is received", there)
		c.net.Hold(from, to)
		held := time.Now()
		eventually(t, "what was received is dropped", func() bool { return !there() })
		if took := time.Since(held); took > receiveStall+time.Second {
			t.Errorf("it took %s", took)
		}
		c.net.Release(from, to)
		c.net.Delay(from, to, 0)
		eventually(t, "the member catches up", func() bool { return len(get(n.View(), key(99))) == 64<<10 })
		if err := n.Err(); err != nil {
			t.Error(err)
		}
	})
}

// Silence between requests, and while a request is worked on, is no stall.
func TestConnectionsWaitForRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := testTransports(t, time.Second)
		go func() {
			for range 3 {
				rpc := <-b.Consumer()
				time.Sleep(time.Second / 2)
				rpc.Respond(&raft.AppendEntriesResponse{Success: true}, nil)
			}
		}()
		for range 3 {
			if err := a.AppendEntries("b", "b:1", &raft.AppendEntriesRequest{Term: 1}, &raft.AppendEntriesResponse{}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Hour)
		}
	})
}
