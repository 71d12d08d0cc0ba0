package raftfsm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft-wal/types"
)

// walFiles are the segment files on a disk.
type walFiles struct {
	types.VFS
	// failed is told why a segment could not be made: raft-wal only logs it where a segment ends.
	failed func(error)
}

// Create makes a segment that is in its folder for good. Where the disk has no space for all of it, it gets that when it
// is written to.
func (f *walFiles) Create(dir, name string, size uint64) (types.WritableFile, error) {
	file, err := f.create(dir, name, size)
	if err != nil && f.failed != nil {
		f.failed(err)
	}
	return file, err
}

func (f *walFiles) create(dir, name string, size uint64) (types.WritableFile, error) {
	path := filepath.Join(dir, name)
	file, err := f.VFS.Create(dir, name, size)
	if noSpace(err) {
		file, err = f.createEmpty(dir, name, size)
	}
	if err == nil {
		if err = syncDir(dir); err == nil {
			return file, nil
		}
		err = errors.Join(err, file.Close())
	}
	if removed := os.Remove(path); !errors.Is(removed, fs.ErrNotExist) {
		err = errors.Join(err, removed)
	}
	return nil, err
}

// createEmpty makes a file of a size that takes no space.
func (f *walFiles) createEmpty(dir, name string, size uint64) (types.WritableFile, error) {
	path := filepath.Join(dir, name)
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // a file of the data folder
	if err != nil {
		return nil, err
	}
	if err := errors.Join(file.Truncate(int64(size)), file.Close()); err != nil { //nolint:gosec // the size of a segment
		return nil, err
	}
	return f.OpenWriter(dir, name)
}

// OpenWriter opens a segment that is written to. raft-wal reads it through when it opens the log.
func (f *walFiles) OpenWriter(dir, name string) (types.WritableFile, error) {
	file, err := f.VFS.OpenWriter(dir, name)
	if err != nil {
		return nil, err
	}
	return &walReadAhead{WritableFile: file, fresh: true}, nil
}

// readStep is how much of a segment is read at once.
const readStep = 256 << 10

// walReadAhead reads a file in large steps until it is written to: raft-wal asks for the few bytes of each frame on its own,
// which took a second for a segment of small entries.
type walReadAhead struct {
	types.WritableFile

	mu sync.Mutex
	// chunk are the bytes of the file from a place on; none once the file is not fresh.
	chunk []byte
	from  int64
	fresh bool
}

// ReadAt implements io.ReaderAt.
func (r *walReadAhead) ReadAt(p []byte, at int64) (int, error) {
	if len(p) <= walFileHead && r.readAhead(p, at) {
		return len(p), nil
	}
	return r.WritableFile.ReadAt(p, at)
}

// readAhead fills p; false where it can't.
func (r *walReadAhead) readAhead(p []byte, at int64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.fresh {
		return false
	}
	if end := at + int64(len(p)); at < r.from || end > r.from+int64(len(r.chunk)) {
		if r.chunk == nil {
			r.chunk = make([]byte, readStep)
		}
		n, _ := r.WritableFile.ReadAt(r.chunk[:readStep], at) // an error comes again without the chunk
		r.chunk, r.from = r.chunk[:n], at
		if n < len(p) {
			return false
		}
	}
	copy(p, r.chunk[at-r.from:])
	return true
}

// WriteAt implements io.WriterAt.
func (r *walReadAhead) WriteAt(p []byte, at int64) (int, error) {
	r.mu.Lock()
	r.chunk, r.fresh = nil, false
	r.mu.Unlock()
	return r.WritableFile.WriteAt(p, at)
}
