package server

import (
	"errors"
	"fmt"
	"iter"
	"sync"
	"testing"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// countedTopic has a number of events of 1 KB, counts how many were made, and fails behind the last one if it is told to.
func countedTopic(n int, made *int, end error) topic[metasrvpb.WatchCatalogResponse, *metasrvpb.CatalogEvent] {
	return topic[metasrvpb.WatchCatalogResponse, *metasrvpb.CatalogEvent]{
		present: func(state.View) iter.Seq2[*metasrvpb.CatalogEvent, error] {
			return func(yield func(*metasrvpb.CatalogEvent, error) bool) {
				for i := range n {
					*made++
					if !yield(&metasrvpb.CatalogEvent{Revision: uint64(i + 1)}, nil) {
						return
					}
				}
				if end != nil {
					yield(nil, end)
				}
			}
		},
		size: func(*metasrvpb.CatalogEvent) int { return 1 << 10 },
		message: func(_ state.View, h *metasrvpb.ResponseHeader, e []*metasrvpb.CatalogEvent, revision uint64) *metasrvpb.WatchCatalogResponse {
			return &metasrvpb.WatchCatalogResponse{Header: h, Events: e, Revision: revision}
		},
	}
}

// readAll returns the events of a list, each once, as one reader gets them.
func readAll(t *testing.T, l *listing) (events int) {
	t.Helper()
	for i := 0; ; i++ {
		page, last, err := l.page(i)
		if err != nil {
			t.Error(err)
			return events
		}
		m := &metasrvpb.WatchCatalogResponse{}
		if err := state.Decode(page, m); err != nil {
			t.Error(err)
			return events
		}
		for _, e := range m.GetEvents() {
			if events++; e.GetRevision() != uint64(events) {
				t.Errorf("event %d is the one of %d", events, e.GetRevision())
			}
		}
		if last != (m.GetRevision() == 7) {
			t.Errorf("page %d has revision %d, last: %t", i, m.GetRevision(), last)
		}
		if last {
			return events
		}
	}
}

// However many begin together, the list is made once, as far as somebody reads it; and it is given up with its last
// reader.
func TestBeginningsAreShared(t *testing.T) {
	for _, n := range []int{0, 1, 127, 128, 129, 1000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			made, begun := 0, 0
			begin := func() *listing {
				begun++
				return newListing(countedTopic(n, &made, nil), fixedRevision{revision: 7})
			}
			var lists listings
			stays, leave := lists.join(0, begin)
			var wg sync.WaitGroup
			for range 20 {
				l, leave := lists.join(7, begin)
				wg.Go(func() {
					defer leave()
					if got := readAll(t, l); got != n {
						t.Errorf("a reader got %d events, want %d", got, n)
					}
				})
			}
			wg.Wait()
			if made != n || begun != 1 {
				t.Errorf("%d events were made in %d lists, want %d in one", made, begun, n)
			}
			if newer, leave := lists.join(8, begin); newer == stays {
				t.Error("a watch got a list from before what it has seen")
			} else {
				leave()
			}
			leave()
			if lists.current != nil {
				t.Error("a list without readers is kept")
			}
		})
	}
}

func TestListThatFails(t *testing.T) {
	made, broken := 0, errors.New("broken")
	l := newListing(countedTopic(300, &made, broken), fixedRevision{revision: 7})
	defer l.stop()
	for range 2 { // a second reader gets what the first got
		for i := 0; ; i++ {
			_, last, err := l.page(i)
			if last {
				t.Fatal("a list that failed has a last page")
			}
			if err != nil {
				if !errors.Is(err, broken) || i < 1 {
					t.Errorf("page %d: %v", i, err)
				}
				break
			}
		}
	}
}
