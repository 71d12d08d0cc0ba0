package raftfsm

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

const (
	pageBytes   = 4096
	sectorBytes = 512
)

// powerCut returns what the disk may hold of a bbolt file when the power fails while it goes from one synced content to
// the next. bbolt writes its pages, syncs, writes the meta page, and syncs again: either some sectors of the pages are
// there and the meta page is the old one, or all of the pages are, and perhaps the meta page.
func powerCut(random *rand.Rand, from, to sparse) sparse {
	length := (max(len(from.data), len(to.data)) + sectorBytes - 1) / sectorBytes * sectorBytes
	before, after := make([]byte, length), make([]byte, length)
	copy(before, from.data)
	copy(after, to.data)
	content, size := bytes.Clone(before), to.size
	if random.IntN(4) == 0 {
		size = from.size // it has not grown yet
	}
	all := size == to.size && random.IntN(3) == 0
	meta := all && random.IntN(2) == 0
	for at := 0; at < length && int64(at) < size; at += sectorBytes {
		written := all || random.IntN(2) == 0
		if at < 2*pageBytes {
			written = meta
		}
		if written {
			copy(content[at:at+sectorBytes], after[at:])
		}
	}
	return sparse{content[:min(int64(length), size)], size}
}

// crashRecorder keeps the files of a member before and after each write of its log.
type crashRecorder struct {
	logDB
	t   *testing.T
	dir string

	mu    sync.Mutex
	cuts  []crash
	acked int
}

// crash is one write of one file.
type crash struct {
	file          string
	before, after sparse
	other         string
	otherContent  sparse
	acked         int
}

func (r *crashRecorder) record(file, other string, write func() error) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	read := func(name string) sparse { return readSparse(r.t, filepath.Join(r.dir, name)) }
	c := crash{file: file, other: other, before: read(file), otherContent: read(other), acked: r.acked}
	err := write()
	c.after = read(file)
	r.cuts = append(r.cuts, c)
	return err
}

func (r *crashRecorder) StoreLogs(logs []*raft.Log) error {
	return r.record("raft.db", "state.db", func() error { return r.logDB.StoreLogs(logs) })
}

func (r *crashRecorder) Set(key, value []byte) error {
	return r.record("raft.db", "state.db", func() error { return r.logDB.Set(key, value) })
}

func (r *crashRecorder) DeleteRange(first, last uint64) error {
	return r.record("raft.db", "state.db", func() error { return r.logDB.DeleteRange(first, last) })
}

func (r *crashRecorder) acknowledged(n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.acked = n
}

// crashKeys is the number of keys that the test writes in turn.
const crashKeys = 20

func stateAfter(puts int) map[string]string {
	want := map[string]string{}
	for i := max(1, puts-crashKeys+1); i <= puts; i++ {
		want[key(i%crashKeys)] = fmt.Sprint(i)
	}
	return want
}

// A power cut at any moment, with any part of what was not synced lost and sectors torn, leaves files that open at a
// consistent index and bring back what was acknowledged: exactly the state after one of the writes that were under way.
func TestPowerCutAtAnyMoment(t *testing.T) {
	random := seedOf(t)
	recorder := &crashRecorder{t: t}
	c := newCluster(t, 1, func(c *cluster) {
		c.timing.Flush = time.Hour // only when the test asks
		c.log = LogRetention{Trailing: 5, Threshold: 1 << 40, Interval: time.Hour}
		recorder.dir = filepath.Join(c.dir, "a")
		c.configure = func(_ int, cfg *Config) {
			cfg.wrapLog = func(db logDB) logDB {
				recorder.logDB = db
				return recorder
			}
		}
	})
	writeToCrash(t, c, random, recorder.acknowledged, func(flush func() error) error {
		return recorder.record("state.db", "raft.db", flush)
	})
	for i, crash := range recorder.cuts {
		for range repeated(1) {
			crash.check(t, i, random)
		}
	}
	t.Logf("%d writes were cut", len(recorder.cuts))
}

// writeToCrash has the only member of a cluster write, flush and shorten its log, and stops it.
func writeToCrash(t *testing.T, c *cluster, random *rand.Rand, acknowledged func(int), flushing func(flush func() error) error) {
	t.Helper()
	_, n := c.leader()
	for i := 1; i <= 120; i++ {
		if _, err := put(within(t, time.Minute), n, key(i%crashKeys), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
		acknowledged(i)
		switch random.IntN(10) {
		case 0:
			if err := flushing(n.flusher.flush); err != nil {
				t.Fatal(err)
			}
		case 1:
			if err := n.raft.Snapshot().Error(); err != nil { // flushes, and shortens the log
				t.Fatal(err)
			}
		}
	}
	c.stop(0)
}

// check makes the files of a power cut in the middle of a write, and opens them.
func (c crash) check(t *testing.T, number int, random *rand.Rand) {
	t.Helper()
	content := powerCut(random, c.before, c.after)
	dir := memoryDir(t)
	content.write(t, filepath.Join(dir, c.file))
	if c.otherContent.size > 0 {
		c.otherContent.write(t, filepath.Join(dir, c.other))
	}
	if err := checkCrash(dir, LogStoreBolt, c.acked); err != nil {
		t.Errorf("write %d of %s, %d acknowledged: %v", number, c.file, c.acked, err)
	}
}

// checkCrash opens the files of a power cut and returns an error if they lack what was acknowledged.
func checkCrash(dir string, kind LogStore, acked int) error {
	view, err := reopen(dir, kind)
	if err != nil {
		return err
	}
	got := map[string]string{}
	for i := range crashKeys {
		if value := get(view, key(i)); value != "<absent>" {
			got[key(i)] = value
		}
	}
	// The write that was cut may have been of the next command, and may have come through.
	if !maps.Equal(got, stateAfter(acked)) && !maps.Equal(got, stateAfter(acked+1)) {
		return fmt.Errorf("the state is %v", got)
	}
	return nil
}

// The meta pages of bbolt lie within a sector each, which powerCut takes for written whole.
func TestMetaPagesFitASector(t *testing.T) {
	if boltMetaStart+boltMetaSize > sectorBytes {
		t.Errorf("a meta page ends at byte %d", boltMetaStart+boltMetaSize)
	}
	// An unfinished file is made anew, one that was used and lost its end is damaged.
	path := filepath.Join(t.TempDir(), "raft.db")
	for _, content := range [][]byte{make([]byte, 4*pageBytes), make([]byte, pageBytes)} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := checkBolt(path, "logs"); err != nil {
			t.Errorf("a file of %d zeros that bbolt was making: %v", len(content), err)
		}
	}
	head := make([]byte, pageBytes)
	binary.NativeEndian.PutUint32(head[boltMetaStart:], boltMagic)
	if err := os.WriteFile(path, head, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := checkBolt(path, "logs"); err == nil {
		t.Error("a page with a wrong checksum was taken")
	}
}
