package raftfsm

import (
	"bytes"
	"encoding/binary"
	"errors"

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
