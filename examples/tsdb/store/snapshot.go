package store

import (
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"google.golang.org/protobuf/encoding/protojson"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// copies counts the temporary files of this process.
var copies atomic.Uint64

// Snapshot makes a copy of the replica as it is at one moment, rows and log, and returns its path in the store's folder. The
// caller deletes it; what is left after a crash goes at the next start. Writes go on meanwhile.
func (r *Replica) Snapshot(ctx context.Context) (path string, err error) {
	path = fmt.Sprintf("%s.copy-%d%s", r.path(), copies.Add(1), unfinished)
	err = r.use(func(*file) error {
		// A connection of its own: that of the writes would be taken, those of queries may not.
		f, err := openFile(r.path(), false)
		if err != nil {
			return err
		}
		_, err = f.writer.ExecContext(ctx, "VACUUM INTO ?", path)
		return errors.Join(err, f.close())
	})
	if err != nil {
		_ = os.Remove(path)
		return "", fmt.Errorf("copy region %s: %w", r.region, err)
	}
	return path, nil
}

// Flush writes what only SQLite's log has into the file.
func (r *Replica) Flush(ctx context.Context) error {
	r.writing.Lock()
	defer r.writing.Unlock()
	return r.use(func(f *file) error {
		if _, err := f.writer.ExecContext(ctx, "PRAGMA wal_checkpoint(TRUNCATE)"); err != nil {
			return fmt.Errorf("flush region %s: %w", r.region, err)
		}
		return nil
	})
}

// Receiving is a copy of another replica of the region that comes in, to replace one that is here.
type Receiving struct {
	replica *Replica
	path    string
	file    *os.File
}

// Receive begins a copy. It must be discarded, also when it was installed.
func (s *Store) Receive(r *Replica) (*Receiving, error) {
	path := fmt.Sprintf("%s.received-%d%s", r.path(), copies.Add(1), unfinished)
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // a name of ours
	if err != nil {
		return nil, fmt.Errorf("copy of region %s: %w", r.region, err)
	}
	return &Receiving{replica: r, path: path, file: file}, nil
}

// Write appends a part.
func (c *Receiving) Write(p []byte) (int, error) { return c.file.Write(p) }

// Discard deletes what is left.
func (c *Receiving) Discard() error {
	err := c.file.Close()
	if errors.Is(err, os.ErrClosed) {
		err = nil
	}
	for _, suffix := range append([]string{""}, sqliteSuffixes...) {
		if e := os.Remove(c.path + suffix); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Install replaces the replica by the copy that came from the leader of an epoch, and returns the one that is here now. It
// keeps who it is: id, role and configuration. ErrStaleEpoch: it knows a higher epoch by now. Uses of the former one under
// way are ended and waited for until ctx ends.
func (c *Receiving) Install(ctx context.Context, epoch uint64) (*Replica, error) {
	old := c.replica
	s := old.store
	if err := errors.Join(c.file.Sync(), c.file.Close()); err != nil {
		return nil, fmt.Errorf("copy of region %s: %w", old.region, err)
	}
	old.writing.Lock() // nobody changes the state that is carried over
	defer old.writing.Unlock()
	if err := c.rewrite(ctx, epoch); err != nil {
		return nil, fmt.Errorf("copy of region %s: %w", old.region, err)
	}
	s.mu.Lock()
	if s.replicas[old.region] != old || s.changing[old.region] {
		s.mu.Unlock()
		return nil, fmt.Errorf("region %s: %w", old.region, ErrNotFound)
	}
	delete(s.replicas, old.region)
	s.changing[old.region] = true
	s.mu.Unlock()
	fresh, err := c.swap(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.changing, old.region)
	if fresh != nil {
		s.replicas[old.region] = fresh
	} else {
		s.replicas[old.region] = old
	}
	return fresh, err
}

// rewrite makes the copy the replica's own: everything of the leader's but who it is.
func (c *Receiving) rewrite(ctx context.Context, epoch uint64) (err error) {
	if err := errors.Join(checkHeader(c.path), checkLength(c.path)); err != nil {
		return err
	}
	own := c.replica.State()
	if epoch < own.LeaderEpoch {
		return fmt.Errorf("%w: %d, the replica has %d", ErrStaleEpoch, epoch, own.LeaderEpoch)
	}
	f, err := openFile(c.path, false)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	tx, err := f.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	if err := c.check(ctx, tx); err != nil {
		return err
	}
	state, err := readState(ctx, tx)
	if err != nil {
		return err
	}
	if state.LeaderEpoch != epoch {
		return fmt.Errorf("%w: it is of epoch %d, not %d", ErrStaleEpoch, state.LeaderEpoch, epoch)
	}
	// A leader takes nothing back of what it numbered: a copy with less was made before the replica got the rest.
	if own.LogEpoch == epoch && own.StoredSeq > state.StoredSeq {
		return fmt.Errorf("%w: it ends at write %d, the replica has %d writes of the same epoch", errOutdatedCopy, state.StoredSeq, own.StoredSeq)
	}
	state.ConfVersion, state.Config, state.Role, state.Demoted, state.EpochStart = own.ConfVersion, own.Config, own.Role, false, 0
	if state.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
		state.Role = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	}
	if err := writeState(ctx, tx, state); err != nil {
		return err
	}
	text, err := protojson.Marshal(c.replica.definition)
	if err != nil {
		return err
	}
	if _, err := tx.ExecContext(ctx, "INSERT OR REPLACE INTO meta VALUES ('replica_id', ?), ('definition', ?)",
		int64(c.replica.id), string(text)); err != nil { //nolint:gosec // read back as written
		return err
	}
	return tx.Commit()
}

// checkLength returns ErrDamaged for a copy that is not as long as its header says. SQLite would read what lacks of the last
// page as zeros.
func checkLength(path string) error {
	const pageSizeAt, pagesAt, headerSize = 16, 28, 100
	f, err := os.Open(path) //nolint:gosec // a name of ours
	if err != nil {
		return err
	}
	head := make([]byte, headerSize)
	_, err = io.ReadFull(f, head)
	info, e := f.Stat()
	if err := errors.Join(err, e, f.Close()); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	pageSize, pages := int64(binary.BigEndian.Uint16(head[pageSizeAt:])), int64(binary.BigEndian.Uint32(head[pagesAt:]))
	if pageSize == 1 { // how SQLite writes 64 KiB
		pageSize = 1 << 16
	}
	if info.Size() != pageSize*pages {
		return fmt.Errorf("%w: it has %d bytes, its header says %d pages of %d", ErrDamaged, info.Size(), pages, pageSize)
	}
	return nil
}

// check checks that the copy is whole and one of the region.
func (c *Receiving) check(ctx context.Context, tx *sql.Tx) error {
	var verdict string
	if err := tx.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return fmt.Errorf("%w: %s", ErrDamaged, verdict)
	}
	meta, err := readMeta(ctx, tx)
	if err != nil {
		return err
	}
	region, _ := meta["region_id"].(int64)
	if uint64(region) != uint64(c.replica.region) { //nolint:gosec // as written
		return fmt.Errorf("%w: it is of region %d", ErrDamaged, region)
	}
	return checkFormat(meta)
}

// swap puts the copy in the place of the replica's file. Where that fails the former one is served again.
func (c *Receiving) swap(ctx context.Context) (*Replica, error) {
	old := c.replica
	if err := old.retire(ctx); err != nil {
		old.serveAgain()
		return nil, err
	}
	err := c.rename()
	fresh := newReplica(old.store, old.region, old.id)
	if e := fresh.load(context.WithoutCancel(ctx)); e != nil {
		fresh.markDamaged(e)
	}
	return fresh, err
}

// rename replaces the file. Closing it has merged SQLite's log into it; what is left beside it would be taken for the log of
// the copy.
func (c *Receiving) rename() error {
	path := c.replica.path()
	for _, suffix := range sqliteSuffixes {
		if err := os.Remove(path + suffix); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		if info, err := os.Stat(c.path + suffix); err == nil && info.Size() > 0 && strings.HasSuffix(suffix, "-wal") {
			return fmt.Errorf("%s was not merged into the copy", info.Name())
		}
	}
	file, err := os.OpenFile(c.path, os.O_RDWR, 0) //nolint:gosec // a name of ours
	if err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(c.path, path); err != nil {
		return err
	}
	return c.replica.store.folder.sync()
}
