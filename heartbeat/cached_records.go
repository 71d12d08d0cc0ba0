package heartbeat

import (
	"bytes"
	"sync"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// recordCache keeps the decoded records of all nodes, for they seldom change.
type recordCache struct {
	mu      sync.Mutex
	entries map[string]cachedRecord
}

type cachedRecord struct {
	value  []byte
	record *storagepb.NodeRecord
}

// all returns the records of a view, sorted by id.
func (c *recordCache) all(v state.View) ([]*storagepb.NodeRecord, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	records := make([]*storagepb.NodeRecord, 0, len(c.entries))
	for key, value := range v.Ascend(NodePrefix, nodeEnd) {
		record, err := c.of(key, value)
		if err != nil {
			return nil, err
		}
		records = append(records, record)
	}
	return records, nil
}

// one returns the record of one node, or ErrNodeNotFound.
func (c *recordCache) one(v state.View, id metasrv.NodeID) (*storagepb.NodeRecord, error) {
	key := nodeKey(id)
	value, ok := v.Get(key)
	if !ok {
		return nil, metasrv.ErrNodeNotFound.With("node %d is not registered", id)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.of(key, value)
}

// of returns the record that is stored under a key. c.mu is held.
func (c *recordCache) of(key string, value []byte) (*storagepb.NodeRecord, error) {
	if cached, ok := c.entries[key]; ok && bytes.Equal(cached.value, value) {
		return cached.record, nil
	}
	record, err := decode(key, value)
	if err != nil {
		return nil, err
	}
	if c.entries == nil {
		c.entries = map[string]cachedRecord{}
	}
	c.entries[key] = cachedRecord{value: value, record: record}
	return record, nil
}
