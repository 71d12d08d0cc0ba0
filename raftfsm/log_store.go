package raftfsm

import (
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// logStore guards the log: nothing that the image still needs is dropped, and nothing that the member has executed is
// overruled.
type logStore struct {
	raft.LogStore
	// kept returns the bounds of what must stay: entries above flushed, up to applied, are in the state but
	// not in the image yet.
	kept func() (flushed, applied uint64)
	fail func(error)
	// reset: a snapshot has replaced the state, so raft empties the log before it stores the next entry.
	reset atomic.Bool
}

// expectReset allows to empty the log once.
func (s *logStore) expectReset() { s.reset.Store(true) }

// StoreLogs appends entries.
func (s *logStore) StoreLogs(logs []*raft.Log) error {
	s.reset.Store(false)
	return s.LogStore.StoreLogs(logs)
}

// StoreLog appends an entry.
func (s *logStore) StoreLog(log *raft.Log) error { return s.StoreLogs([]*raft.Log{log}) }

func openLog(path string) (*raftboltdb.BoltStore, error) {
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
	return store, openError(path, err)
}

// DeleteRange drops entries: at the front what the image has, at the back what a new metasrv leader overrules. That is
// never an entry that was executed: raft overrules only what no majority had. If it comes to that, members have lost
// what they acknowledged, and this one must not go on with a state that the others don't have.
func (s *logStore) DeleteRange(first, last uint64) error {
	end, err := s.LastIndex()
	if err != nil {
		return err
	}
	flushed, applied := s.kept()
	switch {
	case last < end:
		if last > flushed {
			return fmt.Errorf("refused to drop the entries %d to %d: the image has reached %d", first, last, flushed)
		}
	case first <= applied && !s.reset.Load():
		err := fmt.Errorf("the metasrv leader overrules the entries from %d on, but this member has executed up to %d: "+
			"other members have lost what they acknowledged, or belong to another cluster; keep all data folders, and find out which members have the right data",
			first, applied)
		s.fail(err)
		return err
	}
	return s.LogStore.DeleteRange(first, last)
}

// IsMonotonic makes raft empty the log when a snapshot is installed. Otherwise old entries could stay before a gap,
// and installs could repeat without end (hashicorp/raft#697).
func (s *logStore) IsMonotonic() bool { return true }

// reconcile makes log and image of a starting member fit: raft starts at the index of the image and replays what
// the log has behind it.
func reconcile(log raft.LogStore, imageIndex uint64) error {
	first, err := log.FirstIndex()
	if err != nil {
		return err
	}
	last, err := log.LastIndex()
	switch {
	case err != nil:
		return err
	case last == 0:
		return nil
	case first > imageIndex+1:
		return fmt.Errorf("the log begins at entry %d but the image ends at %d: entries are missing, perhaps state.db was removed or replaced; "+
			"remove this member from the cluster and let it join again with an empty folder under a new id", first, imageIndex)
	case last < imageIndex:
		// The member ended between the install of a snapshot and the reset of its log.
		return log.DeleteRange(first, last)
	}
	return nil
}
