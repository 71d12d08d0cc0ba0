package raftfsm

import (
	"path/filepath"
	"sync"
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

// gatedWAL finds no space once, and then lets no segment be opened before the gate is.
type gatedWAL struct {
	types.VFS
	full    atomic.Bool
	opening chan struct{}
	gate    chan struct{}
}

func (g *gatedWAL) Create(dir, name string, size uint64) (types.WritableFile, error) {
	file, err := g.VFS.Create(dir, name, size)
	return &gatedWALFile{file, g}, err
}

func (g *gatedWAL) OpenWriter(dir, name string) (types.WritableFile, error) {
	select {
	case g.opening <- struct{}{}:
	default:
	}
	<-g.gate
	return g.VFS.OpenWriter(dir, name)
}

type gatedWALFile struct {
	types.WritableFile
	files *gatedWAL
}

func (f *gatedWALFile) WriteAt(data []byte, at int64) (int, error) {
	if f.files.full.Swap(false) {
		n, _ := f.WritableFile.WriteAt(data[:len(data)/2], at)
		return n, *noSpaceTo("write")
	}
	return f.WritableFile.WriteAt(data, at)
}

// A log that found no space is opened anew beside those who write and read: raft must answer heartbeats meanwhile.
func TestWALIsOpenedAnewBesideItsUsers(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "wal")
	files := &gatedWAL{opening: make(chan struct{}, 1), gate: make(chan struct{})}
	options := (&faultyWAL{}).options()
	options.files = func(v types.VFS) types.VFS { files.VFS = v; return files }
	log, err := openWAL(dir, options, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	open := sync.OnceFunc(func() { close(files.gate) })
	defer func() {
		open()
		if err := log.Close(); err != nil {
			t.Error(err)
		}
	}()
	for i := uint64(1); i <= 8; i++ {
		files.full.Store(i == 8)
		if err := log.StoreLog(&raft.Log{Index: i, Term: 1, Data: walData(i)}); (err != nil) != (i == 8) {
			t.Fatalf("entry %d: %v", i, err)
		}
	}
	select {
	case <-files.opening:
	case <-time.After(10 * time.Second):
		t.Fatal("nothing opens the log before the next write")
	}
	read := make(chan error, 1)
	go func() { read <- log.GetLog(7, new(raft.Log)) }()
	select {
	case err := <-read:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("a read waits for the log to be opened anew")
	}
	open()
	if err := log.StoreLog(&raft.Log{Index: 8, Term: 1, Data: walData(8)}); err != nil {
		t.Error(err)
	}
	for i := uint64(1); i <= 8; i++ {
		if err := log.GetLog(i, new(raft.Log)); err != nil {
			t.Errorf("entry %d: %v", i, err)
		}
	}
}
