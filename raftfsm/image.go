package raftfsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/bbolt"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
	"github.com/metasrv/metasrv/raftfsm/state"
)

var (
	stateBucket = []byte("state")
	metaBucket  = []byte("meta")
	metaKey     = []byte("image")
	metaSumKey  = []byte("image.crc32c")
)

// addressSpace is reserved for each file: 16 GB, or 1 MB where a process has only 4 GB.
const addressSpace = 1 << (20 + 14*(strconv.IntSize/64))

// openTimeout bounds the wait for a file that another process has locked.
const openTimeout = time.Second

// image is the durable form of the state: a bbolt file that holds, at every moment, the state at one index
// together with that index.
type image struct {
	db *bbolt.DB
}

func openImage(path string) (*image, error) {
	if err := checkBolt(path, string(stateBucket), string(metaBucket)); err != nil {
		return nil, err
	}
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	if err := prepareImage(db); err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", path, err), db.Close())
	}
	return &image{db: db}, nil
}

// prepareImage makes the buckets of a new image. It writes nothing to one that has them: that must open on a full disk.
func prepareImage(db *bbolt.DB) error {
	ready := false
	err := db.View(func(tx *bbolt.Tx) error {
		ready = tx.Bucket(stateBucket) != nil && tx.Bucket(metaBucket) != nil
		return nil
	})
	if err != nil || ready {
		return err
	}
	return db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{stateBucket, metaBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
}

func boltOptions() *bbolt.Options {
	return &bbolt.Options{
		Timeout: openTimeout,
		// The free list is rebuilt at an open instead of written with every commit.
		NoFreelistSync: true,
		FreelistType:   bbolt.FreelistMapType,
		// Address space, not memory. To enlarge it bbolt waits for every open transaction, and copies what the
		// present one has touched to the heap, which was half of the price of a flush.
		InitialMmapSize: addressSpace,
	}
}

func openBolt(path string) (*bbolt.DB, error) {
	db, err := bbolt.Open(path, 0o600, boltOptions())
	return db, openError(path, err)
}

// load reads the whole image in one transaction.
func (i *image) load() (*applied, error) {
	a := &applied{}
	err := i.view(func(tx *bbolt.Tx) error {
		meta, err := readMeta(tx)
		if err != nil {
			return err
		}
		a.configuration, a.configurationIndex = configurationOf(meta), meta.ConfigurationIndex
		a.view = machine.NewView(positionOf(meta), func(yield func(string, []byte) bool) {
			c := tx.Bucket(stateBucket).Cursor()
			for k, v := c.First(); k != nil; k, v = c.Next() {
				if !yield(string(k), slices.Clone(v)) {
					return
				}
			}
		})
		if err := checkHash(meta, a.view.Hash()); err != nil {
			return damaged(i.db.Path(), "%v", err)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", i.db.Path(), err)
	}
	return a, nil
}

// view runs a read transaction. What can't be read is damage.
func (i *image) view(fn func(*bbolt.Tx) error) error {
	path := i.db.Path()
	return guarded(path, func() error { return i.db.View(fn) })
}

// readMeta returns the meta record; one of zero values where nothing was written yet.
func readMeta(tx *bbolt.Tx) (*storagepb.ImageMeta, error) {
	path, b := tx.DB().Path(), tx.Bucket(metaBucket)
	encoded, sum := b.Get(metaKey), b.Get(metaSumKey)
	if encoded == nil {
		if key, _ := tx.Bucket(stateBucket).Cursor().First(); key != nil || sum != nil {
			return nil, damaged(path, "its meta record is missing")
		}
		return &storagepb.ImageMeta{}, nil
	}
	// Images from before there were checksums have none.
	if sum != nil && !bytes.Equal(sum, metaSum(encoded)) {
		return nil, damaged(path, "the checksum of its meta record is wrong")
	}
	return snapshot.DecodeMeta(encoded)
}

func putMeta(tx *bbolt.Tx, meta *storagepb.ImageMeta) error {
	encoded := state.Encode(meta)
	b := tx.Bucket(metaBucket)
	return errors.Join(b.Put(metaKey, encoded), b.Put(metaSumKey, metaSum(encoded)))
}

func metaSum(encoded []byte) []byte {
	return binary.BigEndian.AppendUint32(nil, crc32.Checksum(encoded, castagnoli))
}

// write brings the image from the state of its last write to the given one. keys are those that have changed
// between the two; nothing else is written. The image is durable when write returns. After an error it is what it was
// before, unless the sync failed.
func (i *image) write(a *applied, keys []string) error {
	slices.Sort(keys)
	return guarded(i.db.Path(), func() error {
		tx, err := i.db.Begin(true)
		if err != nil {
			return err
		}
		// Not db.Update: after a panic that reads the whole file again, in a goroutine of its own.
		defer func() { _ = tx.Rollback() }()
		b := tx.Bucket(stateBucket)
		for _, key := range keys {
			value, exists := a.view.Get(key)
			var err error
			if exists {
				err = b.Put([]byte(key), value)
			} else {
				err = b.Delete([]byte(key))
			}
			if err != nil {
				return fmt.Errorf("key %q: %w", key, err)
			}
		}
		if err := putMeta(tx, a.meta()); err != nil {
			return err
		}
		return tx.Commit()
	})
}

// bytes returns the size of the file.
func (i *image) bytes() int64 {
	info, err := os.Stat(i.db.Path())
	if err != nil {
		return 0
	}
	return info.Size()
}

func (i *image) close() error { return i.db.Close() }

// syncDir makes the renames in a folder durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
