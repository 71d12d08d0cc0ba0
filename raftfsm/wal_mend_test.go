package raftfsm

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	"github.com/hashicorp/raft-wal/metadb"
	"go.etcd.io/bbolt"
)

// segmentsOf makes a log of some segments and returns the folder that a kill of its process leaves, and its segments. The
// last one has some entries, of which the first has been noted.
func segmentsOf(t *testing.T) (dir string, segments []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "wal")
	log, err := openWAL(dir, walOptions{segment: smallSegment, logger: hclog.NewNullLogger()}, func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	for i := uint64(1); i <= 100; i++ {
		if err := log.StoreLog(&raft.Log{Index: i, Term: 1, Data: walData(i)}); err != nil {
			t.Fatal(err)
		}
	}
	killed := copyFolder(t, dir)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	segments, err = filepath.Glob(filepath.Join(killed, "*.wal"))
	if err != nil || len(segments) < 3 {
		t.Fatalf("%d segments, %v", len(segments), err)
	}
	slices.Sort(segments)
	for i, s := range segments {
		segments[i] = filepath.Base(s)
	}
	return killed, segments
}

func openSegments(t *testing.T, dir string) error {
	t.Helper()
	log, err := openWAL(dir, walOptions{segment: smallSegment, logger: hclog.NewNullLogger()}, func(error) {})
	if err == nil {
		t.Cleanup(func() { _ = log.Close() })
	}
	return err
}

// A segment that is missing, or that has lost its end, is refused, also the one that is written to.
func TestShortenedWALIsRefused(t *testing.T) {
	whole, segments := segmentsOf(t)
	if err := openSegments(t, copyFolder(t, whole)); err != nil {
		t.Fatal(err)
	}
	for _, name := range segments {
		for how, damage := range map[string]func(path string, size int64) error{
			"removed":         func(path string, _ int64) error { return os.Remove(path) },
			"emptied":         func(path string, _ int64) error { return os.Truncate(path, 0) },
			"cut to half":     func(path string, size int64) error { return os.Truncate(path, size/2) },
			"without its end": func(path string, size int64) error { return os.Truncate(path, size-8) },
			"all zeros":       func(path string, size int64) error { return errors.Join(os.Truncate(path, 0), os.Truncate(path, size)) },
			"zeros at its half": func(path string, size int64) error {
				return errors.Join(os.Truncate(path, size/2), os.Truncate(path, size))
			},
		} {
			if name == segments[len(segments)-1] && how == "zeros at its half" {
				continue // which nobody can tell; see TestEndOfWALIsNoted
			}
			dir := copyFolder(t, whole)
			path := filepath.Join(dir, name)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := damage(path, info.Size()); err != nil {
				t.Fatal(err)
			}
			err = openSegments(t, dir)
			if !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), replaceMember) {
				t.Errorf("%s, %s: %v; want ErrDamaged that names it and says what to do", name, how, err)
			}
		}
	}
}

// Where the log ends is noted behind each cut of the image and when the member is closed: from then on its entries can't
// be taken for those of a write that a crash cut short.
func TestEndOfWALIsNoted(t *testing.T) {
	for name, note := range map[string]func(*logStore) error{
		"noted":  func(s *logStore) error { s.note(); return nil },
		"closed": (*logStore).Close,
	} {
		t.Run(name, func(t *testing.T) {
			whole, _ := walOf(t)
			log, err := openWALForTest(whole)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = log.Close() })
			if err := note(log); err != nil {
				t.Fatal(err)
			}
			dir := copyFolder(t, whole)
			segments, err := filepath.Glob(filepath.Join(dir, "*.wal"))
			if err != nil || len(segments) != 1 {
				t.Fatal(segments, err)
			}
			data, err := os.ReadFile(segments[0])
			if err != nil {
				t.Fatal(err)
			}
			_, last := written(t, data)
			clear(data[last:])
			if err := os.WriteFile(segments[0], data, 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := readWAL(dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "the log ends at entry 19, but had entries up to 20") {
				t.Errorf("without its last entry: %v", err)
			}
		})
	}
}

// Each cut of the image notes where the log ends.
func TestCutOfImageNotesTheEndOfWAL(t *testing.T) {
	c := newCluster(t, 1, withWAL)
	_, n := c.leader()
	mustPut(t, n, "a")
	db := n.store.db.(*walDB)
	last, err := db.LastIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := n.flusher.flush(); err != nil {
		t.Fatal(err)
	}
	if _, noted := db.meta.known(); noted < last {
		t.Errorf("noted that the log ends at %d, want %d", noted, last)
	}
}

// What is dropped at the end is not expected any more.
func TestDroppedEndOfWALIsNotMissed(t *testing.T) {
	dir, _ := walOf(t)
	log, err := openWALForTest(dir)
	if err != nil {
		t.Fatal(err)
	}
	log.note()
	if err := log.db.DeleteRange(15, walEntries); err != nil {
		t.Fatal(err)
	}
	killed := copyFolder(t, dir)
	if err := log.Close(); err != nil {
		t.Fatal(err)
	}
	if last, err := readWAL(killed); err != nil || last != 14 {
		t.Errorf("the log ends at %d, %v; want 14", last, err)
	}
}

// Damage anywhere in the list of segments is found, or changes nothing.
func TestDamagedListOfSegmentsIsRefused(t *testing.T) {
	random := seedOf(t)
	whole, _ := segmentsOf(t)
	list := readSparse(t, filepath.Join(whole, "wal-meta.db"))
	refused := 0
	for range repeated(150) {
		dir := copyFolder(t, whole)
		changed, how := damage(list, random)
		changed.write(t, filepath.Join(dir, "wal-meta.db"))
		log, err := openWAL(dir, walOptions{segment: smallSegment, logger: hclog.NewNullLogger()}, func(error) {})
		if errors.Is(err, ErrDamaged) {
			refused++
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", how, err)
			continue
		}
		m, err := modelOf(log)
		if err != nil || m.last() != 100 || len(m.entries) != 100 {
			t.Errorf("%s: %d entries up to %d, %v", how, len(m.entries), m.last(), err)
		}
		_ = log.Close()
	}
	t.Logf("%d were refused", refused)

	// A list that is one, but another: without its checksum the first entries would be gone silently.
	dir := copyFolder(t, whole)
	db, err := bbolt.Open(filepath.Join(dir, "wal-meta.db"), 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte(metadb.MetaBucket))
		was := bucket.Get(walListKey)
		changed := bytes.Replace(was, []byte(`"MinIndex":1,`), []byte(`"MinIndex":3,`), 1)
		if bytes.Equal(was, changed) {
			return fmt.Errorf("not found in %s", was)
		}
		return bucket.Put(walListKey, changed)
	})
	if err := errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	if err := openSegments(t, dir); !errors.Is(err, ErrDamaged) || !strings.Contains(err.Error(), "the checksum of the list of segments is wrong") {
		t.Errorf("another list of segments: %v", err)
	}
}

// A second process on a folder is told so; it doesn't wait for the first.
func TestWALIsLocked(t *testing.T) {
	dir, _ := walOf(t)
	log, err := openWALForTest(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	want := "another metasrv runs on the data folder " + filepath.Dir(dir)
	if _, err := openWALForTest(dir); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("opened twice: %v; want that %s", err, want)
	}
}
