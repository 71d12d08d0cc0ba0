package raftfsm

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const feedBytes = 64 << 20

// fsm executes the entries that raft hands over, one after the other, and publishes the state after each.
type fsm struct {
	// mu is held for a whole entry, so that a cut falls between two.
	mu      sync.Mutex
	machine *machine.Machine
	// dirty has the keys that the image lacks, unflushed what was executed to change them.
	dirty     map[string]struct{}
	unflushed unflushed
	// entryBytes is the size of all entries that were executed.
	entryBytes atomic.Uint64
	hashes     hashRing
	failed     bool

	feed    *machine.Feed
	current published
	flusher *flusher
	logs    raft.LogStore
	// checkReceived says whether install may put the received snapshot in the place of the image.
	checkReceived func() error
	install       func(old *image) (*image, *applied, error)
	// installs counts the snapshots that have replaced the state.
	installs atomic.Uint64
	// installed is called when a snapshot has replaced the state.
	installed func()
	fail      func(error)
}

// newFSM returns an fsm that continues from a state. fail is called where the member can't go on.
func newFSM(from *applied, appliers []state.Applier, logs raft.LogStore, fail func(error)) *fsm {
	f := &fsm{
		machine: machine.New(appliers...),
		dirty:   make(map[string]struct{}),
		feed:    machine.NewFeed(from.view.Revision(), feedBytes),
		logs:    logs,
		fail:    fail,
	}
	f.machine.Reset(from.view)
	f.current.fsm = f
	f.current.store(from)
	return f
}

// entryResult is what raft returns to the proposer of an entry.
type entryResult struct {
	term    uint64
	outcome machine.Outcome
	err     error
}

// Apply executes one entry.
func (f *fsm) Apply(log *raft.Log) any {
	f.flusher.throttle()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed {
		return entryResult{err: metasrv.ErrOutcomeUnknown.With("this member has failed and is stopping")}
	}
	if log.Index <= f.current.index() {
		return entryResult{err: fmt.Errorf("entry %d was applied before", log.Index)}
	}
	began := time.Now()
	was := f.machine.Position().Index
	out, err := f.machine.Apply(log.Index, log.Term, log.Data)
	if err != nil {
		f.halt(err)
		return entryResult{err: metasrv.ErrOutcomeUnknown.With("this member can't execute the entry: %v", err)}
	}
	for _, key := range out.Written {
		f.dirty[key] = struct{}{}
	}
	f.entryBytes.Add(uint64(len(log.Data)))
	f.hashes.note(was, log.Index, f.machine.Hash)
	f.current.advance(f.machine.Position())
	f.feed.Publish(out.Revisions)
	f.unflushed = f.unflushed.plus(unflushed{bytes: len(log.Data), executing: time.Since(began)})
	f.flusher.written(f.unflushed)
	return entryResult{term: log.Term, outcome: out}
}

// StoreConfiguration takes the place of Apply for entries that change the raft configuration.
func (f *fsm) StoreConfiguration(index uint64, configuration raft.Configuration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.failed || index <= f.current.index() {
		return
	}
	var log raft.Log
	if err := f.logs.GetLog(index, &log); err != nil {
		f.halt(fmt.Errorf("read entry %d: %w", index, err))
		return
	}
	was := f.machine.Position().Index
	f.machine.SkipTo(index, log.Term)
	f.hashes.note(was, index, f.machine.Hash)
	f.current.store(&applied{view: f.machine.View(), configuration: configuration, configurationIndex: index})
}

// halt stops the execution of entries: this member's state would differ from the others'.
func (f *fsm) halt(err error) {
	f.failed = true
	f.fail(err)
}

// cut returns the present state and the keys that have changed since the last cut, with what was executed to change
// them. All are of the same moment between two entries, so that an image written from them is the state at exactly that index.
func (f *fsm) cut() (*applied, []string, unflushed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	keys := make([]string, 0, len(f.dirty))
	for key := range f.dirty {
		keys = append(keys, key)
	}
	work := f.unflushed
	f.dirty = make(map[string]struct{}, len(f.dirty))
	f.unflushed = unflushed{}
	f.flusher.lacking.Store(0)
	return f.current.latest(), keys, work
}

// putBack returns the keys of a cut that could not be written to those of the next.
func (f *fsm) putBack(keys []string, work unflushed) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, key := range keys {
		f.dirty[key] = struct{}{}
	}
	f.unflushed = f.unflushed.plus(work)
	f.flusher.written(f.unflushed)
}

// Snapshot makes raft drop log entries that the image has. It waits, in Persist, until the image has all that
// is applied now; there is no dump.
func (f *fsm) Snapshot() (raft.FSMSnapshot, error) {
	installs := f.installs.Load()
	return &localSnapshot{index: f.current.index(), fsm: f, installs: installs}, nil
}

// Restore replaces the state by the one that the snapshot store has received and verified. Nothing is flushed
// meanwhile, and what was dirty belongs to the old state.
func (f *fsm) Restore(source io.ReadCloser) error {
	_ = source.Close()
	if err := f.checkReceived(); err != nil {
		return err // nothing has changed, and the metasrv leader sends another one
	}
	err := f.flusher.replace(func(old *image) (*image, uint64, error) {
		img, a, err := f.install(old)
		if err != nil {
			return nil, 0, err
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		clear(f.dirty)
		f.unflushed = unflushed{}
		f.flusher.lacking.Store(0)
		f.machine.Reset(a.view)
		f.hashes.clear()
		f.current.store(a)
		f.feed.Reset(a.view.Revision())
		f.installs.Add(1)
		f.installed()
		return img, a.index(), nil
	})
	if err != nil {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.halt(fmt.Errorf("install snapshot: %w", err))
	}
	return err
}

// localSnapshot is the image itself, once it has reached an index.
type localSnapshot struct {
	index uint64
	fsm   *fsm
	// installs is how many there were when the index was taken.
	installs uint64
}

var errReplaced = errors.New("a snapshot has replaced the state")

// Persist waits until the image on disk has reached the index. It fails where a snapshot was installed meanwhile: raft
// would take the lower index for that of its latest snapshot, refuse what the metasrv leader sends next, and be sent
// snapshots without end. That is likely, for raft goes on to here only when an install has ended.
func (s *localSnapshot) Persist(raft.SnapshotSink) error {
	if err := s.fsm.flusher.flushTo(s.index); err != nil {
		return err
	}
	if s.fsm.installs.Load() != s.installs {
		return errReplaced
	}
	return nil
}

// Release does nothing: the image stays.
func (s *localSnapshot) Release() {}
