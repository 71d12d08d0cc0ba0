package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
)

// Replica is a copy of a region in a file. Its methods may be called by many goroutines.
type Replica struct {
	store  *Store
	region metasrv.RegionID
	id     metasrv.ReplicaID
	name   string
	// Set before others see the replica, nil where it is damaged.
	definition *tsdbpb.CreateRegionRequest
	table      *table
	// writing is held by the one transaction that writes; ages is its.
	writing sync.Mutex
	ages    writeAges
	// held is the first place that the log must keep for a copy under way, 0 where there is none.
	held atomic.Uint64

	mu        sync.Mutex
	state     State
	counted   time.Time // when state.Rows was last counted
	uncounted uint64    // rows written since
	file      *file     // nil while closed
	users     int
	damage    error
	// retired: nobody may begin to use it. Then life is over, which ends queries, and unused is closed when the
	// last user has left. serveAgain takes it back.
	retired bool
	life    context.Context //nolint:containedctx // it ends what several callers have under way
	end     context.CancelFunc
	unused  chan struct{}
}

func newReplica(s *Store, region metasrv.RegionID, id metasrv.ReplicaID) *Replica {
	r := &Replica{store: s, region: region, id: id, name: fileName(region, id), unused: make(chan struct{})}
	r.life, r.end = context.WithCancel(context.Background())
	return r
}

// Region returns the id of the region.
func (r *Replica) Region() metasrv.RegionID { return r.region }

// ID returns the replica's id.
func (r *Replica) ID() metasrv.ReplicaID { return r.id }

// File returns the name of the file in the store's folder.
func (r *Replica) File() string { return r.name }

// Definition returns what the replica was created as. It must not be changed, and is nil where the replica is
// damaged.
func (r *Replica) Definition() *tsdbpb.CreateRegionRequest { return r.definition }

// State returns where the replica stands.
func (r *Replica) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Damage returns ErrDamaged or ErrFormat with what is wrong, nil where the replica is served.
func (r *Replica) Damage() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.damage
}

// Size returns the bytes that the replica's files take.
func (r *Replica) Size() uint64 {
	var sum uint64
	for _, suffix := range append([]string{""}, sqliteSuffixes...) {
		if info, err := os.Stat(r.path() + suffix); err == nil {
			sum += uint64(max(0, info.Size())) //nolint:gosec // not negative
		}
	}
	return sum
}

func (r *Replica) path() string { return filepath.Join(r.store.folder.path, r.name) }

// use calls fn with the open file, which stays open as long. Damage that fn meets takes the replica out of
// service.
func (r *Replica) use(fn func(*file) error) error {
	f, err := r.acquire()
	if err != nil {
		return err
	}
	err = errors.Join(r.store.open.touch(r), fn(f))
	if isDamage(err) {
		r.markDamaged(err)
		err = r.Damage()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.users--
	if r.users == 0 && r.retired {
		close(r.unused)
	}
	return err
}

func (r *Replica) acquire() (*file, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.retired:
		return nil, fmt.Errorf("region %s: %w", r.region, ErrNotFound)
	case r.damage != nil:
		return nil, r.damage
	}
	if r.file == nil {
		f, err := openFile(r.path(), false)
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", r.name, err)
		}
		r.file = f
	}
	r.users++
	return r.file, nil
}

// closeIdle closes the file unless it is in use.
func (r *Replica) closeIdle() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.users > 0 {
		return nil
	}
	r.store.open.forget(r)
	if r.file == nil {
		return nil
	}
	f := r.file
	r.file = nil
	if err := f.close(); err != nil {
		return fmt.Errorf("close %s: %w", r.name, err)
	}
	return nil
}

// retire lets nobody use the replica any more, waits for those who do until ctx ends, and closes the file.
func (r *Replica) retire(ctx context.Context) error {
	r.mu.Lock()
	if !r.retired && r.users == 0 {
		close(r.unused)
	}
	r.retired = true
	unused := r.unused
	r.end()
	r.mu.Unlock()
	select {
	case <-unused:
		return r.closeIdle()
	case <-ctx.Done():
		return fmt.Errorf("%s is still in use: %w", r.name, ctx.Err())
	}
}

// serveAgain lets a replica be used whose file could not be closed: somebody still reads it.
func (r *Replica) serveAgain() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.retired {
		return
	}
	r.retired = false
	r.life, r.end = context.WithCancel(context.Background())
	select {
	case <-r.unused:
		r.unused = make(chan struct{})
	default: // the last user closes it only where it is retired
	}
}

// lifetime ends when the replica is retired.
func (r *Replica) lifetime() context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.life
}

