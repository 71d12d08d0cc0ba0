package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func withWAL(c *cluster) {
	c.configure = func(_ int, cfg *Config) { cfg.LogStore = LogStoreWAL }
}

// A data folder keeps the kind of log that it began with: opened with the other one, a member would find no log.
func TestLogStoreIsKept(t *testing.T) {
	for have, asked := range map[LogStore]LogStore{LogStoreBolt: LogStoreWAL, LogStoreWAL: LogStoreBolt} {
		c := newCluster(t, 1, func(c *cluster) { c.configure = func(_ int, cfg *Config) { cfg.LogStore = have } })
		c.leader()
		c.stop(0)
		cfg := c.config(0)
		cfg.LogStore = asked
		_, err := Open(cfg)
		if wrong, ok := errors.AsType[*LogStoreError](err); !ok || wrong.Have != have || wrong.Asked != asked {
			t.Errorf("a folder with %s opened with %s: %v", have, asked, err)
		}
		c.start(0)
		c.leader()
		c.stop(0)
	}
}

// Members with segment files take over, catch up and restart as others do.
func TestClusterOnWAL(t *testing.T) {
	c := newCluster(t, 3, withWAL)
	i, leader := c.leader()
	for k := range 50 {
		if _, err := put(within(t, 10*time.Second), leader, key(k), "1"); err != nil {
			t.Fatal(err)
		}
	}
	c.stop(i)
	_, next := c.leader()
	for k := range 50 {
		if _, err := put(within(t, 10*time.Second), next, key(k), "2"); err != nil {
			t.Fatal(err)
		}
	}
	again := c.start(i)
	eventually(t, "the member has caught up", func() bool { return get(again.View(), key(49)) == "2" })
}

const walEntries = 20

// walOf makes a log of entries, each a batch of its own, and returns the folder that a kill of its process leaves, and
// the file that is written to.
func walOf(t *testing.T) (dir, tail string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "wal")
	log, err := openWALForTest(dir)
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= walEntries; i++ {
		if err := log.StoreLog(&raft.Log{Index: i, Term: 1, Data: walData(i)}); err != nil {
			t.Fatal(err)
		}
	}
	open := dir
	dir = copyFolder(t, open)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err != nil || len(segments) != 1 {
		t.Fatalf("segments %v, %v", segments, err)
	}
	return dir, segments[0]
}

func walData(i uint64) []byte {
	random := rand.New(rand.NewPCG(i, 1))
	b := make([]byte, 100+random.IntN(200))
	for j := range b {
		b[j] = byte(random.Uint32())
	}
	return b
}

func openWALForTest(dir string) (*logStore, error) {
	return openWAL(dir, walOptions{segment: 64 << 10, logger: hclog.NewNullLogger()}, func(error) {})
}

// written returns the part of a segment that batches take, and where the last batch begins.
func written(t *testing.T, data []byte) (end, last int) {
	t.Helper()
	offset := walFileHead
	for range walEntries {
		last = offset
		_, n := walFrame(data[offset:])
		offset += walFrameHead + (int(n)+7)&^7 + walFrameHead
	}
	if binary.LittleEndian.Uint64(data[offset:]) != 0 {
		t.Fatal("something stands behind the last batch")
	}
	return offset, last
}

// readWAL opens a log and reads all of it. lastEntry is that of the log.
func readWAL(dir string) (lastEntry uint64, err error) {
	log, err := openWALForTest(dir)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, log.Close()) }()
	if lastEntry, err = log.LastIndex(); err != nil {
		return 0, err
	}
	for i := uint64(1); i <= lastEntry; i++ {
		var entry raft.Log
		if err := log.GetLog(i, &entry); err != nil {
			return 0, err
		}
		if string(entry.Data) != string(walData(i)) {
			return 0, fmt.Errorf("entry %d is another one", i)
		}
	}
	return lastEntry, nil
}

// A crash cuts the last write short: it was not acknowledged, and what was before it is there. Nothing is left of it: behind
// a shorter write the rest would be taken for the end of the log.
func TestCutWriteOfWALIsDropped(t *testing.T) {
	random := seedOf(t)
	whole, tail := walOf(t)
	for range 50 {
		dir := copyFolder(t, whole)
		tail := filepath.Join(dir, filepath.Base(tail))
		data, err := os.ReadFile(tail)
		if err != nil {
			t.Fatal(err)
		}
		end, last := written(t, data)
		clear(data[last+random.IntN(end-last):])
		if err := os.WriteFile(tail, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readWAL(dir)
		if err != nil || got < walEntries-1 {
			t.Fatalf("the log ends at %d, %v; want %d", got, err, walEntries-1)
		}
		if data, err = os.ReadFile(tail); err != nil || got < walEntries && !allZero(data[last:]) {
			t.Fatalf("the remains of the write are still there, %v", err)
		}
	}
}

// Rule 1: whatever is damaged, no entry before the last write is lost silently. raft-wal alone would cut the log there.
func TestDamagedWALIsRefused(t *testing.T) {
	random := seedOf(t)
	refused := 0
	whole, tail := walOf(t)
	for range 300 {
		dir := copyFolder(t, whole)
		tail := filepath.Join(dir, filepath.Base(tail))
		data, err := os.ReadFile(tail)
		if err != nil {
			t.Fatal(err)
		}
		end, _ := written(t, data)
		at := random.IntN(end)
		data[at] ^= 1 << random.IntN(8)
		if err := os.WriteFile(tail, data, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readWAL(dir)
		switch {
		case errors.Is(err, ErrDamaged):
			refused++
		case err != nil:
			t.Fatalf("byte %d flipped: %v, want ErrDamaged", at, err)
		case got < walEntries-1:
			t.Fatalf("byte %d of %d flipped: the log silently ends at %d of %d", at, end, got, walEntries)
		}
	}
	if refused < 200 {
		t.Errorf("only %d of 300 damaged logs were refused", refused)
	}
}

func TestEmptyListOfSegmentsIsRefused(t *testing.T) {
	dir, _ := walOf(t)
	path := filepath.Join(dir, "wal-meta.db")
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and the attempt leaves it as it is
		if _, err := openWALForTest(dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "it is empty") {
			t.Errorf("an empty list of segments: %v", err)
		}
	}
}

func TestWALWithoutItsListOfSegmentsIsRefused(t *testing.T) {
	dir, tail := walOf(t)
	if err := os.Remove(filepath.Join(dir, "wal-meta.db")); err != nil {
		t.Fatal(err)
	}
	for range 2 { // and the attempt makes none
		if _, err := openWALForTest(dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "wal-meta.db is missing") {
			t.Errorf("a log without its list of segments: %v", err)
		}
	}
	if _, err := os.Stat(tail); err != nil {
		t.Errorf("the entries were removed: %v", err)
	}
}
