package raftfsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"go.etcd.io/bbolt"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// imageOf returns the path of an image of some entries, closed.
func imageOf(t *testing.T) string {
	t.Helper()
	b := newBench(t)
	for range 20 {
		b.putNext()
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
	return b.path
}

// Rule 13: an image whose content is not what its record says is refused, with what to do.
func TestDamagedImageIsRefused(t *testing.T) {
	for name, change := range map[string]func(b *bbolt.Bucket, meta *storagepb.ImageMeta) error{
		"a value":        func(b *bbolt.Bucket, _ *storagepb.ImageMeta) error { return b.Put([]byte("kv/k7"), []byte("8")) },
		"a missing key":  func(b *bbolt.Bucket, _ *storagepb.ImageMeta) error { return b.Delete([]byte("kv/k7")) },
		"a key too many": func(b *bbolt.Bucket, _ *storagepb.ImageMeta) error { return b.Put([]byte("kv/k99"), nil) },
		"the index":      func(_ *bbolt.Bucket, m *storagepb.ImageMeta) error { m.Index--; return nil },
		"the revision":   func(_ *bbolt.Bucket, m *storagepb.ImageMeta) error { m.Revision++; return nil },
		"the hash":       func(_ *bbolt.Bucket, m *storagepb.ImageMeta) error { m.StateHash = 0; return nil },
	} {
		t.Run(name, func(t *testing.T) {
			img, err := openImage(imageOf(t))
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = img.close() }()
			if _, err := img.load(); err != nil {
				t.Fatalf("the image was refused before it was damaged: %v", err)
			}
			changeImage(t, img, change)
			_, err = img.load()
			if err == nil || !strings.Contains(err.Error(), "damaged") || !strings.Contains(err.Error(), "new id") {
				t.Errorf("loaded with %v; want a refusal that says what to do", err)
			}
		})
	}
}

// An image of a version that kept no hash is still read.
func TestImageWithoutHashIsTaken(t *testing.T) {
	img, err := openImage(imageOf(t))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = img.close() }()
	changeImage(t, img, func(_ *bbolt.Bucket, m *storagepb.ImageMeta) error {
		m.Version, m.StateHash = 1, 0
		return nil
	})
	if a, err := img.load(); err != nil || a.index() != 20 {
		t.Errorf("loaded index %d, %v", a.index(), err)
	}
}

func changeImage(t *testing.T, img *image, change func(*bbolt.Bucket, *storagepb.ImageMeta) error) {
	t.Helper()
	err := img.db.Update(func(tx *bbolt.Tx) error {
		meta, err := readMeta(tx)
		if err != nil {
			return err
		}
		if err := change(tx.Bucket(stateBucket), meta); err != nil {
			return err
		}
		return putMeta(tx, meta)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A streamed snapshot whose bytes arrived as they were sent, but which is not the state that it says it is, never takes
// the place of the image.
func TestSnapshotOfAnotherStateIsRefused(t *testing.T) {
	b := newBench(t)
	for range 20 {
		b.putNext()
	}
	var stream bytes.Buffer
	if err := snapshotOf(b.current.Load()).Write(&stream); err != nil {
		t.Fatal(err)
	}
	store := &snapshotStore{fsm: b.fsm, flusher: b.flusher, dir: t.TempDir()}
	if err := store.receive(bytes.NewReader(stream.Bytes())); err != nil {
		t.Fatalf("the snapshot was refused before it was changed: %v", err)
	}
	changed := bytes.Clone(stream.Bytes()[:stream.Len()-4])
	changed[len(changed)-1] ^= 1 // in the last value
	changed = binary.BigEndian.AppendUint32(changed, crc32.Checksum(changed, crc32.MakeTable(crc32.Castagnoli)))
	err := store.receive(bytes.NewReader(changed))
	if err == nil || !strings.Contains(err.Error(), fmt.Sprintf("%016x", b.current.Load().view.Hash())) {
		t.Errorf("received with %v; want a refusal that names the hash", err)
	}
	if _, err := os.Stat(store.installPath()); !os.IsNotExist(err) {
		t.Errorf("the refused snapshot was left behind: %v", err)
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}
