package raftfsm

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"sync"

	"github.com/hashicorp/raft-wal/metadb"
	"github.com/hashicorp/raft-wal/types"
	"go.etcd.io/bbolt"
)

// The list of segments has a checksum beside it, and how far the log is known to reach. Folders from before have neither.
var (
	walListKey  = []byte(metadb.MetaKey)
	walSumKey   = []byte("metasrv.Sum")
	walNotedKey = []byte("metasrv.Noted")
)

// walMeta is the file of raft-wal that lists the segments and has raft's own values, in the format of raft-wal, with
// what raft-wal doesn't keep.
type walMeta struct {
	db *bbolt.DB
	// failed is told each error of writing the list: raft-wal only logs it where a segment ends.
	failed func(error)
	// around lets tests look at each write, where it is not nil.
	around func(write func() error) error

	mu sync.Mutex
	// list is the list as it is on the disk, noted the index of an entry that the log is known to have.
	list  types.PersistentState
	noted uint64
	// ceiling bounds noted in the lists to come: entries behind it are about to be dropped.
	ceiling uint64
}

// openWALMeta opens the list of a folder, or makes an empty one.
func openWALMeta(dir string) (*walMeta, error) {
	path := filepath.Join(dir, metadb.FileName)
	if err := checkBolt(path, metadb.MetaBucket, metadb.StableBucket); err != nil {
		return nil, err
	}
	switch info, err := os.Stat(path); {
	case err == nil && info.Size() == 0:
		return nil, damaged(path, "it is empty") // it is made under another name, and is never without its buckets
	case errors.Is(err, fs.ErrNotExist):
		made := &metadb.BoltMetaDB{} // which makes it under another name first
		if _, err := made.Load(dir); err != nil {
			return nil, errors.Join(err, made.Close())
		}
		if err := made.Close(); err != nil {
			return nil, err
		}
	}
	options := boltOptions()
	options.InitialMmapSize = 0 // it stays small
	db, err := bbolt.Open(path, 0o600, options)
	if err != nil {
		return nil, err
	}
	m := &walMeta{db: db, ceiling: math.MaxUint64}
	if err := guarded(path, func() error { return m.db.View(m.read) }); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return m, nil
}

// read loads the list and checks it.
func (m *walMeta) read(tx *bbolt.Tx) error {
	path := m.db.Path()
	bucket := tx.Bucket([]byte(metadb.MetaBucket))
	list, sum, noted := bucket.Get(walListKey), bucket.Get(walSumKey), bucket.Get(walNotedKey)
	keys := 0
	for _, v := range [][]byte{list, sum, noted} {
		if v != nil {
			keys++
		}
	}
	switch {
	case keys != bucket.Stats().KeyN:
		return damaged(path, "it has keys that nobody wrote")
	case list == nil && keys > 0:
		return damaged(path, "the list of segments is missing")
	case list == nil:
		return nil
	case sum != nil && (len(sum) != crc32.Size || binary.BigEndian.Uint32(sum) != crc32.Checksum(list, castagnoli)),
		sum == nil && noted != nil:
		return damaged(path, "the checksum of the list of segments is wrong")
	}
	if noted != nil {
		value, ok := unsealValue(walNotedKey, noted)
		if !ok || len(value) != 8 {
			return damaged(path, "the checksum of %s is wrong", walNotedKey)
		}
		m.noted = binary.BigEndian.Uint64(value)
	}
	if err := json.Unmarshal(list, &m.list); err != nil {
		return damaged(path, "the list of segments: %v", err)
	}
	return nil
}

// Load implements types.MetaStore.
func (m *walMeta) Load(string) (types.PersistentState, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list, nil
}

// CommitState implements types.MetaStore.
func (m *walMeta) CommitState(list types.PersistentState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	err := m.commit(list, min(m.noted, m.ceiling))
	if err != nil && m.failed != nil {
		m.failed(err)
	}
	return err
}

// note writes down that the log has the entries up to an index.
func (m *walMeta) note(index uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if index <= m.noted {
		return nil
	}
	return m.commit(m.list, index)
}

// commit stores a list; m.mu is held.
func (m *walMeta) commit(list types.PersistentState, noted uint64) error {
	encoded, err := json.Marshal(list)
	if err != nil {
		return fmt.Errorf("encode the list of segments: %w", err)
	}
	err = m.update(metadb.MetaBucket, func(bucket *bbolt.Bucket) error {
		return errors.Join(
			bucket.Put(walListKey, encoded),
			bucket.Put(walSumKey, binary.BigEndian.AppendUint32(nil, crc32.Checksum(encoded, castagnoli))),
			bucket.Put(walNotedKey, sealedValue(walNotedKey, uint64Bytes(noted))))
	})
	if err == nil {
		m.list, m.noted = list, noted
	}
	return err
}

// lower lets the lists to come say that the log reaches an index at most; math.MaxUint64 ends that.
func (m *walMeta) lower(ceiling uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.ceiling = ceiling
}

// known returns the list of segments and the index that the log is known to reach.
func (m *walMeta) known() (types.PersistentState, uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list, m.noted
}

// GetStable implements types.MetaStore.
func (m *walMeta) GetStable(key []byte) (value []byte, err error) {
	err = m.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket([]byte(metadb.StableBucket)).Get(key); v != nil {
			value = append([]byte{}, v...)
		}
		return nil
	})
	return value, err
}

// SetStable implements types.MetaStore.
func (m *walMeta) SetStable(key, value []byte) error {
	return m.update(metadb.StableBucket, func(bucket *bbolt.Bucket) error { return bucket.Put(key, value) })
}

func (m *walMeta) update(bucket string, change func(*bbolt.Bucket) error) error {
	write := func() error {
		return guarded(m.db.Path(), func() error {
			return m.db.Update(func(tx *bbolt.Tx) error { return change(tx.Bucket([]byte(bucket))) })
		})
	}
	if m.around != nil {
		return m.around(write)
	}
	return write()
}

// Close implements types.MetaStore: the file stays open when raft-wal is opened anew.
func (*walMeta) Close() error { return nil }

func (m *walMeta) close() error { return m.db.Close() }
