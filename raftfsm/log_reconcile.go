package raftfsm

import (
	"fmt"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv/raftfsm/machine"
)

// reconcile checks that log and image of a starting member belong together, and makes them fit: raft starts at the index
// of the image and replays what the log has behind it.
func reconcile(log *logStore, image machine.Position) error {
	term, err := log.GetUint64(keyCurrentTerm)
	if err != nil {
		return err
	}
	if term == 0 && image.Index > 0 {
		return fmt.Errorf("there is a state at index %d but no log in %s: a member that has lost its log may have voted and must not vote again; "+
			replaceMember, image.Index, log.path)
	}
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
	case first > image.Index+1:
		return fmt.Errorf("the log begins at entry %d but the image ends at %d: entries are missing, perhaps state.db was removed or replaced; "+
			replaceMember, first, image.Index)
	case last < image.Index:
		// The member ended between the install of a snapshot and the reset of its log.
		return log.db.DeleteRange(first, last)
	}
	if other, err := log.isOther(first, image); err != nil || other {
		if err == nil {
			err = log.db.DeleteRange(first, last)
		}
		return err
	}
	return log.checkTerm(last)
}

// isOther reports whether the log has another entry than the image at its index: the member ended between an install and
// the reset as well, with a longer log of which no majority had the end. What is in the image was committed, so nothing
// behind another entry can have been.
func (s *logStore) isOther(first uint64, image machine.Position) (bool, error) {
	if image.Index < first {
		return false, nil
	}
	var entry raft.Log
	if err := s.GetLog(image.Index, &entry); err != nil {
		return false, fmt.Errorf("read entry %d: %w", image.Index, err)
	}
	return entry.Term != image.Term, nil
}

// checkTerm returns an error if the last entry is of a later term than the member has been in: it has lost its term,
// and with it its vote.
func (s *logStore) checkTerm(last uint64) error {
	var entry raft.Log
	if err := s.GetLog(last, &entry); err != nil {
		return fmt.Errorf("read entry %d: %w", last, err)
	}
	term, err := s.GetUint64(keyCurrentTerm)
	if err != nil {
		return err
	}
	if entry.Term > term {
		return damaged(s.path, "its last entry is of term %d, but its term is %d", entry.Term, term)
	}
	return nil
}
