package raftfsm

import (
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/types"

	"github.com/metasrv/metasrv"
)

// faultyWAL has calls to the disk fail that make a segment, list segments or write to one.
type faultyWAL struct {
	types.VFS
	create, list, write atomic.Pointer[error]
}

func (f *faultyWAL) options() walOptions {
	return walOptions{
		segment: smallSegment, logger: hclog.NewNullLogger(),
		files: func(files types.VFS) types.VFS { f.VFS = files; return f },
		aroundMeta: func(write func() error) error {
			if err := f.list.Load(); err != nil {
				return *err
			}
			return write()
		},
	}
}

func (f *faultyWAL) Create(dir, name string, size uint64) (types.WritableFile, error) {
	if err := f.create.Load(); err != nil {
		f.VFS.(*walFiles).failed(*err)
		return nil, *err
	}
	file, err := f.VFS.Create(dir, name, size)
	return &faultyWALFile{file, f}, err
}

func (f *faultyWAL) OpenWriter(dir, name string) (types.WritableFile, error) {
	file, err := f.VFS.OpenWriter(dir, name)
	return &faultyWALFile{file, f}, err
}

type faultyWALFile struct {
	types.WritableFile
	faults *faultyWAL
}

// WriteAt writes half where it fails.
func (f *faultyWALFile) WriteAt(data []byte, at int64) (int, error) {
	if err := f.faults.write.Load(); err != nil {
		n, _ := f.WritableFile.WriteAt(data[:len(data)/2], at)
		return n, *err
	}
	return f.WritableFile.WriteAt(data, at)
}

func noSpaceTo(op string) *error {
	err := error(&fs.PathError{Op: op, Path: "wal", Err: syscall.ENOSPC})
	return &err
}

// A disk that is full at any call of a log leaves a log that takes writes again, without a restart, and has all entries
// that it took.
func TestFullDiskAtAnyCallOfWAL(t *testing.T) {
	for name, fault := range map[string]func(*faultyWAL) *atomic.Pointer[error]{
		"making the next segment": func(f *faultyWAL) *atomic.Pointer[error] { return &f.create },
		"listing it":              func(f *faultyWAL) *atomic.Pointer[error] { return &f.list },
		"writing":                 func(f *faultyWAL) *atomic.Pointer[error] { return &f.write },
	} {
		t.Run(name, func(t *testing.T) {
			random, faults := seedOf(t), &faultyWAL{}
			dir := filepath.Join(memoryDir(t), "wal")
			log, err := openWAL(dir, faults.options(), func(err error) { t.Error(err) })
			if err != nil {
				t.Fatal(err)
			}
			log.disk = newDisk("a", dir, 0, testLogger())
			refused, m := 0, walModel{}
			for round := range 400 {
				full := round%4 != 0 && round < 396
				fault(faults).Store(nil)
				if full {
					fault(faults).Store(noSpaceTo("write"))
				}
				after, do := m.change(random, log)
				if full && after.term != m.term {
					continue // which waits for space
				}
				err := do()
				if err == nil {
					m = after
					continue
				}
				refused++
				if !full || !errors.Is(err, metasrv.ErrDiskFull) && !isDiskFull(err) {
					t.Fatalf("round %d, full: %v, ended with %v", round, full, err)
				}
				if got, err := modelOf(log); err != nil || !got.equal(m) && !got.equal(after) {
					t.Fatalf("round %d: what can be read of a full disk is %s %v; want %s", round, describeModels([]walModel{got}), err, describeModels([]walModel{m}))
				}
				fault(faults).Store(nil)
				if err := do(); err != nil {
					t.Fatalf("round %d, with space: %v", round, err)
				}
				m = after
			}
			if refused < 10 {
				t.Errorf("only %d calls were refused", refused)
			}
			for _, what := range []string{"open", "opened again"} {
				if got, err := modelOf(log); err != nil || !got.equal(m) {
					t.Fatalf("%s: the log has %s %v; want %s", what, describeModels([]walModel{got}), err, describeModels([]walModel{m}))
				}
				if err := log.Close(); err != nil {
					t.Fatal(err)
				}
				if log, err = openWAL(dir, (&faultyWAL{}).options(), func(err error) { t.Error(err) }); err != nil {
					t.Fatal(err)
				}
			}
			_ = log.Close()
		})
	}
}

// What raft-wal only logs where a segment ends, the next write returns: nothing is known of the disk then.
func TestFailureBehindAnEndedSegmentEndsTheMember(t *testing.T) {
	for name, fault := range map[string]func(*faultyWAL) *atomic.Pointer[error]{
		"making the next segment": func(f *faultyWAL) *atomic.Pointer[error] { return &f.create },
		"listing it":              func(f *faultyWAL) *atomic.Pointer[error] { return &f.list },
	} {
		t.Run(name, func(t *testing.T) {
			faults := &faultyWAL{}
			var failure error
			log, err := openWAL(filepath.Join(t.TempDir(), "wal"), faults.options(), func(err error) { failure = err })
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = log.Close() }()
			if err := log.StoreLog(&raft.Log{Index: 1, Term: 1}); err != nil {
				t.Fatal(err)
			}
			failed := error(&fs.PathError{Op: "sync", Path: "wal", Err: syscall.EIO})
			fault(faults).Store(&failed)
			for i := uint64(2); failure == nil && i < 1000; i++ {
				err = log.StoreLog(&raft.Log{Index: i, Term: 1, Data: walData(i)})
			}
			fault(faults).Store(nil)
			if !errors.Is(failure, syscall.EIO) || !errors.Is(err, syscall.EIO) || !strings.Contains(failure.Error(), "check the disk") {
				t.Errorf("the member ended with %v, the write with %v", failure, err)
			}
			if again := log.StoreLog(&raft.Log{Index: 1000, Term: 1}); !errors.Is(again, syscall.EIO) {
				t.Errorf("a write after the failure: %v", again)
			}
		})
	}
}

// A member that starts on a full disk says so, and what to do.
func TestStartOfWALOnAFullDisk(t *testing.T) {
	dir, faults := filepath.Join(t.TempDir(), "wal"), &faultyWAL{}
	faults.list.Store(noSpaceTo("write"))
	const want = "is full; make space there, then start the member again"
	if _, err := openWAL(dir, faults.options(), func(error) {}); !errors.Is(err, metasrv.ErrDiskFull) || !strings.Contains(err.Error(), want) {
		t.Errorf("opened with %v; want that it %s", err, want)
	}
	log, err := openWAL(dir, (&faultyWAL{}).options(), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatalf("with space: %v", err)
	}
	_ = log.Close()
	for _, key := range [][]byte{keyCurrentTerm, keyCheckedFrom} {
		full := fullLog{memoryLog{raft.NewInmemStore()}, string(key)}
		if _, err := guardLog(full, "log", func(error) {}); !errors.Is(err, metasrv.ErrDiskFull) || !strings.Contains(err.Error(), want) {
			t.Errorf("a log without %s opened with %v; want that it %s", key, err, want)
		}
	}
}

// fullLog has no space for one of raft's values.
type fullLog struct {
	memoryLog
	key string
}

func (f fullLog) Set(key, value []byte) error {
	if string(key) == f.key {
		return *noSpaceTo("write")
	}
	return f.memoryLog.Set(key, value)
}
