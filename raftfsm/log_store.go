package raftfsm

import (
	"fmt"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// logStore guards the log: nothing that the image still needs is dropped.
type logStore struct {
	raft.LogStore
	// kept returns the bounds of what must stay: entries above flushed, up to applied, are in the state but
	// not in the image yet.
	kept func() (flushed, applied uint64)
}

func openLog(path string) (*raftboltdb.BoltStore, error) {
	store, err := raftboltdb.New(raftboltdb.Options{Path: path, BoltOptions: boltOptions()})
	return store, openError(path, err)
}

// DeleteRange drops entries: at the front what the image has, at the back what a new metasrv leader overrules.
func (s *logStore) DeleteRange(first, last uint64) error {
	if flushed, applied := s.kept(); max(first, flushed+1) <= min(last, applied) {
		return fmt.Errorf("refused to drop the entries %d to %d: the image has reached %d, the state %d", first, last, flushed, applied)
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
