package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
	"golang.org/x/sys/unix"
)

// What raft-wal takes for granted when it opens a log is looked at before, and what a crash has left half done is done:
//   - A segment that is missing or too short is refused; raft-wal makes a new one, or ends the log there.
//   - So is a log that ends before an entry of which it is noted that it was on the disk.
//   - What a cut write has left is overwritten with zeros. raft-wal writes over it, so behind a shorter batch some of it
//     would stay, and be read as the end of the log: a batch before it is not checked then.
//   - A segment whose end was written, but not yet the list with the next one, gets that. raft-wal refuses every write then.

// requireWALMeta returns an error if segments are there without their list.
func requireWALMeta(dir string) error {
	_, err := os.Stat(filepath.Join(dir, metadb.FileName))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return requireNoSegments(dir, metadb.FileName+" is missing")
}

func requireNoSegments(dir, otherwise string) error {
	segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
	if err == nil && len(segments) > 0 {
		err = damaged(dir, "%s", otherwise)
	}
	return err
}

// mendWAL checks the files of a log and makes them fit to be opened.
func mendWAL(dir string, files types.VFS, meta *walMeta) error {
	list, noted := meta.known()
	last := len(list.Segments) - 1
	if last < 0 {
		if noted > 0 {
			return damaged(dir, "it is empty, but had entries up to %d", noted)
		}
		return requireNoSegments(dir, "its list of segments is empty")
	}
	for i, info := range list.Segments {
		path := filepath.Join(dir, segment.FileName(info))
		switch {
		case i > 0 && list.Segments[i-1].MaxIndex+1 != info.BaseIndex:
			return damaged(dir, "segments end at entry %d and begin at %d", list.Segments[i-1].MaxIndex, info.BaseIndex)
		case info.SealTime.IsZero() != (i == last):
			return damaged(dir, "segment %d of %d is not the one that is written to", i+1, last+1)
		case i < last:
			if err := checkEnded(path, info); err != nil {
				return err
			}
		}
	}
	return (&walMender{dir: dir, files: files, meta: meta, noted: noted}).tail(list)
}

// walMender makes the segment fit that is written to.
type walMender struct {
	dir   string
	files types.VFS
	meta  *walMeta
	noted uint64
}

