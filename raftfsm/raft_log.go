package raftfsm

import (
	"errors"
	"runtime"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
)

// raftLog is the log as raft gets it once it runs. Where the log can't be read or written any more, raft would panic,
// or go on without what it has promised. Instead, its goroutine ends here: the member has failed and says why, its
// deferred calls end its leadership, and nothing more is promised.
type raftLog struct{ *logStore }

// done returns an error that raft can do with; else it ends the goroutine.
func (raftLog) done(err error) error {
	if err == nil || isAnswer(err) || errors.Is(err, metasrv.ErrDiskFull) || errors.Is(err, errRefused) {
		return err
	}
	runtime.Goexit()
	return err
}

// FirstIndex implements raft.LogStore.
func (l raftLog) FirstIndex() (uint64, error) {
	index, err := l.logStore.FirstIndex()
	return index, l.done(err)
}

// LastIndex implements raft.LogStore.
func (l raftLog) LastIndex() (uint64, error) {
	index, err := l.logStore.LastIndex()
	return index, l.done(err)
}

// GetLog implements raft.LogStore.
func (l raftLog) GetLog(index uint64, log *raft.Log) error {
	return l.done(l.logStore.GetLog(index, log))
}

// StoreLogs implements raft.LogStore.
func (l raftLog) StoreLogs(logs []*raft.Log) error { return l.done(l.logStore.StoreLogs(logs)) }

// StoreLog implements raft.LogStore.
func (l raftLog) StoreLog(log *raft.Log) error { return l.done(l.logStore.StoreLog(log)) }

// DeleteRange implements raft.LogStore.
func (l raftLog) DeleteRange(first, last uint64) error {
	return l.done(l.logStore.DeleteRange(first, last))
}

// Set implements raft.StableStore.
func (l raftLog) Set(key, value []byte) error { return l.done(l.logStore.Set(key, value)) }

// SetUint64 implements raft.StableStore.
func (l raftLog) SetUint64(key []byte, value uint64) error {
	return l.done(l.logStore.SetUint64(key, value))
}

// Get implements raft.StableStore.
func (l raftLog) Get(key []byte) ([]byte, error) {
	value, err := l.logStore.Get(key)
	return value, l.done(err)
}

// GetUint64 implements raft.StableStore.
func (l raftLog) GetUint64(key []byte) (uint64, error) {
	value, err := l.logStore.GetUint64(key)
	return value, l.done(err)
}
