// Package snapshot owns the form in which a whole state travels: to a member that lags behind the log, and into the
// file of a backup. It knows bytes only, no state machine and no disk.
//
// A snapshot is: the magic, the length of the meta record (4 bytes, big endian), the meta record, its pairs in order as
// (length, key, length, value) with lengths as uvarints, and the CRC32C of all that (4 bytes, big endian).
package snapshot

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"iter"
	"slices"

	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Version is the highest version of a meta record that this build reads, and the one that it writes.
const Version = 2

const (
	magic   = "metasrv\x01"
	maxMeta = 1 << 20
	maxItem = 64 << 20
	// itemStep is how much of an item is read at once.
	itemStep = 256 << 10
)

// ErrDamaged: the bytes are not a whole snapshot as it was written.
var ErrDamaged = errors.New("snapshot is damaged")

// ErrVersion: the form of a state is one that this build doesn't know.
var ErrVersion = fmt.Errorf("this build of metasrv knows versions up to %d; use the build that wrote it, or a later one", Version)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot is a whole state of one moment.
type Snapshot struct {
	// Meta says which state it is. Keys must be the number of pairs.
	Meta *storagepb.ImageMeta
	// Pairs are in the order of keys, the same each time.
	Pairs iter.Seq2[string, []byte]
}

// Size returns the length of what Write writes, in bytes.
func (s Snapshot) Size() int64 {
	n := int64(len(magic) + 4 + len(state.Encode(s.Meta)) + 4)
	var buf [binary.MaxVarintLen64]byte
	for key, value := range s.Pairs {
		n += int64(binary.PutUvarint(buf[:], uint64(len(key))) + len(key))
		n += int64(binary.PutUvarint(buf[:], uint64(len(value))) + len(value))
	}
	return n
}

// Write writes the snapshot, its checksum last.
func (s Snapshot) Write(w io.Writer) error {
	sum := crc32.New(castagnoli)
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 256<<10)
	encoded := state.Encode(s.Meta)
	header := binary.BigEndian.AppendUint32([]byte(magic), uint32(len(encoded))) //nolint:gosec // far below 4 GiB
	if _, err := out.Write(append(header, encoded...)); err != nil {
		return err
	}
	var buf []byte
	for key, value := range s.Pairs {
		buf = binary.AppendUvarint(buf[:0], uint64(len(key)))
		buf = append(buf, key...)
		buf = binary.AppendUvarint(buf, uint64(len(value)))
		buf = append(buf, value...)
		if _, err := out.Write(buf); err != nil {
			return err
		}
	}
	if err := out.Flush(); err != nil {
		return err
	}
	_, err := w.Write(binary.BigEndian.AppendUint32(nil, sum.Sum32()))
	return err
}

// Read reads what Write wrote and gives each pair to put. What was given counts only if it returns no error: the
// checksum stands at the end. ErrDamaged: the bytes are not as they were written. ErrVersion: a later build wrote them.
// Errors of begin and put are returned.
func Read(source io.Reader, begin func(*storagepb.ImageMeta) error, put func(key, value []byte) error) error {
	r := &summingReader{r: bufio.NewReaderSize(source, 256<<10), sum: crc32.New(castagnoli)}
	meta, err := readMeta(r)
	if err != nil {
		return err
	}
	if err := begin(meta); err != nil {
		return err
	}
	for range meta.Keys {
		key, err := readItem(r)
		if err != nil {
			return err
		}
		value, err := readItem(r)
		if err != nil {
			return err
		}
		if err := put(key, value); err != nil {
			return err
		}
	}
	want := r.sum.Sum32()
	var sum [4]byte
	if _, err := io.ReadFull(r, sum[:]); err != nil {
		return fmt.Errorf("%w: it ends early (%w)", ErrDamaged, err)
	}
	if got := binary.BigEndian.Uint32(sum[:]); got != want {
		return fmt.Errorf("%w: checksum %08x, want %08x", ErrDamaged, got, want)
	}
	if _, err := r.ReadByte(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: something follows its end", ErrDamaged)
	}
	return nil
}

func readMeta(r io.Reader) (*storagepb.ImageMeta, error) {
	header := make([]byte, len(magic)+4)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("%w: it ends early (%w)", ErrDamaged, err)
	}
	if string(header[:len(magic)]) != magic {
		return nil, fmt.Errorf("%w: it does not begin like a snapshot of metasrv, or is one of a later version", ErrDamaged)
	}
	length := binary.BigEndian.Uint32(header[len(magic):])
	if length > maxMeta {
		return nil, fmt.Errorf("%w: meta record of %d bytes", ErrDamaged, length)
	}
	encoded := make([]byte, length)
	if _, err := io.ReadFull(r, encoded); err != nil {
		return nil, fmt.Errorf("%w: it ends early (%w)", ErrDamaged, err)
	}
	meta, err := DecodeMeta(encoded)
	if err != nil && !errors.Is(err, ErrVersion) {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return meta, err
}

// DecodeMeta returns the meta record of a snapshot or an image. ErrVersion: a later build wrote it.
func DecodeMeta(encoded []byte) (*storagepb.ImageMeta, error) {
	meta := &storagepb.ImageMeta{}
	// The version first: it says more than that there are fields that this build doesn't know.
	if err := proto.Unmarshal(encoded, meta); err == nil && meta.Version > Version {
		return nil, fmt.Errorf("its form has version %d: %w", meta.Version, ErrVersion)
	}
	if err := state.Decode(encoded, meta); err != nil {
		return nil, fmt.Errorf("meta record: %w", err)
	}
	return meta, nil
}

func readItem(r *summingReader) ([]byte, error) {
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, fmt.Errorf("%w: it ends early (%w)", ErrDamaged, err)
	}
	if length > maxItem {
		return nil, fmt.Errorf("%w: item of %d bytes", ErrDamaged, length)
	}
	// What a length says is taken only as far as bytes follow it.
	item := make([]byte, 0, min(length, itemStep))
	for have := uint64(0); have < length; have = uint64(len(item)) {
		step := min(length-have, itemStep)
		item = slices.Grow(item, int(step))[:have+step] //nolint:gosec // at most itemStep
		if _, err := io.ReadFull(r, item[have:]); err != nil {
			return nil, fmt.Errorf("%w: it ends early (%w)", ErrDamaged, err)
		}
	}
	return item, nil
}

// summingReader adds up the checksum of what is read.
type summingReader struct {
	r   *bufio.Reader
	sum hash.Hash32
	one [1]byte
}

func (s *summingReader) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	s.sum.Write(p[:n])
	return n, err
}

func (s *summingReader) ReadByte() (byte, error) {
	b, err := s.r.ReadByte()
	if err == nil {
		s.one[0] = b
		s.sum.Write(s.one[:])
	}
	return b, err
}
