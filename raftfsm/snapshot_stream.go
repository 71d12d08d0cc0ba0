package raftfsm

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// A snapshot on its way to another member is: the magic, the length of the meta record (4 bytes, big endian),
// the meta record, its pairs in order as (length, key, length, value) with lengths as uvarints, and the CRC32C of
// all that (4 bytes, big endian).

const (
	snapshotMagic   = "metasrv\x01"
	maxSnapshotMeta = 1 << 20
	maxSnapshotItem = 64 << 20
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// snapshotSize returns the length of what writeSnapshot writes.
func snapshotSize(a *applied) int64 {
	n := int64(len(snapshotMagic) + 4 + len(state.Encode(snapshotMeta(a))) + 4)
	var buf [binary.MaxVarintLen64]byte
	for key, value := range a.view.Ascend("", "") {
		n += int64(binary.PutUvarint(buf[:], uint64(len(key))) + len(key))
		n += int64(binary.PutUvarint(buf[:], uint64(len(value))) + len(value))
	}
	return n
}

func snapshotMeta(a *applied) *storagepb.ImageMeta {
	meta := a.meta()
	meta.Keys = uint64(a.view.Len())
	return meta
}

// writeSnapshot writes a whole state.
func writeSnapshot(w io.Writer, a *applied) error {
	sum := crc32.New(castagnoli)
	out := bufio.NewWriterSize(io.MultiWriter(w, sum), 256<<10)
	meta := state.Encode(snapshotMeta(a))
	header := binary.BigEndian.AppendUint32([]byte(snapshotMagic), uint32(len(meta)))
	if _, err := out.Write(append(header, meta...)); err != nil {
		return err
	}
	var buf []byte
	for key, value := range a.view.Ascend("", "") {
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

// readSnapshot reads what writeSnapshot wrote and gives each pair to put. What was given counts only if it returns
// no error: the checksum stands at the end.
func readSnapshot(source io.Reader, begin func(*storagepb.ImageMeta) error, put func(key, value []byte) error) error {
	r := &summingReader{r: bufio.NewReaderSize(source, 256<<10), sum: crc32.New(castagnoli)}
	meta, err := readSnapshotMeta(r)
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
		return fmt.Errorf("snapshot ends early: %w", err)
	}
	if got := binary.BigEndian.Uint32(sum[:]); got != want {
		return fmt.Errorf("snapshot is damaged: checksum %08x, want %08x", got, want)
	}
	return nil
}

func readSnapshotMeta(r io.Reader) (*storagepb.ImageMeta, error) {
	header := make([]byte, len(snapshotMagic)+4)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, fmt.Errorf("snapshot ends early: %w", err)
	}
	if string(header[:len(snapshotMagic)]) != snapshotMagic {
		return nil, errors.New("not a snapshot of metasrv, or one of another version")
	}
	length := binary.BigEndian.Uint32(header[len(snapshotMagic):])
	if length > maxSnapshotMeta {
		return nil, fmt.Errorf("snapshot is damaged: meta record of %d bytes", length)
	}
	encoded := make([]byte, length)
	if _, err := io.ReadFull(r, encoded); err != nil {
		return nil, fmt.Errorf("snapshot ends early: %w", err)
	}
	meta := &storagepb.ImageMeta{}
	if err := state.Decode(encoded, meta); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	if meta.Version > imageVersion {
		return nil, fmt.Errorf("snapshot has version %d, this version of metasrv knows %d", meta.Version, imageVersion)
	}
	return meta, nil
}

func readItem(r *summingReader) ([]byte, error) {
	length, err := binary.ReadUvarint(r)
	if err != nil {
		return nil, fmt.Errorf("snapshot ends early: %w", err)
	}
	if length > maxSnapshotItem {
		return nil, fmt.Errorf("snapshot is damaged: item of %d bytes", length)
	}
	item := make([]byte, length)
	if _, err := io.ReadFull(r, item); err != nil {
		return nil, fmt.Errorf("snapshot ends early: %w", err)
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
