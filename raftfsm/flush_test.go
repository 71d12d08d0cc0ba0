package raftfsm

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Rule 9: an image that was written while entries were applied holds exactly the state of the index it names.
func TestImageIsACut(t *testing.T) {
	b := newBench(t)
	keyAt := func(index uint64) string {
		if index%2 == 0 {
			return fmt.Sprintf("k%d", index%50)
		}
		return fmt.Sprintf("once%d", index) // in one cut only
	}
	stateAt := func(index uint64) map[string]string {
		want := map[string]string{}
		for i := uint64(1); i <= index; i++ {
			want["kv/"+keyAt(i)] = fmt.Sprint(i)
		}
		return want
	}
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
				t.Errorf("the image of index %d is not the state of that index", a.index())
				return
			}
		}
	})
	for i := range uint64(5000) {
		b.put(keyAt(i+1), fmt.Sprint(i+1))
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
				slow: atOnce,
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

// Between the end of the log that a metasrv leader overrules and the entries that take its place, raft counts the log as
// long as it was. What it drops of the front then must not be taken for entries that are overruled.
func TestFrontIsDroppedWhileTheEndIsReplaced(t *testing.T) {
	for _, from := range []uint64{1, 81} { // 81: a snapshot was installed, and all behind it is overruled
		store := &logStore{
			db:   memoryLog{raft.NewInmemStore()},
			kept: func() (uint64, uint64) { return 80, 80 },
			fail: func(err error) { t.Errorf("the member failed: %v", err) },
			slow: atOnce,
		}
		for i := from; i <= 100; i++ {
			if err := store.StoreLog(&raft.Log{Index: i, Term: 1}); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.DeleteRange(81, 100); err != nil {
			t.Fatal(err)
		}
		first, err := store.FirstIndex()
		if err != nil {
			t.Fatal(err)
		}
		if err := store.DeleteRange(first, 80); err != nil && !errors.Is(err, errRefused) {
			t.Error(err)
		}
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
	if err := reconcile(logOf(1, 10), machine.Position{Index: 5, Term: 1}); err != nil {
		t.Errorf("log 1 to 10, image at 5: %v", err)
	}
	if err := reconcile(logOf(7, 10), machine.Position{Index: 5, Term: 1}); err == nil {
		t.Error("log 7 to 10, image at 5: entry 6 is missing and nobody noticed")
	}
	behind := logOf(1, 10)
	if err := reconcile(behind, machine.Position{Index: 20, Term: 1}); err != nil {
		t.Errorf("log 1 to 10, image at 20: %v", err)
	}
	if last, _ := behind.LastIndex(); last != 0 {
		t.Errorf("a log that ends before the image still ends at %d", last)
	}
	overruled := logOf(1, 10)
	if err := reconcile(overruled, machine.Position{Index: 5, Term: 2}); err != nil {
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
	b.flusher.timing.FlushBytes = 1
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
	n.flusher.timing.FlushBytes = 1000
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
