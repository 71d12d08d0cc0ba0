package machine

import (
	"iter"

	"github.com/metasrv/metasrv/raftfsm/state"
)

// tx lets one command change the working tree and can undo it all.
type tx struct {
	tree     *tree
	revision uint64
	now      state.LeaderTime
	// undo holds, in order, each key that was written with the value that it had.
	undo []undo
	// sum is what the command adds to the hash of the state, set by changes.
	sum uint64
}

type undo struct {
	key     string
	prev    []byte
	existed bool
}

func (t *tx) Get(key string) ([]byte, bool) { return t.tree.Get(key) }

// Ascend iterates a copy, so that an applier may write while it iterates.
func (t *tx) Ascend(from, to string) iter.Seq2[string, []byte] {
	return ascend(t.tree.Copy(), from, to)
}

func (t *tx) Revision() uint64      { return t.revision }
func (t *tx) Now() state.LeaderTime { return t.now }

func (t *tx) Put(key string, value []byte) {
	prev, existed := t.tree.Set(key, value)
	t.undo = append(t.undo, undo{key: key, prev: prev, existed: existed})
}

func (t *tx) Delete(key string) {
	if prev, existed := t.tree.Delete(key); existed {
		t.undo = append(t.undo, undo{key: key, prev: prev, existed: true})
	}
}

func (t *tx) rollback() {
	for i := len(t.undo) - 1; i >= 0; i-- {
		if u := t.undo[i]; u.existed {
			t.tree.Set(u.key, u.prev)
		} else {
			t.tree.Delete(u.key)
		}
	}
	t.undo = nil
}

// changes returns what the command changed, each key once, without the machine's own keys. written are all
// keys, those included.
func (t *tx) changes() (changes []state.Change, written []string) {
	seen := make(map[string]struct{}, len(t.undo))
	for _, u := range t.undo {
		if _, again := seen[u.key]; again {
			continue
		}
		seen[u.key] = struct{}{}
		written = append(written, u.key)
		value, exists := t.tree.Get(u.key)
		if u.existed {
			t.sum -= pairHash(u.key, u.prev)
		}
		if exists {
			t.sum += pairHash(u.key, value)
		}
		if isSystem(u.key) {
			continue
		}
		if !exists && !u.existed {
			continue
		}
		c := state.Change{Key: u.key}
		if exists {
			c.Value = nonNil(value)
		}
		if u.existed {
			c.Prev = nonNil(u.prev)
		}
		changes = append(changes, c)
	}
	return changes, written
}

// nonNil keeps an empty value apart from none.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
