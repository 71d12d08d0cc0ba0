package machine

import (
	"iter"
	"slices"

	"github.com/metasrv/metasrv/raftfsm/state"
)

// tx lets one command change the working tree and can undo it all.
type tx struct {
	tree     *tree
	revision uint64
	now      state.LeaderTime
	version  uint32
	// writes holds, in order, what was written.
	writes []write
	// sum is what the command adds to the hash of the state, set by changes.
	sum uint64
}

// write is one key with its value before and after; existed and exists tell an empty value from none.
type write struct {
	key             string
	prev, value     []byte
	existed, exists bool
}

// maxRoom is the number of writes for which room is kept.
const maxRoom = 16

// begin makes t the transaction of the next command. The room for its writes is used again.
func (t *tx) begin(m *Machine) {
	writes := t.writes[:0]
	clear(writes[:cap(writes)])
	if cap(writes) > maxRoom {
		writes = nil
	}
	*t = tx{tree: m.tree, revision: m.pos.Revision, now: m.pos.Now, version: m.pos.Version, writes: writes}
}

func (t *tx) Get(key string) ([]byte, bool) { return t.tree.Get(key) }

// Ascend iterates a copy, so that an applier may write while it iterates.
func (t *tx) Ascend(from, to string) iter.Seq2[string, []byte] {
	return ascend(t.tree.Copy(), from, to)
}

func (t *tx) Revision() uint64       { return t.revision }
func (t *tx) ClusterVersion() uint32 { return t.version }
func (t *tx) Now() state.LeaderTime  { return t.now }

func (t *tx) Put(key string, value []byte) {
	prev, existed := t.tree.Set(key, value)
	t.writes = append(t.writes, write{key: key, prev: prev, value: value, existed: existed, exists: true})
}

func (t *tx) Delete(key string) {
	if prev, existed := t.tree.Delete(key); existed {
		t.writes = append(t.writes, write{key: key, prev: prev, existed: true})
	}
}

func (t *tx) rollback() {
	for i := len(t.writes) - 1; i >= 0; i-- {
		if w := t.writes[i]; w.existed {
			t.tree.Set(w.key, w.prev)
		} else {
			t.tree.Delete(w.key)
		}
	}
	t.writes = nil
}

// changes returns what the command changed, each key once, without the machine's own keys. It adds all keys, those
// included, to out.
func (t *tx) changes(out *Outcome) []state.Change {
	var changes []state.Change
	for _, w := range merged(t.writes) {
		out.Written = append(out.Written, w.key)
		if w.existed {
			t.sum -= pairHash(w.key, w.prev)
		}
		if w.exists {
			t.sum += pairHash(w.key, w.value)
		}
		if isSystem(w.key) || !w.exists && !w.existed {
			continue
		}
		changes = append(changes, w.change())
	}
	return changes
}

// merged joins the writes of a key to one, from the value before the first to the value after the last.
func merged(writes []write) []write {
	if len(writes) < 2 {
		return writes
	}
	whole := make([]write, 0, len(writes))
	find := func(key string) int {
		return slices.IndexFunc(whole, func(w write) bool { return w.key == key })
	}
	if len(writes) > maxRoom {
		at := make(map[string]int, len(writes))
		find = func(key string) int {
			if i, again := at[key]; again {
				return i
			}
			at[key] = len(whole)
			return -1
		}
	}
	for _, w := range writes {
		if i := find(w.key); i >= 0 {
			whole[i].value, whole[i].exists = w.value, w.exists
			continue
		}
		whole = append(whole, w)
	}
	return whole
}

func (w *write) change() state.Change {
	c := state.Change{Key: w.key}
	if w.exists {
		c.Value = nonNil(w.value)
	}
	if w.existed {
		c.Prev = nonNil(w.prev)
	}
	return c
}

// nonNil keeps an empty value apart from none.
func nonNil(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