func (r *Replica) markDamaged(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.damage != nil {
		return
	}
	message := "replica is not served: restore its file from a copy, or drop the replica"
	switch {
	case errors.Is(err, ErrFormat):
		message = "replica is not served: its file is of another version"
	case !errors.Is(err, ErrDamaged):
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	r.damage = fmt.Errorf("region %s, file %s: %w", r.region, r.path(), err)
	r.store.logger.Error(message, "region_id", r.region, "replica_id", r.id, "file", r.path(), "error", err)
}

// sameAs returns ErrExists unless the replica was created by an equal definition.
func (r *Replica) sameAs(d *tsdbpb.CreateRegionRequest) error {
	if err := r.Damage(); err != nil {
		return fmt.Errorf("%w: %w", ErrExists, err)
	}
	if id := d.GetRoute().GetReplicaId(); uint64(r.id) != id {
		return fmt.Errorf("%w: region %s has replica %s here, not %d", ErrExists, r.region, r.id, id)
	}
	if !proto.Equal(r.definition, d) {
		return fmt.Errorf("%w: replica %s of region %s was created with another definition", ErrExists, r.id, r.region)
	}
	return nil
}

// fileFormat is the version of the layout. Version 1 had no log of the region.
const fileFormat = 2

// layout are the tables beside that of the rows. writes remembers write ids; log keeps whole writes for replicas that lack
// them; epochs has the first place of each epoch, for all places; undo has the rows that uncommitted writes replaced.
var layout = []string{
	`CREATE TABLE meta (key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID`,
	stateLayout,
	`CREATE TABLE writes (seq INTEGER PRIMARY KEY, write_id BLOB NOT NULL UNIQUE) STRICT`,
	`CREATE TABLE log (seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL, write_id BLOB NOT NULL, rows BLOB NOT NULL) STRICT`,
	`CREATE TABLE epochs (first_seq INTEGER PRIMARY KEY, epoch INTEGER NOT NULL UNIQUE) STRICT`,
}

// create makes the file under a temporary name and renames it when it is complete and durable.
func (r *Replica) create(ctx context.Context, d *tsdbpb.CreateRegionRequest) error {
	t, err := newTable(d.GetSchema())
	if err != nil {
		return err
	}
	temporary := r.path() + unfinished
	for _, leftover := range append([]string{""}, sqliteSuffixes...) {
		_ = os.Remove(temporary + leftover) // of an attempt that failed; what remains fails the next step
	}
	if err := writeNewFile(ctx, temporary, d, t); err != nil {
		return err
	}
	if _, err := os.Lstat(r.path()); err == nil {
		return fmt.Errorf("%w: %s is in the way", ErrExists, r.path())
	}
	if err := os.Rename(temporary, r.path()); err != nil {
		return err
	}
	if err := r.store.folder.sync(); err != nil {
		return err
	}
	r.definition, r.table = d, t
	r.state = initialState(d)
	return nil
}

func writeNewFile(ctx context.Context, path string, d *tsdbpb.CreateRegionRequest, t *table) (err error) {
	text, err := protojson.Marshal(d)
	if err != nil {
		return err
	}
	f, err := openFile(path, true)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.close()) }()
	tx, err := f.writer.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }() // does nothing after a commit
	for _, statement := range append(append([]string{}, layout...), t.createSQL()...) {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	for key, value := range map[string]any{
		"format": fileFormat, "region_id": int64(d.GetRoute().GetRegionId()), //nolint:gosec // read back as written
		"replica_id": int64(d.GetRoute().GetReplicaId()), "definition": string(text), //nolint:gosec // the same
	} {
		if _, err := tx.ExecContext(ctx, "INSERT INTO meta VALUES (?, ?)", key, value); err != nil {
			return err
		}
	}
	if err := writeState(ctx, tx, initialState(d)); err != nil {
		return err
	}
	return tx.Commit()
}

// checkHeader returns ErrDamaged for a file that SQLite would take for a new one, and then write to.
func checkHeader(path string) error {
	const magic = "SQLite format 3\x00"
	f, err := os.Open(path) //nolint:gosec // a name of ours
	if err != nil {
		return err
	}
	head := make([]byte, len(magic))
	_, err = io.ReadFull(f, head)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if string(head) != magic {
		return fmt.Errorf("%w: it is no SQLite file", ErrDamaged)
	}
	return nil
}

// checkFormat returns ErrFormat for a file that another version of the program has written, and ErrDamaged for one that no
// version has.
func checkFormat(meta map[string]any) error {
	format, ok := meta["format"].(int64)
	switch {
	case !ok || format < 1:
		return fmt.Errorf("%w: it doesn't say of which version it is", ErrDamaged)
	case format != fileFormat:
		return fmt.Errorf("%w: it is of version %d, this program reads version %d; start the version of tsdb that reads it, or, where other "+
			"replicas of the region are in sync, delete it: metasrv has the replica rebuilt from them", ErrFormat, format, fileFormat)
	}
	return nil
}

// load reads who the replica is.
func (r *Replica) load(ctx context.Context) error {
	if err := checkHeader(r.path()); err != nil {
		return err
	}
	return r.use(func(f *file) error {
		meta, err := readMeta(ctx, f.writer)
		if err != nil {
			return err
		}
		if err := checkFormat(meta); err != nil {
			return err
		}
		text, _ := meta["definition"].(string)
		d := &tsdbpb.CreateRegionRequest{}
		if err := protojson.Unmarshal([]byte(text), d); err != nil {
			return fmt.Errorf("%w: its definition can't be read: %w", ErrDamaged, err)
		}
		region, _ := meta["region_id"].(int64)
		id, _ := meta["replica_id"].(int64)
		if err := checkDefinition(d); err != nil {
			return fmt.Errorf("%w: its definition is wrong: %w", ErrDamaged, err)
		}
		if uint64(region) != uint64(r.region) || uint64(id) != uint64(r.id) || //nolint:gosec // as written
			d.GetRoute().GetRegionId() != uint64(r.region) || d.GetRoute().GetReplicaId() != uint64(r.id) {
			return fmt.Errorf("%w: it holds replica %d of region %s", ErrDamaged, id, metasrv.RegionID(region)) //nolint:gosec // as written
		}
		t, err := newTable(d.GetSchema())
		if err != nil {
			return err
		}
		state, err := readState(ctx, f.writer)
		if err != nil {
			return err
		}
		r.definition, r.table = d, t
		r.ages.mark(time.Now(), state.StoredSeq)
		r.mu.Lock()
		defer r.mu.Unlock()
		r.state = state
		r.uncounted = 1 // count once: the stored number is an upper bound
		return nil
	})
}
