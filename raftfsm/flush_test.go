package raftfsm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// bench is an fsm with its image, without raft.
type bench struct {
	*fsm
	t     *testing.T
	path  string
	index uint64
}

func newBench(t *testing.T) *bench { return newBenchIn(t, t.TempDir()) }

func newBenchIn(t *testing.T, dir string) *bench {
	t.Helper()
	path := filepath.Join(dir, "state.db")
	img, err := openImage(path)
	if err != nil {
		t.Fatal(err)
	}
	from, err := img.load()
	if err != nil {
		t.Fatal(err)
	}
	fail := func(err error) { t.Errorf("failed: %v", err) }
	logs := raft.NewInmemStore()
	f := newFSM(from, []state.Applier{kv.NewApplier()}, logs, fail)
	// An hour: only what the test asks for is flushed.
	newFlusher(f, img, Timing{Flush: time.Hour, FlushBytes: 1 << 30}, fail)
	f.flusher.start()
	return &bench{fsm: f, t: t, path: path}
}

func entryOf(commands ...*storagepb.Command) []byte {
	return state.Encode(&storagepb.Entry{Version: machine.EntryVersion, Commands: commands})
}

func (b *bench) put(key, value string) {
	b.t.Helper()
	b.index++
	result := b.Apply(&raft.Log{Index: b.index, Term: 3, Type: raft.LogCommand, Data: entryOf(&storagepb.Command{
		Kind:    storagepb.CommandKind_COMMAND_KIND_PUT,
		Payload: state.Encode(&storagepb.Put{Key: []byte(key), Value: []byte(value)}),
	})}).(entryResult)
	if result.err != nil {
		b.t.Fatal(result.err)
	}
}

func contentOf(v state.View) map[string]string {
	all := map[string]string{}
	for key, value := range v.Ascend("", "") {
		all[key] = string(value)
	}
	return all
}

// pairsOf returns the content as users see it.
func pairsOf(v state.View) map[string]string {
	all := contentOf(v)
	for key := range all {
		if name, ok := strings.CutPrefix(key, "kv/"); ok {
			all[key] = get(v, name)
		}
	}
	return all
}

// putNext applies the next entry of a history in which the state at an index is known.
func (b *bench) putNext() {
	b.t.Helper()
	i := b.index + 1
	b.put(fmt.Sprintf("k%d", i%50), fmt.Sprint(i))
}

func stateAt(index uint64) map[string]string {
	want := map[string]string{}
	for i := index - min(index, 50) + 1; i <= index; i++ {
		want[fmt.Sprintf("kv/k%d", i%50)] = fmt.Sprint(i)
	}
	return want
}

// Rule 9: an image that was written while entries were applied holds exactly the state of the index it names.
func TestImageIsACut(t *testing.T) {
	b := newBench(t)
	var flushes sync.WaitGroup
	stop := make(chan struct{})
	flushes.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := b.flusher.flush(); err != nil {
				t.Errorf("flush: %v", err)
				return
			}
			a, err := b.flusher.image.load()
			if err != nil {
				t.Errorf("load: %v", err)
				return
			}
			if !maps.Equal(pairsOf(a.view), stateAt(a.index())) {
				t.Errorf("the image of index %d is not the state of that index: %v", a.index(), pairsOf(a.view))
				return
			}
		}
	})
	for range 5000 {
		b.putNext()
	}
	close(stop)
	flushes.Wait()
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

