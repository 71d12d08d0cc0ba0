package raftfsm

import (
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	wal "github.com/hashicorp/raft-wal"
	"github.com/hashicorp/raft-wal/types"
)

// mistakeTime is how long what must not happen gets the time to happen.
const mistakeTime = 100 * time.Millisecond

// slowWAL makes a segment slowly once armed, unless another one is made meanwhile.
type slowWAL struct {
	types.VFS
	armed atomic.Bool
	again chan struct{}
}

func (s *slowWAL) Create(dir, name string, size uint64) (types.WritableFile, error) {
	if s.armed.Swap(false) {
		select {
		case <-s.again:
		case <-time.After(mistakeTime):
		}
		return s.VFS.Create(dir, name, size)
	}
	file, err := s.VFS.Create(dir, name, size)
	select {
	case s.again <- struct{}{}:
	default:
	}
	return file, err
}

// raft drops old entries beside the goroutine that appends. Where the disk is full for the one, the other must not go on
// with what is open: raft-wal may make the next segment behind its back, when the log is opened anew for another write, and
// the file of the one would be removed that the other has begun.
func TestFullDiskOfOneWriterOfWAL(t *testing.T) {
	dir, faults, slow := filepath.Join(t.TempDir(), "wal"), &faultyWAL{}, &slowWAL{again: make(chan struct{}, 1)}
	options := faults.options()
	options.files = func(files types.VFS) types.VFS { slow.VFS = files; return slow }
	log, err := openWAL(dir, options, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	next := uint64(1)
	entries := func(n int) (list []*raft.Log) {
		for range n {
			list = append(list, sealed([]*raft.Log{{Index: next, Term: 1, Data: make([]byte, 100)}})...)
			next++
		}
		return list
	}
	db, dropped := log.db.(*walDB), make(chan struct{})
	if err := db.StoreLogs(entries(8)); err != nil {
		t.Fatal(err)
	}
	<-slow.again // the first segment
	err = db.write(func(open *wal.WAL) error {
		faults.list.Store(noSpaceTo("write"))
		go func() {
			defer close(dropped)
			_ = db.DeleteRange(1, 4)
		}()
		select {
		case <-dropped: // without success
		case <-time.After(mistakeTime):
		}
		faults.list.Store(nil)
		slow.armed.Store(true)
		return open.StoreLogs(entries(smallSegment / 100)) // ends the segment
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.StoreLogs(entries(8)); err != nil {
		t.Fatal(err)
	}
	<-dropped
	if err := log.Close(); err != nil {
		t.Error(err)
	}
	opened, err := openWAL(dir, (&faultyWAL{}).options(), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = opened.Close() }()
	for i := uint64(5); i < next; i++ {
		if err := opened.GetLog(i, new(raft.Log)); err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
	}
}
