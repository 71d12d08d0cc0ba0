package raftfsm

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"github.com/metasrv/metasrv"
)

// logDB is what the log and raft's own values (term, vote) are kept in.
type logDB interface {
	raft.LogStore
	raft.StableStore
	io.Closer
}

// logStore guards the log: nothing that the image still needs is dropped, nothing that the member has executed is
// overruled, nothing is read that was not written, and a disk that hangs or fails ends the member.
type logStore struct {
	db   logDB
	path string
	// kept returns the bounds of what must stay: entries above flushed, up to applied, are in the state but
	// not in the image yet.
	kept  func() (flushed, applied uint64)
	fail  func(error)
	watch *watchdog
	disk  *disk
	slow  func(write func() error) error
	// pins keeps what members that are being fed with a snapshot will need, nil for nothing.
	pins *pins
	// stop is closed when the member closes.
	stop <-chan struct{}
	// checkedFrom is the first entry that must have a checksum.
	checkedFrom uint64
	// reset: a snapshot has replaced the state, so raft empties the log before it stores the next entry.
	reset atomic.Bool
	// cut: entries at the end were dropped, and those of the metasrv leader are to take their place. Raft counts
	// them as still there until then, so it must not get away with less.
	cut atomic.Bool
	// cuts counts how often that began.
	cuts atomic.Int64
	// installs counts snapshots without an entry stored in between.
	installs atomic.Int32
	// noteEnd writes down where the log ends, for a store that would not find out that its end is missing; nil for others.
	noteEnd func() error
}

// errStopping: the member closes, and the call was not done.
var errStopping = errors.New("this member is stopping")

// errRefused: the log keeps what it was asked to drop.
var errRefused = errors.New("refused")

// openLog opens the log of a member in a file. fail is called where the member can't go on.
func openLog(path string, fail func(error)) (*logStore, error) {
	if err := checkBolt(path, "logs", "conf"); err != nil {
		return nil, err
	}
	db, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
	if err != nil {
		return nil, openError(path, err)
	}
	return guardLog(db, path, fail)
}

