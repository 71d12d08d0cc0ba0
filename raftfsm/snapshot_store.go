package raftfsm

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"
	"go.etcd.io/bbolt"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
)

// snapshotStore is raft's view of snapshots. The member's own snapshot is its image: List reports the index that
// the image has reached, so raft keeps the log behind it and replays only that at a start. Open streams the state
// in memory, of one moment, to a member that lags behind the log. A snapshot that arrives is written to a file
// beside the image and takes its place in fsm.Restore.
type snapshotStore struct {
	fsm     *fsm
	flusher *flusher
	dir     string
	// checkVersion returns an error for cluster versions that this build doesn't know.
	checkVersion func(cluster uint32) error
	logger       interface{ Info(string, ...any) }
	// beforeDisk lets tests have a disk that hangs.
	beforeDisk func(what string)
}

const (
	ownSnapshotID     = "image"
	installSnapshotID = "install"
)

func (s *snapshotStore) imagePath() string   { return imagePath(s.dir) }
func (s *snapshotStore) installPath() string { return filepath.Join(s.dir, installName) }

// List returns the image, if it holds anything.
func (s *snapshotStore) List() ([]*raft.SnapshotMeta, error) {
	if s.flusher.flushed.Load() == 0 {
		return nil, nil
	}
	s.flusher.mu.Lock()
	defer s.flusher.mu.Unlock()
	var meta *storagepb.ImageMeta
	err := s.flusher.image.view(func(tx *bbolt.Tx) error {
		var err error
		meta, err = readMeta(tx)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", s.imagePath(), err)
	}
	return []*raft.SnapshotMeta{raftMeta(ownSnapshotID, meta, 0)}, nil
}

func raftMeta(id string, meta *storagepb.ImageMeta, size int64) *raft.SnapshotMeta {
	return &raft.SnapshotMeta{
		Version:            raft.SnapshotVersionMax,
		ID:                 id,
		Index:              meta.Index,
		Term:               meta.Term,
		Configuration:      configurationOf(meta),
		ConfigurationIndex: meta.ConfigurationIndex,
		Size:               size,
	}
}

// Open returns the state for another member. For a snapshot that was just received there is nothing to read: its
// file takes the place of the image in fsm.Restore. But raft goes on from its index.
func (s *snapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	if id == installSnapshotID {
		meta, err := s.receivedMeta()
		if err != nil {
			return nil, nil, errors.Join(err, s.removeInstall())
		}
		return raftMeta(id, meta, 0), io.NopCloser(eof{}), nil
	}
	snap := snapshotOf(s.fsm.current.Load())
	r, w := io.Pipe()
	go func() { w.CloseWithError(snap.Write(w)) }() // ends when the reader is closed
	return raftMeta(id, snap.Meta, snap.Size()), r, nil
}

type eof struct{}

func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// Create returns a sink. Which kind of snapshot comes shows at its first write: the member's own has none.
func (s *snapshotStore) Create(_ raft.SnapshotVersion, index, _ uint64, _ raft.Configuration, _ uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	return &snapshotSink{store: s, index: index}, nil
}

// snapshotSink receives a snapshot into a file of its own.
type snapshotSink struct {
	store *snapshotStore
	index uint64
	pipe  *io.PipeWriter
	done  chan error
}

// ID names the snapshot: the image itself if nothing was written.
func (s *snapshotSink) ID() string {
	if s.pipe == nil {
		return ownSnapshotID
	}
	return installSnapshotID
}

// Write takes the next bytes. It refuses a snapshot that is older than the state that the member has.
func (s *snapshotSink) Write(p []byte) (int, error) {
	if s.pipe == nil {
		if have := s.store.fsm.current.index(); s.index < have {
			return 0, fmt.Errorf("refused a snapshot of index %d: this member has applied %d", s.index, have)
		}
		r, w := io.Pipe()
		s.pipe, s.done = w, make(chan error, 1)
		go func() {
			err := s.store.receive(r)
			_ = r.CloseWithError(err)
			s.done <- err
		}()
	}
	return s.pipe.Write(p)
}

// Close verifies what was received. It is durable when Close returns no error.
func (s *snapshotSink) Close() error {
	if s.pipe == nil {
		return nil
	}
	_ = s.pipe.Close()
	return <-s.done
}

// Cancel throws away what was received.
func (s *snapshotSink) Cancel() error {
	if s.pipe == nil {
		return nil
	}
	_ = s.pipe.CloseWithError(errors.New("snapshot cancelled"))
	<-s.done //nolint:errcheck // it failed because it was cancelled
	return nil
}

// receive writes a snapshot to the install file, which it removes where the snapshot is not whole.
func (s *snapshotStore) receive(r io.Reader) error {
	img, err := s.emptyInstall()
	if err != nil {
		return err
	}
	err = fillImage(img.db, r, s.admit, s.watched)
	err = errors.Join(err, s.watched("the close of "+s.installPath(), 0, img.close))
	if err == nil {
		return nil
	}
	if isDiskFull(err) {
		s.flusher.disk.ranOut()
	}
	return errors.Join(fmt.Errorf("receive snapshot: %w", err), s.removeInstall())
}

// emptyInstall makes the file that a snapshot is received into.
func (s *snapshotStore) emptyInstall() (img *image, err error) {
	if err := s.removeInstall(); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	err = s.watched("the making of "+s.installPath(), 0, func() error {
		img, err = openImage(s.installPath())
		return err
	})
	return img, err
}

func (s *snapshotStore) removeInstall() error {
	path := s.installPath()
	return s.watched("the removal of "+path, sizeOf(path), func() error { return os.Remove(path) })
}

// watched makes a call to the disk for which a number of bytes is read or written. Where it doesn't return the member ends:
// it waits for the call with everything else, also with its vote.
func (s *snapshotStore) watched(what string, bytes int64, call func() error) error {
	c := s.flusher.watch.begin(what, time.Duration(bytes)*time.Second/installRate)
	defer c.end()
	if s.beforeDisk != nil {
		s.beforeDisk(what)
	}
	return s.flusher.slow(call)
}

// sizeOf returns the size of a file, 0 where there is none.
func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// admit refuses a snapshot of a cluster that has left this build behind, before its pairs are read. The member must end:
// the metasrv leader would send it again and again.
func (s *snapshotStore) admit(meta *storagepb.ImageMeta) error {
	if s.checkVersion == nil {
		return nil
	}
	err := s.checkVersion(meta.ClusterVersion)
	if err != nil {
		s.fsm.fail(err)
	}
	return err
}

// installBatch bounds the bytes in one transaction of an install.
const installBatch = 16 << 20

// fillImage writes a streamed snapshot into an empty image. The meta record goes last, after the checksum was
// found right, so a half received image is not one.
//
// watched makes the calls to the disk, which wait for nobody else.
func fillImage(
	db *bbolt.DB, r io.Reader, admit func(*storagepb.ImageMeta) error, watched func(what string, bytes int64, call func() error) error,
) error {
	var meta *storagepb.ImageMeta
	tx, err := db.Begin(true)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	pending := 0
	commit := func() error {
		return watched("a write to "+db.Path(), int64(pending), func() error { return tx.Commit() })
	}
	var hash machine.Hasher
	put := func(key, value []byte) error {
		hash.Add(key, value)
		b := tx.Bucket(stateBucket)
		b.FillPercent = 0.9 // keys come in order
		if err := b.Put(key, value); err != nil {
			return err
		}
		if pending += len(key) + len(value); pending < installBatch {
			return nil
		}
		if err := commit(); err != nil {
			return err
		}
		pending = 0
		tx, err = db.Begin(true)
		return err
	}
	begin := func(m *storagepb.ImageMeta) error {
		meta = m
		return admit(m)
	}
	if err := snapshot.Read(r, begin, put); err != nil {
		return err
	}
	if err := checkHash(meta, hash.At(positionOf(meta))); err != nil {
		return fmt.Errorf("the snapshot is not the state that it says it is: %w", err)
	}
	meta.Keys, meta.ClusterId, meta.ClusterIncarnation, meta.ClusterVersion = 0, 0, 0, 0 // of snapshots only
	if err := putMeta(tx, meta); err != nil {
		return err
	}
	return commit()
}

// receivedMeta returns the meta record of the received snapshot.
func (s *snapshotStore) receivedMeta() (meta *storagepb.ImageMeta, err error) {
	path := s.installPath()
	err = s.watched("a read of "+path, sizeOf(path), func() error {
		img, err := openImage(path)
		if err != nil {
			return err
		}
		err = img.view(func(tx *bbolt.Tx) error {
			meta, err = readMeta(tx)
			return err
		})
		return errors.Join(err, img.close())
	})
	return meta, err
}

// checkReceived looks at the received file before it is installed, and removes it where that can't be. It refuses to go
// back: entries that were on their way to the state when the snapshot arrived may have overtaken it.
func (s *snapshotStore) checkReceived() error {
	meta, err := s.receivedMeta()
	if have := s.fsm.current.index(); err == nil && meta.Index < have {
		err = fmt.Errorf("the snapshot is of index %d, this member has applied %d", meta.Index, have)
	}
	if err != nil {
		return errors.Join(err, s.removeInstall())
	}
	return nil
}

// install puts the received file in the place of the image and loads it. After an error the member must end: nothing is
// known of which of the two is in that place.
func (s *snapshotStore) install(old *image) (img *image, a *applied, err error) {
	path := s.installPath()
	err = s.watched("the install of "+path, sizeOf(path), func() error {
		img, a, err = s.swap(old)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	s.logger.Info("installed snapshot", "index", a.index(), "revision", a.view.Revision())
	return img, a, nil
}

func (s *snapshotStore) swap(old *image) (*image, *applied, error) {
	if err := old.close(); err != nil {
		return nil, nil, err
	}
	if err := os.Rename(s.installPath(), s.imagePath()); err != nil {
		return nil, nil, err
	}
	if err := syncDir(s.dir); err != nil {
		return nil, nil, err
	}
	img, err := openImage(s.imagePath())
	if err != nil {
		return nil, nil, err
	}
	a, err := img.load()
	if err != nil {
		return nil, nil, errors.Join(err, img.close())
	}
	return img, a, nil
}
