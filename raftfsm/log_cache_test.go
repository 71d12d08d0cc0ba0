package raftfsm

import (
	"errors"
	"runtime"
	"testing"
	"weak"

	"github.com/hashicorp/raft"
	"pgregory.net/rapid"
)

// countingLog counts the entries that are read from it, and fails where it is told to.
type countingLog struct {
	*raft.InmemStore
	reads int
	err   error
}

func (l *countingLog) GetLog(index uint64, log *raft.Log) error {
	l.reads++
	return l.InmemStore.GetLog(index, log)
}

func (l *countingLog) StoreLogs(logs []*raft.Log) error {
	if l.err != nil {
		return l.err
	}
	return l.InmemStore.StoreLogs(logs)
}

func logEntries(term, first, last uint64, size int) []*raft.Log {
	var logs []*raft.Log
	for i := first; i <= last; i++ {
		logs = append(logs, &raft.Log{Index: i, Term: term, Data: make([]byte, size)})
	}
	return logs
}

func TestLogCacheIsBoundedInBytes(t *testing.T) {
	below := &countingLog{InmemStore: raft.NewInmemStore()}
	c := newLogCache(below, 10_000)
	for i := uint64(1); i <= 1000; i++ {
		if err := c.StoreLogs(logEntries(1, i, i, 100)); err != nil {
			t.Fatal(err)
		}
		if c.bytes > 10_000 || len(c.recent) > 200 {
			t.Fatalf("%d bytes and room for %d entries are kept", c.bytes, len(c.recent))
		}
		if entries, bytes := c.size(); entries != int(min(i, 43)) || bytes != entries*(112+128) && bytes != entries*(100+128) {
			t.Fatalf("%d entries of %d bytes are said to be kept", entries, bytes)
		}
	}
	var log raft.Log
	for i := uint64(1000); i > 960; i-- {
		if err := c.GetLog(i, &log); err != nil || log.Index != i {
			t.Fatalf("entry %d: %v, %v", i, log, err)
		}
	}
	if below.reads != 0 {
		t.Errorf("%d of the latest entries were read from the log", below.reads)
	}
	if err := c.DeleteRange(1, 100); err != nil {
		t.Fatal(err)
	}
	if err := c.GetLog(1000, &log); err != nil || below.reads != 0 {
		t.Errorf("dropping old entries emptied the cache: %v", err)
	}
	// A single entry above the limit is not kept.
	if err := c.StoreLogs(logEntries(1, 1001, 1001, 20_000)); err != nil || c.bytes != 0 {
		t.Errorf("%d bytes are kept, %v", c.bytes, err)
	}
}

func TestLogCacheForgetsWhatWasNotStored(t *testing.T) {
	below := &countingLog{InmemStore: raft.NewInmemStore(), err: errors.New("disk")}
	c := newLogCache(below, 10_000)
	if err := c.StoreLogs(logEntries(1, 1, 3, 10)); err == nil {
		t.Fatal("a failed write was hidden")
	}
	if err := c.GetLog(2, &raft.Log{}); !errors.Is(err, raft.ErrLogNotFound) {
		t.Errorf("an entry that was not stored is read: %v", err)
	}
}

// Whatever raft does, the cache answers as the log itself.
func TestLogCacheAnswersAsTheLog(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		below := raft.NewInmemStore()
		c := newLogCache(below, 2000)
		term, last := uint64(1), uint64(0)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				n := rapid.Uint64Range(1, 8).Draw(t, "entries")
				if err := c.StoreLogs(logEntries(term, last+1, last+n, rapid.IntRange(0, 400).Draw(t, "size"))); err != nil {
					t.Fatal(err)
				}
				last += n
			},
			"overrule": func(t *rapid.T) {
				first, _ := below.FirstIndex()
				if first == 0 || first == last {
					t.Skip("nothing to overrule")
				}
				from := rapid.Uint64Range(first+1, last).Draw(t, "from")
				if err := c.DeleteRange(from, last); err != nil {
					t.Fatal(err)
				}
				term, last = term+1, from-1
			},
			"drop": func(t *rapid.T) {
				first, _ := below.FirstIndex()
				if first == 0 || first+2 > last {
					t.Skip("nothing to drop")
				}
				if err := c.DeleteRange(first, first+1); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				for i := range last + 2 {
					var got, want raft.Log
					gotErr, wantErr := c.GetLog(i, &got), below.GetLog(i, &want)
					if !errors.Is(gotErr, wantErr) || gotErr == nil && (got.Index != want.Index || got.Term != want.Term) {
						t.Fatalf("entry %d is %v, %v; want %v, %v", i, got, gotErr, want, wantErr)
					}
				}
			},
		})
	})
}

// The entries of the metasrv leader are parts of raft's futures, which hold what the commands answered: the cache must
// not keep that.
func TestLogCacheKeepsNothingButEntries(t *testing.T) {
	type future struct {
		log raft.Log
		_   [1 << 16]byte // the answer
	}
	c := newLogCache(raft.NewInmemStore(), 1<<20)
	f := &future{log: raft.Log{Index: 1, Data: []byte("x")}}
	held := weak.Make(f)
	if err := c.StoreLogs([]*raft.Log{&f.log}); err != nil {
		t.Fatal(err)
	}
	f = nil
	// The log below keeps what it was given until it is emptied.
	if err := c.LogStore.DeleteRange(1, 1); err != nil {
		t.Fatal(err)
	}
	runtime.GC()
	if held.Value() != nil {
		t.Error("the future of an entry is still in memory")
	}
	if got := c.at(1); got == nil || string(got.Data) != "x" {
		t.Errorf("the cache has %v", got)
	}
}
