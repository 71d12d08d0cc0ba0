package machine

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func revision(n uint64) state.Revision {
	return state.Revision{Number: n, Changes: []state.Change{{Key: fmt.Sprintf("key-%d", n), Value: make([]byte, 100)}}}
}

func TestFeedHandsOutEveryRevisionOnce(t *testing.T) {
	f := NewFeed(10, 1<<20)
	for n := uint64(11); n <= 20; n++ {
		f.Publish([]state.Revision{revision(n)})
	}
	got, err := f.Read(t.Context(), 15)
	if err != nil || len(got) != 6 || got[0].Number != 15 || got[5].Number != 20 {
		t.Errorf("read from 15: %v, %v", got, err)
	}
	if _, err := f.Read(t.Context(), 10); !errors.Is(err, metasrv.ErrCompacted) {
		t.Errorf("read from before the feed: %v, want ErrCompacted", err)
	}
}

func TestFeedWaitsForTheFuture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := NewFeed(0, 1<<20)
		read := make(chan []state.Revision, 1)
		go func() {
			got, _ := f.Read(t.Context(), 2)
			read <- got
		}()
		synctest.Wait()
		f.Publish([]state.Revision{revision(1)})
		synctest.Wait()
		if len(read) != 0 {
			t.Fatal("a read from revision 2 returned at revision 1")
		}
		f.Publish([]state.Revision{revision(2)})
		if got := <-read; len(got) != 1 || got[0].Number != 2 {
			t.Errorf("read %v", got)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := f.Read(ctx, 3); !errors.Is(err, context.Canceled) {
			t.Errorf("a cancelled read returned %v", err)
		}
	})
}

func TestSlowWatcherIsToldSo(t *testing.T) {
	f := NewFeed(0, 10_000)
	for n := uint64(1); n <= 1000; n++ {
		f.Publish([]state.Revision{revision(n)})
	}
	if _, err := f.Read(t.Context(), 1); !errors.Is(err, metasrv.ErrCompacted) {
		t.Errorf("read of what was dropped: %v, want ErrCompacted", err)
	}
	if got, err := f.Read(t.Context(), 1000); err != nil || len(got) != 1 {
		t.Errorf("read of the newest: %v, %v", got, err)
	}
}

func TestReplacedStateEndsWatches(t *testing.T) {
	f := NewFeed(0, 1<<20)
	f.Publish([]state.Revision{revision(1)})
	f.Reset(50)
	for _, from := range []uint64{1, 2, 50} {
		if _, err := f.Read(t.Context(), from); !errors.Is(err, metasrv.ErrCompacted) {
			t.Errorf("read from %d: %v, want ErrCompacted", from, err)
		}
	}
}
