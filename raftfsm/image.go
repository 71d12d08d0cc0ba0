package raftfsm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"go.etcd.io/bbolt"
	berrors "go.etcd.io/bbolt/errors"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

var (
	stateBucket = []byte("state")
	metaBucket  = []byte("meta")
	metaKey     = []byte("image")
)

// replaceMember is what to do where the data of a member is of no use any more.
const replaceMember = "remove this member from the cluster and let it join again with an empty folder under a new id"

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
	db, err := openBolt(path)
	if err != nil {
		return nil, err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		for _, name := range [][]byte{stateBucket, metaBucket} {
			if _, err := tx.CreateBucketIfNotExists(name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare %s: %w", path, err), db.Close())
	}
	return &image{db: db}, nil
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

// openError explains the usual reasons why a file of the data folder can't be opened.
func openError(path string, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, berrors.ErrTimeout):
		return fmt.Errorf("%s is locked: another metasrv runs on the data folder %s", path, filepath.Dir(path))
	case errors.Is(err, berrors.ErrInvalid), errors.Is(err, berrors.ErrChecksum), errors.Is(err, berrors.ErrVersionMismatch):
		return fmt.Errorf("%s is damaged (%w): %s", path, err, replaceMember)
	}
	return fmt.Errorf("open %s: %w", path, err)
}

// load reads the whole image in one transaction.
func (i *image) load() (*applied, error) {
	a := &applied{}
	err := i.db.View(func(tx *bbolt.Tx) error {
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
			return fmt.Errorf("the image is damaged (%w): %s", err, replaceMember)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", i.db.Path(), err)
	}
	return a, nil
}

func readMeta(tx *bbolt.Tx) (*storagepb.ImageMeta, error) {
	meta := &storagepb.ImageMeta{}
	if err := state.Decode(tx.Bucket(metaBucket).Get(metaKey), meta); err != nil {
		return nil, err
	}
	if meta.Version > imageVersion {
		return nil, fmt.Errorf("image has version %d, this version of metasrv knows %d", meta.Version, imageVersion)
	}
	return meta, nil
}

// write brings the image from the state of its last write to the given one. keys are those that have changed
// between the two; nothing else is written. The image is durable when write returns.
func (i *image) write(a *applied, keys []string) error {
	slices.Sort(keys)
	return i.db.Update(func(tx *bbolt.Tx) error {
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
		return tx.Bucket(metaBucket).Put(metaKey, state.Encode(a.meta()))
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