func (m *walMender) tail(list types.PersistentState) error {
	info := list.Segments[len(list.Segments)-1]
	path := filepath.Join(m.dir, segment.FileName(info))
	tail, size, err := openTail(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := m.check(path, info, tail, size, err == nil); err != nil {
		return err
	}
	switch {
	case err != nil:
		return m.create(info)
	case size < int64(info.SizeLimit): // without an entry: the member ended while it was made
		if err := m.files.Delete(m.dir, segment.FileName(info)); err != nil {
			return err
		}
		return m.create(info)
	case tail.torn > 0:
		if err := m.wipe(segment.FileName(info), int64(tail.end), tail.torn); err != nil {
			return err
		}
	}
	if tail.indexStart == 0 {
		return nil
	}
	list = withNextSegment(list, tail)
	if err := m.meta.CommitState(list); err != nil {
		return err
	}
	return m.tail(list)
}

// check returns an error if entries were in a segment that are not there.
func (m *walMender) check(path string, info types.SegmentInfo, tail walTail, size int64, there bool) error {
	end := info.BaseIndex + tail.entries - 1
	switch {
	case tail.lost:
		return damaged(path, "it can't be read from byte %d on, and whole entries stand behind that", tail.end)
	case tail.entries > 0 && size < int64(info.SizeLimit):
		return damaged(path, "it has %d bytes of %d: its end is missing", size, info.SizeLimit)
	case m.noted > end && !there:
		return damaged(path, "it is missing, and had the entries %d to %d", info.BaseIndex, m.noted)
	case m.noted > end, info.MinIndex > end+1:
		return damaged(path, "the log ends at entry %d, but had entries up to %d", end, max(m.noted, info.MinIndex-1))
	}
	return nil
}

func (m *walMender) create(info types.SegmentInfo) error {
	file, err := m.files.Create(m.dir, segment.FileName(info), uint64(info.SizeLimit))
	if err != nil {
		return err
	}
	return file.Close()
}

// wipe overwrites a part of a segment with zeros, where it has others.
func (m *walMender) wipe(name string, from int64, n int) error {
	file, err := m.files.OpenWriter(m.dir, name)
	if err != nil {
		return err
	}
	const chunk = 4 << 10
	buf, zeros := make([]byte, chunk), make([]byte, chunk)
	for end := from + int64(n); from < end && err == nil; {
		part := min(end, from/chunk*chunk+chunk) - from
		if _, err = file.ReadAt(buf[:part], from); err == nil && !allZero(buf[:part]) {
			_, err = file.WriteAt(zeros[:part], from)
		}
		from += part
	}
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// withNextSegment ends the last segment of a list.
func withNextSegment(list types.PersistentState, tail walTail) types.PersistentState {
	list.Segments = slices.Clone(list.Segments)
	ended := &list.Segments[len(list.Segments)-1]
	ended.SealTime = time.Now()
	ended.IndexStart = tail.indexStart
	ended.MaxIndex = ended.BaseIndex + tail.entries - 1
	list.Segments = append(list.Segments, types.SegmentInfo{
		ID: list.NextSegmentID, BaseIndex: ended.MaxIndex + 1, MinIndex: ended.MaxIndex + 1,
		SizeLimit: ended.SizeLimit, Codec: ended.Codec, CreateTime: ended.SealTime,
	})
	list.NextSegmentID++
	return list
}

// openTail reads the segment that is written to.
func openTail(path string) (tail walTail, size int64, err error) {
	file, err := os.Open(path) //nolint:gosec // a file of the data folder
	if err != nil {
		return walTail{}, 0, err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return walTail{}, 0, err
	}
	// Not the file itself: a page of it that takes no space yet can't be had from some file systems when they are full.
	data, err := syscall.Mmap(-1, 0, int(info.Size()), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_ANON|syscall.MAP_PRIVATE)
	if err != nil {
		return walTail{}, 0, fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = syscall.Munmap(data) }()
	written, err := readWritten(file, data)
	if err != nil {
		return walTail{}, 0, err
	}
	return readTail(data[:written]), info.Size(), nil
}

// readWritten reads a file into zeros, and touches only what of them it changes. It returns the length of what is not zeros,
// or a bit more. What the file system says was never written is not read: that is most of a segment which has just begun.
func readWritten(file *os.File, data []byte) (written int, err error) {
	chunk := make([]byte, readStep)
	for at, end := int64(0), int64(0); at < int64(len(data)); {
		if at >= end {
			if at, end = nextData(file, at, int64(len(data))); at >= end {
				break
			}
		}
		part := chunk[:min(readStep, end-at)]
		if _, err := file.ReadAt(part, at); err != nil {
			return 0, err
		}
		if !allZero(part) {
			written = int(at) + copy(data[at:], part)
		}
		at += int64(len(part))
	}
	return written, nil
}

// nextData returns where a file has data from a place on, and until where; all of the rest where the file system doesn't say.
func nextData(file *os.File, from, size int64) (begin, end int64) {
	begin, err := file.Seek(from, unix.SEEK_DATA)
	if errors.Is(err, syscall.ENXIO) {
		return size, size
	}
	if err != nil || begin < from {
		return from, size
	}
	if end, err = file.Seek(begin, unix.SEEK_HOLE); err != nil || end <= begin {
		return begin, size
	}
	return begin, min(end, size)
}

// checkEnded checks a segment that has ended: that it is as long as it was, and that its index, by which entries are
// found, is one. Entries have checksums of their own, which are checked when they are read.
func checkEnded(path string, info types.SegmentInfo) error {
	file, err := os.Open(path) //nolint:gosec // a file of the data folder
	if errors.Is(err, fs.ErrNotExist) {
		return damaged(path, "it is missing, and had the entries %d to %d", info.MinIndex, info.MaxIndex)
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	entries := info.MaxIndex - info.BaseIndex + 1
	if info.MaxIndex < info.BaseIndex || info.IndexStart < walFileHead+walFrameHead {
		return damaged(path, "it is listed with %d entries and an index at byte %d", entries, info.IndexStart)
	}
	reader := io.NewSectionReader(file, int64(info.IndexStart)-walFrameHead, 1<<32) //nolint:gosec // a place in a file
	err = checkIndex(reader, info.IndexStart, entries)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = errors.New("its end is missing")
	}
	if err != nil {
		return damaged(path, "entries %d to %d: %v", info.BaseIndex, info.MaxIndex, err)
	}
	return nil
}

// checkIndex reads the index of an ended segment and the end of the batch that it is in.
func checkIndex(from io.Reader, start, entries uint64) error {
	head := make([]byte, walFrameHead)
	if _, err := io.ReadFull(from, head); err != nil {
		return err
	}
	kind, n := walFrame(head)
	if kind != segment.FrameIndex || uint64(n)%4 != 0 || uint64(n)/4 < entries || uint64(n) > start {
		return errors.New("there is no index where it was")
	}
	index := make([]byte, (int(n)+7)&^7+walFrameHead)
	if _, err := io.ReadFull(from, index); err != nil {
		return err
	}
	if kind, _ := walFrame(index[len(index)-walFrameHead:]); kind != segment.FrameCommit {
		return errors.New("its last write is not whole")
	}
	next := uint64(walFileHead)
	for i := range entries {
		at := uint64(binary.LittleEndian.Uint32(index[4*i:]))
		if at < next || i == 0 && at != next || at%8 != 0 || at >= start-walFrameHead {
			return fmt.Errorf("its index has byte %d for entry %d", at, i+1)
		}
		next = at + walFrameHead
	}
	return nil
}