// guardLog puts the guard before a log, which it closes where it can't.
func guardLog(db logDB, path string, fail func(error)) (*logStore, error) {
	s := &logStore{db: db, path: path, fail: fail, slow: atOnce, kept: func() (uint64, uint64) { return 0, 0 }}
	if err := s.prepareValues(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

// Close closes the log.
func (s *logStore) Close() error { return s.db.Close() }

// read runs a call that changes nothing. What is damaged ends the member.
func (s *logStore) read(call func() error) error {
	c := s.watch.begin("a read of "+s.path, 0)
	err := guarded(s.path, call)
	c.end()
	switch {
	case err == nil, isAnswer(err):
		return err
	case !errors.Is(err, ErrDamaged):
		err = fmt.Errorf("read %s: %w", s.path, err)
	}
	s.fail(err)
	return err
}

// write runs a call that changes the files. ErrDiskFull: it has changed nothing, and may be done again. Another
// failure ends the member: nothing is known of what is on the disk.
func (s *logStore) write(what string, call func() error) error {
	c := s.watch.begin(what+" to "+s.path, 0)
	err := s.slow(func() error { return guarded(s.path, call) })
	c.end()
	switch {
	case err == nil, isAnswer(err):
		return err
	case isDiskFull(err):
		s.disk.ranOut()
		return fmt.Errorf("%s to %s: %w", what, s.path, s.disk.fullError())
	case !errors.Is(err, ErrDamaged):
		err = fmt.Errorf("%s to %s failed: %w. Nothing is known of what the disk has kept, so this member ends; "+
			"check the disk, then start the member again, which reads the file anew", what, s.path, err)
	}
	s.fail(err)
	return err
}

// insist is write for what raft can't do without: it waits for space.
func (s *logStore) insist(what string, call func() error) error {
	for {
		err := s.write(what, call)
		if !errors.Is(err, metasrv.ErrDiskFull) || s.disk == nil {
			return err
		}
		if !s.disk.await(s.stop) {
			return errStopping
		}
	}
}

// note writes down where the log ends. It may fail for lack of space: then less is known at the next start.
func (s *logStore) note() {
	if s.noteEnd != nil {
		_ = s.write("a write", s.noteEnd)
	}
}

// FirstIndex returns the index of the first entry, 0 if there is none.
func (s *logStore) FirstIndex() (index uint64, err error) {
	err = s.read(func() error {
		index, err = s.db.FirstIndex()
		return err
	})
	return index, err
}

// LastIndex returns the index of the last entry, 0 if there is none.
func (s *logStore) LastIndex() (index uint64, err error) {
	err = s.read(func() error {
		index, err = s.db.LastIndex()
		return err
	})
	return index, err
}

// GetLog reads an entry.
func (s *logStore) GetLog(index uint64, log *raft.Log) error {
	return s.read(func() error {
		switch err := s.db.GetLog(index, log); {
		case errors.Is(err, raft.ErrLogNotFound):
			return s.absent(index)
		case err != nil && !isAnswer(err):
			return damaged(s.path, "entry %d: %v", index, err)
		case err != nil:
			return err
		}
		if err := unseal(log, index, index >= s.checkedFrom); err != nil {
			return damaged(s.path, "%v", err)
		}
		return nil
	})
}

// absent returns the error for an entry that is not there: entries are missing at the ends of a log, never in between.
func (s *logStore) absent(index uint64) error {
	first, err := s.db.FirstIndex()
	if err != nil {
		return err
	}
	last, err := s.db.LastIndex()
	if err != nil {
		return err
	}
	if first > 0 && first <= index && index <= last {
		return damaged(s.path, "entry %d is missing between %d and %d", index, first, last)
	}
	return raft.ErrLogNotFound
}

// maxInstalls is how many snapshots may be installed with no entry stored in between.
const maxInstalls = 3

// expectReset allows to empty the log once, after an install. A log that is not empty then can make raft ask for the
// same snapshot again and again (hashicorp/raft#697); a restart puts raft's idea of the log right.
func (s *logStore) expectReset() {
	s.reset.Store(true)
	if s.installs.Add(1) >= maxInstalls {
		s.fail(fmt.Errorf("%d snapshots were installed without an entry after them: raft does not get on from its log as it has it in memory; "+
			"this member ends, and goes on from the last snapshot when it is started again", maxInstalls))
	}
}

// StoreLogs appends entries.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	do := s.write
	if s.cut.Load() {
		do = s.insist
	}
	entries := sealed(logs)
	if err := do("a write", func() error { return s.db.StoreLogs(entries) }); err != nil {
		return err
	}
	s.reset.Store(false)
	s.cut.Store(false)
	s.installs.Store(0)
	return nil
}

// StoreLog appends an entry.
func (s *logStore) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

// DeleteRange drops entries: at the front what the image has, at the back what a new metasrv leader overrules. That is
// never an entry that was executed: raft overrules only what no majority had. If it comes to that, members have lost
// what they acknowledged, and this one must not go on with a state that the others don't have.
func (s *logStore) DeleteRange(first, last uint64) error {
	cuts, cutting := s.cuts.Load(), s.cut.Load()
	end, err := s.LastIndex()
	if err != nil {
		return err
	}
	if end == 0 {
		return nil
	}
	flushed, applied := s.kept()
	do := s.insist
	switch {
	case last < end:
		if last > flushed {
			return fmt.Errorf("%w to drop the entries %d to %d: the image has reached %d", errRefused, first, last, flushed)
		}
		if last = min(last, s.pins.before()); last < first {
			return nil // raft asks again
		}
		do = s.write
	case first <= applied && !s.reset.Load():
		if cutting || s.cut.Load() || s.cuts.Load() != cuts { // raft drops what the image has by the length that the log had before
			return fmt.Errorf("%w to drop the entries %d to %d: those of the metasrv leader are not behind them yet", errRefused, first, last)
		}
		err := fmt.Errorf("the metasrv leader overrules the entries from %d on, but this member has executed up to %d: "+
			"other members have lost what they acknowledged, or belong to another cluster; keep all data folders, and find out which members have the right data",
			first, applied)
		s.fail(err)
		return err
	}
	if last >= end && !s.reset.Load() {
		s.cut.Store(true)
		s.cuts.Add(1)
	}
	return do("a write", func() error { return s.db.DeleteRange(first, last) })
}

// IsMonotonic makes raft empty the log when a snapshot is installed. Otherwise old entries could stay before a gap,
// and installs could repeat without end (hashicorp/raft#697).
func (s *logStore) IsMonotonic() bool { return true }
