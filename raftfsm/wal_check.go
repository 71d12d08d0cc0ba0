package raftfsm

import (
	"encoding/binary"
	"hash/crc32"

	"github.com/hashicorp/raft-wal/segment"
)

// raft-wal ends a log at the first place of its last segment that it can't read: it takes that for the trace of a write
// that a crash cut short. So a flipped bit in the middle would silently cost every entry behind it, which were
// acknowledged. What a cut write leaves is the last batch, and no batch is begun before the one before is on the disk.
// So a log is damaged if a whole batch stands behind the place, or if it ends before an entry that was noted. Damage
// within a last batch that was not can't be told from a cut write. Earlier segments are not cut: their records have
// checksums, see unseal.

// Frames of a segment, as raft-wal writes them: a type, three zeros, and the length of what follows, or at the end of a
// batch the checksum of the batch. They begin at multiples of eight bytes.
const (
	walFileHead  = 32
	walFrameHead = 8
)

// walTail is what the segment holds that is written to.
type walTail struct {
	// entries is how many entries the whole batches have, end the byte at which they end.
	entries uint64
	end     int
	// indexStart is the byte at which the index of an ended segment begins, 0 while it has not ended.
	indexStart uint64
	// torn is how many bytes stand behind end.
	torn int
	// lost: there is a whole batch among them.
	lost bool
}

// readTail reads a segment.
func readTail(data []byte) walTail {
	var t, next walTail   // next is t with the batch at hand
	offset := walFileHead // the first batch includes the head of the file
	for offset+walFrameHead <= len(data) {
		kind, n := walFrame(data[offset:])
		if kind == segment.FrameCommit {
			if crc32.Checksum(data[t.end:offset], castagnoli) != n {
				break
			}
			offset += walFrameHead
			next.end = offset
			t = next
			continue
		}
		switch kind {
		case segment.FrameEntry:
			next.entries++
		case segment.FrameIndex:
			next.indexStart = uint64(offset) + walFrameHead //nolint:gosec // a place in a file
		default:
			offset = len(data)
			continue
		}
		offset += walFrameHead + (int(n)+7)&^7
	}
	rest := data[min(t.end, len(data)):]
	rest = rest[:writtenLength(rest)]
	t.torn, t.lost = len(rest), hasBatch(rest)
	return t
}

// writtenLength returns the length of data without the zeros at its end, in whole frames' steps of eight bytes.
func writtenLength(data []byte) int {
	n := len(data) &^ 7
	if !allZero(data[n:]) {
		return len(data)
	}
	for n > 0 && binary.LittleEndian.Uint64(data[n-8:]) == 0 {
		n -= 8
	}
	return n
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
