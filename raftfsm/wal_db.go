package raftfsm

import (
	"errors"
	"math"
	"os"
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
	wal "github.com/hashicorp/raft-wal"
	walfs "github.com/hashicorp/raft-wal/fs"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// walSegment is the size in bytes at which a segment file ends and the next one begins.
const walSegment = 64 << 20

// walOptions say how a log of segment files is opened.
type walOptions struct {
	segment int
	logger  hclog.Logger
	// files and aroundMeta let tests look at what is written, aroundMeta at each change of the list of segments.
	files      func(types.VFS) types.VFS
	aroundMeta func(write func() error) error
}

// openWAL opens the log of a member in a folder of segment files. fail is called where the member can't go on.
func openWAL(dir string, o walOptions, fail func(error)) (*logStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	db, err := openWALDB(dir, o)
	if err != nil {
		return nil, openError(dir, err)
	}
	log, err := guardLog(db, dir, fail)
	if err == nil {
		log.noteEnd = db.noteEnd
	}
	return log, err
}

// walDB gives raft-wal the answers of raft-boltdb, and opens it anew behind a write that has failed: what raft-wal has in
// memory is not what is in the files then. It would write behind the remains of a write, or take a segment for ended
// whose end was not written, or for one that is written to whose end was.
type walDB struct {
	dir     string
	options walOptions
	files   types.VFS
	meta    *walMeta

	// writing is held during a write, and while the log is opened anew. raft drops old entries beside the goroutine that appends, and neither may go on with
	// what is open where the other one has failed.
	writing diskLock
	// reopening has what opens the log anew beside the writers.
	reopening sync.WaitGroup

	// mu is held for writing while log is exchanged.
	mu  sync.RWMutex
	log *wal.WAL

	// ends is held while entries are dropped at the end, and while it is noted where the end is.
	ends sync.Mutex

	failureMu sync.Mutex
	// stale: a write found no space, and log must be opened anew before the next one.
	stale bool
	// failure is any other failure of a write. None is tried after it.
	failure error
}

func openWALDB(dir string, o walOptions) (*walDB, error) {
	if err := requireWALMeta(dir); err != nil {
		return nil, err
	}
	meta, err := openWALMeta(dir)
	if err != nil {
		return nil, err
	}
	w := &walDB{dir: dir, options: o, meta: meta, writing: make(diskLock, 1)}
	w.files = &walFiles{VFS: walfs.New(), failed: w.failed}
	if o.files != nil {
		w.files = o.files(w.files)
	}
	meta.failed, meta.around = w.failed, o.aroundMeta
	if w.log, err = w.open(); err != nil {
		return nil, errors.Join(err, meta.close())
	}
	return w, nil
}

// open checks and mends the files and opens them.
func (w *walDB) open() (log *wal.WAL, err error) {
	if err := mendWAL(w.dir, w.files, w.meta); err != nil {
		return nil, err
	}
	err = guarded(w.dir, func() (err error) {
		log, err = wal.Open(w.dir, wal.WithLogger(w.options.logger), wal.WithSegmentSize(w.options.segment),
			wal.WithMetaStore(w.meta), wal.WithSegmentFiler(segment.NewFiler(w.dir, w.files)))
		return err
	})
	if errors.Is(err, wal.ErrCorrupt) {
		return nil, damaged(w.dir, "%v", err)
	}
	if err != nil {
		return nil, err
	}
	// Where the process ended before, files may be there that are not in the folder for good.
	if err := syncDir(w.dir); err != nil {
		return nil, errors.Join(err, log.Close())
	}
	return log, nil
}

// failed notes why a write has failed.
func (w *walDB) failed(err error) {
	w.failureMu.Lock()
	defer w.failureMu.Unlock()
	if isDiskFull(err) {
		w.stale = true
	} else if w.failure == nil {
		w.failure = err
	}
}

func (w *walDB) state() (stale bool, failure error) {
	w.failureMu.Lock()
	defer w.failureMu.Unlock()
	return w.stale, w.failure
}

// reopen opens the log anew where it must be; w.writing is held. Reads go on from what was open until it is, also where that
// fails.
func (w *walDB) reopen() error {
	if stale, failure := w.state(); !stale || failure != nil {
		return failure
	}
	log, err := w.open()
	if err != nil {
		w.failed(err)
		return err
	}
	w.mu.Lock()
	old := w.log
	w.log = log
	w.mu.Unlock()
	w.failureMu.Lock()
	w.stale = false
	w.failureMu.Unlock()
	return old.Close()
}

// reopenSoon opens the log anew beside the writers: it takes up to a few tenths of a second, in which raft could not answer
// heartbeats if the next write did it. Where it fails, that write does.
func (w *walDB) reopenSoon() {
	w.reopening.Go(func() {
		w.writing.Lock()
		defer w.writing.Unlock()
		_ = w.reopen()
	})
}

// write runs a call that changes the log.
func (w *walDB) write(call func(*wal.WAL) error) error {
	w.writing.Lock()
	defer w.writing.Unlock()
	for {
		if err := w.reopen(); err != nil {
			return err
		}
		err := call(w.log)
		if err == nil {
			return nil
		}
		if errors.Is(err, wal.ErrSealed) {
			// The segment has ended, and the next one was not begun; the reason is known.
			switch stale, failure := w.state(); {
			case failure != nil:
				return failure
			case stale:
				continue
			}
		}
		w.failed(err)
		if isDiskFull(err) {
			w.reopenSoon()
		}
		return err
	}
}

// StoreLogs appends entries.
func (w *walDB) StoreLogs(logs []*raft.Log) error {
	if err := w.write(func(log *wal.WAL) error { return log.StoreLogs(logs) }); err != nil || len(logs) == 0 {
		return err
	}
	// The first write to a segment is noted, so a segment that was written to is never taken for a new one.
	list, noted := w.meta.known()
	if n := len(list.Segments); n > 0 && noted < list.Segments[n-1].BaseIndex {
		if err := w.noteEnd(); err != nil && !isDiskFull(err) { // else at a later write
			return err
		}
	}
	return nil
}

// StoreLog appends an entry.
func (w *walDB) StoreLog(log *raft.Log) error { return w.StoreLogs([]*raft.Log{log}) }

// DeleteRange drops entries at the front or at the end.
func (w *walDB) DeleteRange(first, last uint64) error {
	w.ends.Lock()
	defer w.ends.Unlock()
	defer w.meta.lower(math.MaxUint64)
	return w.write(func(log *wal.WAL) error {
		begin, err := log.FirstIndex()
		if err != nil {
			return err
		}
		end, err := log.LastIndex()
		if err != nil {
			return err
		}
		switch {
		case last < end: // at the front
		case first <= begin:
			w.meta.lower(0)
		default:
			w.meta.lower(first - 1)
		}
		return log.DeleteRange(first, last)
	})
}

// noteEnd writes down where the log ends, so that it is known at the next start.
func (w *walDB) noteEnd() error {
	w.ends.Lock()
	defer w.ends.Unlock()
	if stale, failure := w.state(); stale || failure != nil {
		return failure
	}
	end, err := w.LastIndex()
	if err != nil {
		return err
	}
	return w.meta.note(end)
}

// FirstIndex returns the index of the first entry, 0 if there is none.
func (w *walDB) FirstIndex() (uint64, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.log.FirstIndex()
}

// LastIndex returns the index of the last entry, 0 if there is none.
func (w *walDB) LastIndex() (uint64, error) {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.log.LastIndex()
}

// GetLog reads an entry.
func (w *walDB) GetLog(index uint64, log *raft.Log) error {
	w.mu.RLock()
	defer w.mu.RUnlock()
	return w.log.GetLog(index, log)
}

// Set stores a value.
func (w *walDB) Set(key, value []byte) error { return w.meta.SetStable(key, value) }

// Get returns a value; raftboltdb.ErrKeyNotFound where there is none.
func (w *walDB) Get(key []byte) ([]byte, error) {
	value, err := w.meta.GetStable(key)
	if err == nil && value == nil {
		err = raftboltdb.ErrKeyNotFound
	}
	return value, err
}

// SetUint64 is not used: values of a logStore carry checksums.
func (w *walDB) SetUint64([]byte, uint64) error { return errors.ErrUnsupported }

// GetUint64 is not used.
func (w *walDB) GetUint64([]byte) (uint64, error) { return 0, errors.ErrUnsupported }

// Close notes where the log ends and closes it.
func (w *walDB) Close() error {
	w.reopening.Wait()
	var err error
	if _, failure := w.state(); failure == nil {
		err = w.noteEnd()
	}
	if isDiskFull(err) {
		err = nil
	}
	return errors.Join(err, w.log.Close(), w.meta.close())
}

var _ logDB = (*walDB)(nil)
