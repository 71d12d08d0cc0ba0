package raftfsm

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Rule 1: the log of another member has another vote, so a member that is given one doesn't start.
func TestLogOfAnotherMemberIsRefused(t *testing.T) {
	for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
		t.Run(string(kind), func(t *testing.T) {
			c := newCluster(t, 3, func(c *cluster) { c.configure = func(_ int, cfg *Config) { cfg.LogStore = kind } })
			_, leader := c.leader()
			mustPut(t, leader, key(0))
			for i := range 3 {
				c.stop(i)
			}
			name := "raft.db"
			if kind == LogStoreWAL {
				name = "wal"
			}
			own, other := filepath.Join(c.folder(0), name), filepath.Join(c.folder(1), name)
			aside := filepath.Join(t.TempDir(), name)
			if err := errors.Join(os.Rename(own, aside), os.Rename(other, own)); err != nil {
				t.Fatal(err)
			}
			n, err := Open(c.config(0))
			if err == nil {
				_ = n.Close(context.Background())
			}
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "is not the log of this folder") {
				t.Errorf("opened with the log of another member: %v", err)
			}
			if err := errors.Join(os.Rename(own, other), os.Rename(aside, own)); err != nil {
				t.Fatal(err)
			}
			nonce := memberFileOf(t, c.folder(0)).Nonce
			if err := os.Remove(filepath.Join(c.folder(0), memberFileName)); err != nil {
				t.Fatal(err)
			}
			for i := range 3 {
				c.start(i)
			}
			c.leader()
			if got := memberFileOf(t, c.folder(0)).Nonce; got != nonce {
				t.Errorf("the folder has the number %d after its file was lost, had %d", got, nonce)
			}
		})
	}
}

func memberFileOf(t *testing.T, dir string) *memberFile {
	t.Helper()
	f, err := openMemberFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	return f
}
