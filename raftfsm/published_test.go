package raftfsm

import (
	"maps"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Readers who come and go while entries are executed get whole states, none older than what was executed when they
// asked, and none that changes afterwards.
func TestReadersGetTheStateOfTheirMoment(t *testing.T) {
	b := newBench(t)
	var readers sync.WaitGroup
	stop := make(chan struct{})
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				executed := b.current.index()
				a := b.current.Load()
				if a.index() < executed {
					t.Errorf("a reader got the state at %d after %d was executed", a.index(), executed)
					return
				}
				for range 2 {
					if !maps.Equal(pairsOf(a.view), stateAt(a.index())) {
						t.Errorf("the view of index %d is not the state of that index", a.index())
						return
					}
				}
			}
		})
	}
	for range 3000 {
		b.putNext()
	}
	close(stop)
	readers.Wait()
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

// Where nobody reads no view is taken, for the price of one is paid by the writes after it.
func TestViewsAreTakenForReadersOnly(t *testing.T) {
	b := newBench(t)
	b.current.Load()
	b.putNext() // publishes for the reader before
	taken := b.current.view.Load()
	for range 10 {
		b.putNext()
	}
	if b.current.view.Load() != taken {
		t.Error("a view was taken though nobody read")
	}
	if got := b.current.Load(); got.index() != 11 {
		t.Errorf("the state is at %d, want 11", got.index())
	}
	b.putNext()
	if got := b.current.view.Load(); got.index() != 12 {
		t.Errorf("an entry after a read did not publish its state: it is at %d", got.index())
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

// A glance shows the state between two entries, and costs the writes after it nothing.
func TestGlanceTakesNoView(t *testing.T) {
	b := newBench(t)
	taken := b.current.view.Load()
	var writers sync.WaitGroup
	writers.Go(func() {
		for range 1000 {
			b.putNext()
		}
	})
	for index := uint64(0); index < 1000; {
		b.current.glance(func(v state.View) {
			index = b.current.index()
			if !maps.Equal(pairsOf(v), stateAt(index)) || v.Revision() != index {
				t.Errorf("a glance at index %d did not show the state of that index", index)
			}
		})
	}
	writers.Wait()
	if b.current.view.Load() != taken {
		t.Error("a view was taken for a glance")
	}
	if err := b.flusher.close(false); err != nil {
		t.Fatal(err)
	}
}

func TestWaitEndsAtThePosition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t)
		reached := make(chan *applied, 1)
		go func() {
			a, err := b.current.wait(t.Context(), func(p *machine.Position) bool { return p.Index >= 2 })
			if err != nil {
				t.Error(err)
			}
			reached <- a
		}()
		b.putNext()
		synctest.Wait()
		if len(reached) != 0 {
			t.Fatal("the wait for index 2 ended at index 1")
		}
		b.putNext()
		if a := <-reached; a.index() != 2 {
			t.Errorf("the wait for index 2 returned %d", a.index())
		}
		if err := b.flusher.close(false); err != nil {
			t.Fatal(err)
		}
	})
}
