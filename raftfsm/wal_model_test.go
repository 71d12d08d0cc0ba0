package raftfsm

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/hashicorp/raft"
)

// walModel is what a log has.
type walModel struct {
	entries []raft.Log
	term    uint64
}

func (m walModel) last() uint64 {
	if len(m.entries) == 0 {
		return 0
	}
	return m.entries[len(m.entries)-1].Index
}

func modelOf(log *logStore) (m walModel, err error) {
	first, err := log.FirstIndex()
	if err != nil {
		return m, err
	}
	last, err := log.LastIndex()
	if err != nil {
		return m, err
	}
	for i := first; i > 0 && i <= last; i++ {
		var entry raft.Log
		if err := log.GetLog(i, &entry); err != nil {
			return m, err
		}
		m.entries = append(m.entries, raft.Log{Index: entry.Index, Term: entry.Term, Data: entry.Data})
	}
	m.term, err = log.GetUint64(keyCurrentTerm)
	return m, err
}

func (m walModel) equal(other walModel) bool {
	return m.term == other.term && slices.EqualFunc(m.entries, other.entries, func(a, b raft.Log) bool {
		return a.Index == b.Index && a.Term == b.Term && bytes.Equal(a.Data, b.Data)
	})
}

// change does something to a log. It returns the model behind it.
func (m walModel) change(random *rand.Rand, log *logStore) (after walModel, do func() error) {
	after = walModel{slices.Clone(m.entries), m.term}
	switch n := len(m.entries); random.IntN(12) {
	case 0:
		after.term++
		return after, func() error { return log.SetUint64(keyCurrentTerm, after.term) }
	case 1:
		return after, func() error { log.note(); return nil }
	case 2, 3: // at the end; sometimes everything
		if n == 0 {
			return after, func() error { return nil }
		}
		keep := max(0, n-1-random.IntN(12))
		after.entries = after.entries[:keep]
		return after, func() error { return log.db.DeleteRange(m.entries[keep].Index, m.last()) }
	case 4: // at the front
		if n < 2 {
			return after, func() error { return nil }
		}
		drop := 1 + random.IntN(n-1)
		after.entries = after.entries[drop:]
		return after, func() error { return log.db.DeleteRange(m.entries[0].Index, m.entries[drop-1].Index) }
	}
	next := m.last() + 1
	if next == 1 {
		next += random.Uint64N(100)
	}
	var batch []*raft.Log
	for i := range 1 + random.Uint64N(4) {
		data := make([]byte, random.IntN(1500))
		for j := range data {
			data[j] = byte(random.Uint32N(4)) // zeros, and what frames begin with
		}
		entry := raft.Log{Index: next + i, Term: after.term, Data: data}
		after.entries = append(after.entries, entry)
		batch = append(batch, &entry)
	}
	return after, func() error { return log.StoreLogs(batch) }
}

// A log that is cut off its power again and again, also while it is opened, has what was stored before, and nothing else.
func TestWALSurvivesPowerCuts(t *testing.T) {
	random := seedOf(t)
	for range repeated(25) {
		possible := []walModel{{}}
		dir := filepath.Join(memoryDir(t), "wal")
		for range 8 {
			cut, now := cutWAL(t, random, dir, possible)
			if t.Failed() {
				return
			}
			dir = filepath.Join(memoryDir(t), "wal")
			cut.write(t, dir, random)
			possible = now
		}
	}
}

// cutWAL opens a log, which is one of the possible ones, and changes it until the power is cut. It returns what the cut
// leaves, and what the log may have then.
func cutWAL(t *testing.T, random *rand.Rand, dir string, possible []walModel) (taken walCut, then []walModel) {
	t.Helper()
	var mu sync.Mutex
	calls, at := 0, 1+random.IntN(60)
	disk := newWALDisk(t, dir, func(cut walCut) {
		mu.Lock()
		defer mu.Unlock()
		if calls++; calls <= at {
			taken, then = cut, possible
		}
	})
	log, err := openWAL(dir, disk.options(), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatalf("after a power cut: %v", err)
	}
	defer func() { _ = log.Close() }()
	m, err := modelOf(log)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(possible, m.equal) {
		t.Fatalf("after a power cut the log has %d entries up to %d and term %d; it had %s", len(m.entries), m.last(), m.term, describeModels(possible))
	}
	possibly := func(models ...walModel) bool {
		mu.Lock()
		defer mu.Unlock()
		possible = models
		return calls < at
	}
	for possibly(m) {
		after, do := m.change(random, log)
		possibly(m, after)
		if err := do(); err != nil {
			t.Fatal(err)
		}
		m = after
	}
	return taken, then
}

func describeModels(models []walModel) string {
	var b bytes.Buffer
	for _, m := range models {
		fmt.Fprintf(&b, "%d entries up to %d and term %d; ", len(m.entries), m.last(), m.term)
	}
	return b.String()
}
