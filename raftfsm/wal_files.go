package raftfsm

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

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
