package raftfsm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"
)

// The values that raft keeps beside the log. A wrong one may make a member vote twice in a term, so each is stored
// with a checksum, and none may be missing.
var (
	keyCurrentTerm  = []byte("CurrentTerm")
	keyLastVoteTerm = []byte("LastVoteTerm")
	keyLastVoteCand = []byte("LastVoteCand")
	// keyCheckedFrom holds logStore.checkedFrom; where it is, the others are checked too.
	keyCheckedFrom = []byte("metasrv.CheckedFrom")
)

// prepareValues makes sure that all values have checksums: those of a new log, and of one from before there were any.
func (s *logStore) prepareValues() error {
	from, err := s.GetUint64(keyCheckedFrom)
	if err == nil {
		s.checkedFrom = from
		return s.requireValues()
	}
	if !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return err
	}
	for key, initial := range map[string][]byte{
		string(keyCurrentTerm): uint64Bytes(0), string(keyLastVoteTerm): uint64Bytes(0), string(keyLastVoteCand): {},
	} {
		value, err := s.rawValue([]byte(key))
		switch {
		case errors.Is(err, raftboltdb.ErrKeyNotFound):
			value = initial
		case err != nil:
			return err
		default:
			if _, ok := unsealValue([]byte(key), value); ok {
				continue // the member ended in the middle of this
			}
		}
		if err := s.Set([]byte(key), value); err != nil {
			return err
		}
	}
	last, err := s.LastIndex()
	if err != nil {
		return err
	}
	s.checkedFrom = last + 1
	return s.SetUint64(keyCheckedFrom, s.checkedFrom)
}

func (s *logStore) requireValues() error {
	for _, key := range [][]byte{keyCurrentTerm, keyLastVoteTerm, keyLastVoteCand} {
		_, err := s.Get(key)
		if errors.Is(err, raftboltdb.ErrKeyNotFound) {
			return damaged(s.path, "%s is missing", key)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *logStore) rawValue(key []byte) (value []byte, err error) {
	err = s.read(func() error {
		value, err = s.db.Get(key)
		if err != nil && err.Error() == raftboltdb.ErrKeyNotFound.Error() {
			return raftboltdb.ErrKeyNotFound // each store has its own, which raft knows by the text
		}
		return err
	})
	return value, err
}

// Get returns a value of raft's own.
func (s *logStore) Get(key []byte) ([]byte, error) {
	stored, err := s.rawValue(key)
	if err != nil {
		return nil, err
	}
	value, ok := unsealValue(key, stored)
	if !ok {
		err := damaged(s.path, "the checksum of %s is wrong", key)
		s.fail(err)
		return nil, err
	}
	return value, nil
}

// GetUint64 returns a number of raft's own.
func (s *logStore) GetUint64(key []byte) (uint64, error) {
	value, err := s.Get(key)
	if err != nil {
		return 0, err
	}
	if len(value) != 8 {
		err := damaged(s.path, "%s has %d bytes", key, len(value))
		s.fail(err)
		return 0, err
	}
	return binary.BigEndian.Uint64(value), nil
}

// Set stores a value of raft's own.
func (s *logStore) Set(key, value []byte) error {
	return s.write("a write", func() error { return s.db.Set(key, sealedValue(key, value)) })
}

// SetUint64 stores a number of raft's own. It waits for space: raft can't do without its term.
func (s *logStore) SetUint64(key []byte, value uint64) error {
	if bytes.Equal(key, keyLastVoteTerm) {
		if err := s.forgetVote(); err != nil {
			return err
		}
	}
	return s.insist("a write", func() error { return s.db.Set(key, sealedValue(key, uint64Bytes(value))) })
}

// forgetVote drops the candidate of the last vote. Raft stores the term of a vote before its candidate: where the member
// ends in between, or the disk is full, an older candidate would stand beside the new term. Raft takes that for a vote
// which it gave, and gives it again without a look at the candidate's log. Beside none it gives no vote in that term.
func (s *logStore) forgetVote() error {
	candidate, err := s.Get(keyLastVoteCand)
	switch {
	case errors.Is(err, raftboltdb.ErrKeyNotFound), err == nil && len(candidate) == 0:
		return nil
	case err != nil:
		return err
	}
	return s.insist("a write", func() error { return s.db.Set(keyLastVoteCand, sealedValue(keyLastVoteCand, nil)) })
}

func uint64Bytes(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

// reconcile makes log and image of a starting member fit: raft starts at the index of the image and replays what
// the log has behind it.
func reconcile(log *logStore, imageIndex, imageTerm uint64) error {
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
		return log.db.DeleteRange(first, last)
	}
	if other, err := log.isOther(first, imageIndex, imageTerm); err != nil || other {
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
func (s *logStore) isOther(first, imageIndex, imageTerm uint64) (bool, error) {
	if imageIndex < first {
		return false, nil
	}
	var entry raft.Log
	if err := s.GetLog(imageIndex, &entry); err != nil {
		return false, fmt.Errorf("read entry %d: %w", imageIndex, err)
	}
	return entry.Term != imageTerm, nil
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