// A member that ends without a last flush continues from its image, and the entries behind it bring it to the same
// state again.
func TestReplayFromAnyFlush(t *testing.T) {
	b := newBench(t)
	var entries [][]byte
	for range 200 {
		entries = append(entries, entryOf(&storagepb.Command{
			Kind:    storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION,
			Payload: state.Encode(&storagepb.OpenSession{}),
		}))
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	flushAt := rand.New(rand.NewPCG(seed, 1)).IntN(len(entries))
	for i, data := range entries {
		b.Apply(&raft.Log{Index: uint64(i + 1), Term: 1, Data: data})
		if i == flushAt {
			if err := b.flusher.flush(); err != nil {
				t.Fatal(err)
			}
		}
	}
	want := contentOf(b.current.Load().view)
	if err := b.flusher.close(true); err != nil { // as after kill -9
		t.Fatal(err)
	}
	img, err := openImage(b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = img.close() }()
	from, err := img.load()
	if err != nil || from.index() != uint64(flushAt+1) {
		t.Fatalf("the image is at %d, %v; want %d", from.index(), err, flushAt+1)
	}
	again := newFSM(from, nil, raft.NewInmemStore(), func(err error) { t.Error(err) })
	newFlusher(again, img, DefaultTiming(), func(err error) { t.Error(err) })
	// Raft may hand over entries that the image has; they must not count twice.
	for i, data := range entries {
		again.Apply(&raft.Log{Index: uint64(i + 1), Term: 1, Data: data})
	}
	if got := contentOf(again.current.Load().view); !maps.Equal(got, want) {
		t.Errorf("after the replay the state differs: %d keys, want %d", len(got), len(want))
	}
}

// Rule 10: raft may drop what it hands to Persist only when the image has it.
func TestPersistWaitsForTheImage(t *testing.T) {
	b := newBench(t)
	for range 10 {
		b.putNext()
	}
	local, err := b.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	b.putNext()
	if flushed := b.flusher.flushed.Load(); flushed != 0 {
		t.Fatalf("flushed %d before it was asked for", flushed)
	}
	if err := local.Persist(nil); err != nil {
		t.Fatal(err)
	}
	a, err := b.flusher.image.load()
	if err != nil || a.index() < 10 {
		t.Errorf("the image is at %d, %v; want at least 10", a.index(), err)
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

// memoryLog is a log without files.
type memoryLog struct{ *raft.InmemStore }

func (memoryLog) Close() error { return nil }

func TestLogKeepsWhatTheImageLacks(t *testing.T) {
	for _, c := range []struct {
		name             string
		flushed, applied uint64
		first, last      uint64
		refused, reset   bool
	}{
		{"what the image has", 50, 80, 1, 50, false, false},
		{"one entry more", 50, 80, 1, 51, true, false},
		{"all of the state", 50, 80, 1, 80, true, false},
		{"uncommitted entries at the end", 50, 80, 81, 100, false, false},
		{"executed entries at the end", 50, 80, 80, 100, true, false},
		{"entries at the end that the image has", 80, 80, 60, 100, true, false},
		{"everything", 80, 80, 1, 100, true, false},
		{"everything, after an install", 80, 80, 1, 100, false, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			var failed error
			store := &logStore{
				db:   memoryLog{raft.NewInmemStore()},
				kept: func() (uint64, uint64) { return c.flushed, c.applied },
				fail: func(err error) { failed = err },
			}
			for i := uint64(1); i <= 100; i++ {
				if err := store.StoreLog(&raft.Log{Index: i, Term: 1}); err != nil {
					t.Fatal(err)
				}
			}
			if c.reset {
				store.expectReset()
			}
			err := store.DeleteRange(c.first, c.last)
			if refused := err != nil; refused != c.refused {
				t.Errorf("DeleteRange(%d, %d) with flushed %d, applied %d: %v", c.first, c.last, c.flushed, c.applied, err)
			}
			// A front that can't be dropped yet stays; a back that can't be overruled means that data is lost.
			if overruled := c.refused && c.last == 100; (failed != nil) != overruled {
				t.Errorf("the member failed with %v", failed)
			}
		})
	}
}

func TestFailedMemberExecutesNothing(t *testing.T) {
	b := newBench(t)
	var failure error
	b.fail = func(err error) { failure = err }
	b.putNext()
	b.Apply(&raft.Log{Index: 2, Term: 1, Data: []byte("garbage")})
	if failure == nil {
		t.Fatal("an entry that can't be decoded did not fail the member")
	}
	result := b.Apply(&raft.Log{Index: 3, Term: 1, Data: entryOf()}).(entryResult)
	if result.err == nil || b.current.Load().index() != 1 {
		t.Errorf("a failed member went on: %v, index %d", result.err, b.current.Load().index())
	}
	if err := b.flusher.close(true); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotStream(t *testing.T) {
	b := newBench(t)
	for range 500 {
		b.putNext()
	}
	b.put("empty", "")
	a := b.current.Load()
	var stream bytes.Buffer
	if err := snapshotOf(a).Write(&stream); err != nil {
		t.Fatal(err)
	}
	if size := snapshotOf(a).Size(); size != int64(stream.Len()) {
		t.Errorf("size is announced as %d, it is %d", size, stream.Len())
	}
	read := func(r io.Reader) (map[string]string, *storagepb.ImageMeta, error) {
		got := map[string]string{}
		var meta *storagepb.ImageMeta
		err := snapshot.Read(r,
			func(m *storagepb.ImageMeta) error { meta = m; return nil },
			func(k, v []byte) error { got[string(k)] = string(v); return nil })
		return got, meta, err
	}
	got, meta, err := read(bytes.NewReader(stream.Bytes()))
	if err != nil || meta.Index != a.index() || !maps.Equal(got, contentOf(a.view)) {
		t.Fatalf("read back index %d with %d keys, %v", meta.GetIndex(), len(got), err)
	}
	for i := range stream.Len() {
		damaged := bytes.Clone(stream.Bytes())
		damaged[i] ^= 0x20
		if _, _, err := read(bytes.NewReader(damaged)); err == nil {
			t.Fatalf("byte %d was changed unnoticed", i)
		}
	}
	for _, n := range []int{0, 5, 20, stream.Len() / 2, stream.Len() - 1} {
		if _, _, err := read(bytes.NewReader(stream.Bytes()[:n])); err == nil {
			t.Errorf("a stream cut off at %d was taken", n)
		}
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

// Rule 11: an install never takes the state back.
func TestOlderSnapshotIsRefused(t *testing.T) {
	b := newBench(t)
	for range 10 {
		b.putNext()
	}
	store := &snapshotStore{fsm: b.fsm, flusher: b.flusher, dir: t.TempDir()}
	sink, err := store.Create(1, 9, 3, raft.Configuration{}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write([]byte("metasrv")); err == nil {
		t.Error("a snapshot of index 9 was taken by a member that has applied 10")
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

func TestLogAndImageMustFit(t *testing.T) {
	logOf := func(first, last uint64) *logStore {
		s, err := guardLog(memoryLog{raft.NewInmemStore()}, "log", func(err error) { t.Error(err) })
		if err != nil {
			t.Fatal(err)
		}
		_ = s.SetUint64(keyCurrentTerm, 1)
		for i := first; i <= last && last > 0; i++ {
			_ = s.StoreLog(&raft.Log{Index: i, Term: 1})
		}
		return s
	}
	if err := reconcile(logOf(1, 10), 5, 1); err != nil {
		t.Errorf("log 1 to 10, image at 5: %v", err)
	}
	if err := reconcile(logOf(7, 10), 5, 1); err == nil {
		t.Error("log 7 to 10, image at 5: entry 6 is missing and nobody noticed")
	}
	behind := logOf(1, 10)
	if err := reconcile(behind, 20, 1); err != nil {
		t.Errorf("log 1 to 10, image at 20: %v", err)
	}
	if last, _ := behind.LastIndex(); last != 0 {
		t.Errorf("a log that ends before the image still ends at %d", last)
	}
	overruled := logOf(1, 10)
	if err := reconcile(overruled, 5, 2); err != nil {
		t.Errorf("log 1 to 10 of term 1, image at 5 of term 2: %v", err)
	}
	if last, _ := overruled.LastIndex(); last != 0 {
		t.Errorf("a log that was overruled before the end of the image still ends at %d", last)
	}
}

var errDisk = errors.New("disk error")

// A flush that fails ends the member: nothing is known of the pages that it wrote.
func TestFailedFlushFailsTheMember(t *testing.T) {
	b := newBench(t)
	failed := make(chan error, 10)
	b.flusher.fail = func(err error) { failed <- errors.Join(errDisk, err) }
	b.putNext()
	if err := b.flusher.image.close(); err != nil { // stands for a disk that is gone
		t.Fatal(err)
	}
	if err := b.flusher.flushTo(1); err == nil {
		t.Error("flushTo returned without an error")
	}
	// The disk is back. The keys of the failed cut are in no later one, so none may be written.
	img, err := openImage(b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.flusher.image = img
	b.putNext()
	if err := b.flusher.flush(); err == nil {
		t.Error("a cut was written after one had failed")
	}
	if a, err := img.load(); err != nil || a.index() != 0 {
		t.Errorf("the image is at %d, %v; want 0", a.index(), err)
	}
	if err := <-failed; !errors.Is(err, errDisk) {
		t.Error(err)
	}
	if err := b.flusher.close(true); err != nil {
		t.Fatal(err)
	}
}

// Where a flush has failed nobody makes room for changes any more: what waits for it must go on, so that the member can
// end.
func TestFailedFlushLetsGo(t *testing.T) {
	b := newBench(t)
	failed := make(chan error, 10)
	b.flusher.fail = func(err error) { failed <- err }
	b.putNext()
	b.flusher.over.Store(true)
	waited := make(chan struct{})
	go func() {
		b.flusher.throttle()
		close(waited)
	}()
	if err := b.flusher.image.close(); err != nil {
		t.Fatal(err)
	}
	// A flush that fails takes the cut first, which makes room; what comes after it must not wait either.
	_ = b.flusher.flushTo(1)
	<-waited
	b.flusher.over.Store(true)
	b.flusher.throttle()
	if err := b.flusher.close(true); err != nil {
		t.Fatal(err)
	}
}

// The bound of the dirty set: an entry waits while twice the volume of a flush is not flushed.
func TestEntriesWaitForTheDisk(t *testing.T) {
	b := newBench(t)
	b.flusher.bytes = 1
	b.flusher.mu.Lock() // stands for a slow disk
	b.putNext()
	applied := make(chan struct{})
	go func() {
		b.putNext()
		close(applied)
	}()
	select {
	case <-applied:
		t.Error("an entry did not wait for the disk")
	case <-time.After(50 * time.Millisecond): // nothing tells that an entry waits
	}
	b.flusher.mu.Unlock()
	<-applied
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

// Rule 12: while too much waits for the disk the metasrv leader refuses what clients ask for, but not its duties, and
// takes it again when the image has caught up.
func TestClientsAreRefusedAtTheDirtyBound(t *testing.T) {
	c := newCluster(t, 1)
	_, n := c.leader()
	n.flusher.mu.Lock() // stands for a slow disk
	n.fsm.mu.Lock()
	n.flusher.bytes = 1000
	n.fsm.mu.Unlock()
	var err error
	for i := 0; err == nil && i < 1000; i++ {
		_, err = put(within(t, 10*time.Second), n, key(i), "value")
	}
	if !errors.Is(err, metasrv.ErrOverloaded) {
		t.Errorf("a client's write beyond the bound: %v, want ErrOverloaded", err)
	}
	l, _ := n.Leadership()
	duty := putProposal("duty", "done")
	duty.PlannedTerm = l.Term
	if _, err := n.Propose(within(t, 10*time.Second), duty); err != nil {
		t.Errorf("a duty beyond the bound: %v", err)
	}
	n.flusher.mu.Unlock()
	eventually(t, "writes are taken again", func() bool {
		_, err := put(within(t, 10*time.Second), n, key(0), "again")
		return err == nil
	})
}
