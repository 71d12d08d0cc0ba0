package raftfsm

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/segment"
	"github.com/hashicorp/raft-wal/types"
)

// raft-wal ends a log at the first place of its last segment that it can't read: it takes that for the trace of a write
// that a crash cut short. So a flipped bit in the middle would silently cost every entry behind it, which were
// acknowledged. What a cut write leaves is the last batch, and no batch is begun before the one before is on the disk.
// So a log is damaged if a whole batch stands behind the place. Damage within the last batch can't be told from a cut
// write. Earlier segments are not cut: their records have checksums, see unseal.

// Frames of a segment, as raft-wal writes them: a type, three zeros, and the length of what follows, or at the end of a
// batch the checksum of the batch. They begin at multiples of eight bytes.
const (
	walFileHead  = 32
	walFrameHead = 8
)

// checkWAL returns an error if the files of a log can't have been left by a crash.
func checkWAL(dir string) error {
	meta := filepath.Join(dir, metadb.FileName)
	if _, err := os.Stat(meta); errors.Is(err, fs.ErrNotExist) {
		segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
		if err == nil && len(segments) > 0 {
			err = damaged(dir, "%s is missing", metadb.FileName)
		}
		return err
	}
	if err := checkBolt(meta, metadb.MetaBucket, metadb.StableBucket); err != nil {
		return err
	}
	var files types.PersistentState
	err := guarded(dir, func() (err error) {
		db := &metadb.BoltMetaDB{}
		files, err = db.Load(dir)
		return errors.Join(err, db.Close())
	})
	if err != nil {
		return openError(meta, err)
	}
	for i, info := range files.Segments {
		path := filepath.Join(dir, segment.FileName(info))
		if i == len(files.Segments)-1 && info.SealTime.IsZero() {
			return checkTail(path)
		}
		if _, err := os.Stat(path); err != nil {
			return damaged(dir, "%v", err)
		}
	}
	return nil
}

// checkTail checks the segment that is written to. It is not there yet where the member ended while it was made.
func checkTail(path string) error {
	file, err := os.Open(path) //nolint:gosec // a file of the data folder
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = file.Close() }()
	info, err := file.Stat()
	if err != nil || info.Size() == 0 {
		return err
	}
	data, err := syscall.Mmap(int(file.Fd()), 0, int(info.Size()), syscall.PROT_READ, syscall.MAP_SHARED) //nolint:gosec // a descriptor fits
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	defer func() { _ = syscall.Munmap(data) }()
	return guarded(path, func() error {
		if at, lost := lostBatches(data); lost {
			return damaged(path, "it can't be read from byte %d on, and whole entries stand behind that", at)
		}
		return nil
	})
}

// lostBatches returns the place in a segment from which on it can't be read although a whole batch follows.
func lostBatches(data []byte) (at int, lost bool) {
	begin, offset := 0, walFileHead // the first batch includes the head of the file
	for offset+walFrameHead <= len(data) {
		kind, n := walFrame(data[offset:])
		if kind != segment.FrameEntry && kind != segment.FrameIndex && kind != segment.FrameCommit {
			break
		}
		if kind != segment.FrameCommit {
			offset += walFrameHead + (int(n)+7)&^7
			continue
		}
		if crc32.Checksum(data[begin:offset], castagnoli) != n {
			break
		}
		offset += walFrameHead
		begin = offset
	}
	return begin, hasBatch(data[min(begin, len(data)):])
}

func walFrame(b []byte) (kind uint8, n uint32) {
	if b[1]|b[2]|b[3] != 0 {
		return segment.FrameInvalid, 0
	}
	return b[0], binary.LittleEndian.Uint32(b[4:])
}

// hasBatch reports whether a whole batch stands anywhere in data: bytes that begin with a frame of an entry and end with
// their own checksum.
func hasBatch(data []byte) bool {
	for len(data) >= walFrameHead && binary.LittleEndian.Uint64(data[len(data)/8*8-walFrameHead:]) == 0 {
		data = data[:len(data)/8*8-walFrameHead]
	}
	// state[i] is that of the checksum, begun with 0, before byte 8*i.
	state := make([]uint32, len(data)/8+1)
	for i := range state[1:] {
		state[i+1] = crcForward(state[i], data[8*i:8*i+8])
	}
	budget := maxWALSearch
	for p := len(data)/8 - 1; p > 0; p-- {
		kind, sum := walFrame(data[8*p:])
		if kind != segment.FrameCommit {
			continue
		}
		// The checksum of the bytes from s to p is sum if the state before s, as it follows from sum, is the one there.
		want := ^sum ^ state[p]
		for s := p - 1; s >= 0 && budget > 0; s, budget = s-1, budget-1 {
			want = crcBack(want)
			if state[s] == ^want {
				if kind, _ := walFrame(data[8*s:]); kind == segment.FrameEntry {
					return true
				}
			}
		}
	}
	return false
}

// maxWALSearch bounds the search in a log whose values look like ends of batches.
const maxWALSearch = 1 << 28

func crcForward(state uint32, b []byte) uint32 {
	for _, c := range b {
		state = castagnoli[byte(state)^c] ^ state>>8
	}
	return state
}

// crcBack returns the state from which eight zeros lead to the given one.
func crcBack(state uint32) uint32 {
	for range 8 {
		i := crcLast[state>>24]
		state = (state^castagnoli[i])<<8 | uint32(i)
	}
	return state
}

// crcLast has the entry of the table with a given highest byte: each has another one.
var crcLast = func() (last [256]uint8) {
	for i, entry := range castagnoli {
		last[entry>>24] = uint8(i) //nolint:gosec // below 256
	}
	return last
}()
