package raftfsm

import (
	"math"
	"sync"

	"github.com/hashicorp/raft"
)

// logCacheBytes bounds the entries that are kept in memory: those that a follower lags behind by a moment, and those
// that were stored and are about to be executed. An entry has from a hundred bytes up to maxBatchBytes, so a number of
// entries would be too few or too much.
const logCacheBytes = 16 << 20

// logCache keeps the latest entries of a log in memory, so that raft doesn't read from the disk what it has just
// written.
type logCache struct {
	raft.LogStore
	limit int

	mu sync.RWMutex
	// recent has entries of consecutive indexes, oldest first; those before head are gone.
	recent []raft.Log
	head   int
	bytes  int
}

func newLogCache(log raft.LogStore, limit int) *logCache {
	return &logCache{LogStore: log, limit: limit}
}

// GetLog returns an entry.
func (c *logCache) GetLog(index uint64, log *raft.Log) error {
	if c.get(index, log) {
		return nil
	}
	return c.LogStore.GetLog(index, log)
}

func (c *logCache) get(index uint64, log *raft.Log) bool {
	c.mu.RLock()
	defer c.mu.RUnlock()
	cached := c.at(index)
	if cached == nil {
		return false
	}
	*log = *cached
	return true
}

// at returns the entry of an index, nil if it is not in memory.
func (c *logCache) at(index uint64) *raft.Log {
	kept := c.recent[c.head:]
	if len(kept) == 0 || index < kept[0].Index || index > kept[len(kept)-1].Index {
		return nil
	}
	return &kept[index-kept[0].Index]
}

// StoreLog appends an entry.
func (c *logCache) StoreLog(log *raft.Log) error { return c.StoreLogs([]*raft.Log{log}) }

// StoreLogs appends entries. They are in memory when they are on the disk.
func (c *logCache) StoreLogs(logs []*raft.Log) error {
	if err := c.LogStore.StoreLogs(logs); err != nil {
		c.forget(0, math.MaxUint64)
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, log := range logs {
		if n := len(c.recent); n > 0 && c.recent[n-1].Index+1 != log.Index {
			c.drop()
		}
		// A copy: raft's own is a part of the future that holds the results of the entry.
		c.recent = append(c.recent, *log)
		c.bytes += logBytes(log)
	}
	c.trim()
	return nil
}

// trim drops the oldest entries while there are too many bytes. It moves the others rarely.
func (c *logCache) trim() {
	for c.bytes > c.limit && c.head < len(c.recent) {
		c.bytes -= logBytes(&c.recent[c.head])
		c.recent[c.head] = raft.Log{}
		c.head++
	}
	if c.head > len(c.recent)/2 {
		n := copy(c.recent, c.recent[c.head:])
		clear(c.recent[n:])
		c.recent, c.head = c.recent[:n], 0
	}
}

// DeleteRange drops entries at one end of the log.
func (c *logCache) DeleteRange(first, last uint64) error {
	c.forget(first, last)
	return c.LogStore.DeleteRange(first, last)
}

// forget drops everything if an entry of the range is among it. Old entries, which the image has, usually are not.
func (c *logCache) forget(first, last uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if kept := c.recent[c.head:]; len(kept) > 0 && first <= kept[len(kept)-1].Index && last >= kept[0].Index {
		c.drop()
	}
}

// size returns what is in memory.
func (c *logCache) size() (entries, bytes int) {
	c.mu.RLock()
	defer c.mu.RUnlock()
	return len(c.recent) - c.head, c.bytes
}

func (c *logCache) drop() { c.recent, c.head, c.bytes = nil, 0, 0 }

// IsMonotonic is that of the log.
func (c *logCache) IsMonotonic() bool {
	log, ok := c.LogStore.(raft.MonotonicLogStore)
	return ok && log.IsMonotonic()
}

// logBytes is what an entry keeps in memory.
func logBytes(log *raft.Log) int { return cap(log.Data) + cap(log.Extensions) + 128 }
