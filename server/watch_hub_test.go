package server

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"google.golang.org/grpc/codes"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// feedNode is a node of which only the feed is asked.
type feedNode struct {
	Node
	*machine.Feed
	view fixedRevision
}

type fixedRevision struct {
	state.View
	revision uint64
}

func (v fixedRevision) Revision() uint64 { return v.revision }

func (n *feedNode) View() state.View { return n.view }

func (n *feedNode) Read(ctx context.Context, from uint64) ([]state.Revision, error) {
	return n.Feed.Read(ctx, from)
}

func (n *feedNode) Remembered() (uint64, int) { return n.Feed.Remembered() }

// The index finds the watchers of a key, each once a range, and no other.
func TestRangeIndex(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key := rapid.StringOfN(rapid.RuneFrom([]rune("abc")), 0, 3, 3)
		watchers := map[*watcher]struct{}{}
		for range rapid.IntRange(0, 12).Draw(t, "watchers") {
			w := &watcher{}
			for range rapid.IntRange(1, 2).Draw(t, "ranges") {
				w.ranges = append(w.ranges, keyRange{key.Draw(t, "from"), key.Draw(t, "to")})
			}
			watchers[w] = struct{}{}
		}
		x := newRangeIndex(watchers)
		for range 10 {
			k := key.Draw(t, "key")
			got, want := map[*watcher]int{}, map[*watcher]int{}
			x.find(k, func(w *watcher) { got[w]++ })
			for w := range watchers {
				for _, r := range w.ranges {
					if r.contains(k) {
						want[w]++
					}
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Fatalf("%q: found %v, want %v", k, got, want)
			}
		}
	})
}

// However a watcher begins, lags, and is read, it gets every change that it watches once, in order, and revisions as a
// whole; and what it is told to resume behind is true.
func TestHubAgainstTheHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := &feedNode{Feed: machine.NewFeed(0, 1<<30)}
		h := newHub(n)
		var history []state.Revision
		type reader struct {
			*watcher
			from, upTo uint64
			got        []string
		}
		var readers []*reader
		take := func(r *reader) (idle bool) {
			got, err := r.take(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, revision := range got.revisions {
				if revision.Number <= r.upTo {
					t.Fatalf("revision %d comes after %d was complete", revision.Number, r.upTo)
				}
				r.got = append(r.got, fmt.Sprint(revision.Number, keysOf(revision)))
			}
			if got.upTo < r.upTo {
				t.Fatalf("complete up to %d, before up to %d", got.upTo, r.upTo)
			}
			r.upTo = got.upTo
			return got.idle
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": func(t *rapid.T) {
				r := state.Revision{Number: uint64(len(history) + 1)}
				for range rapid.IntRange(1, 3).Draw(t, "changes") {
					r.Changes = append(r.Changes, state.Change{Key: rapid.SampledFrom([]string{"a", "b", "c", "d"}).Draw(t, "key")})
				}
				history = append(history, r)
				n.Publish([]state.Revision{r})
			},
			"dispatch": func(t *rapid.T) {
				if uint64(len(history)) >= h.next {
					read, err := n.Read(context.Background(), h.next)
					if err != nil {
						t.Fatal(err)
					}
					h.dispatch(read[:rapid.IntRange(1, len(read)).Draw(t, "some")])
				}
			},
			"watch": func(t *rapid.T) {
				from := rapid.Uint64Range(1, uint64(len(history))+3).Draw(t, "from")
				ranges := rapid.SampledFrom([][]keyRange{{{"a", "b"}}, {{"a", "c"}}, {{"b", "e"}}, {{"a", "b"}, {"c", "d"}}}).Draw(t, "ranges")
				readers = append(readers, &reader{watcher: h.watch(ranges, from), from: from, upTo: from - 1})
			},
			"take": func(t *rapid.T) {
				if len(readers) > 0 {
					take(rapid.SampledFrom(readers).Draw(t, "reader"))
				}
			},
			"overflow": func(t *rapid.T) {
				if len(readers) > 0 {
					r := rapid.SampledFrom(readers).Draw(t, "reader")
					r.mu.Lock()
					r.queued = watchQueueBytes + 1 // the next change makes it lag
					r.mu.Unlock()
				}
			},
		})
		if uint64(len(history)) >= h.next {
			read, _ := n.Read(context.Background(), h.next)
			h.dispatch(read)
		}
		for _, r := range readers {
			for !take(r) {
			}
			var want []string
			for i := range history {
				if concerning, ok := r.concerning(&history[i]); ok && history[i].Number >= r.from {
					want = append(want, fmt.Sprint(history[i].Number, keysOf(concerning)))
				}
			}
			if !slices.Equal(r.got, want) || r.upTo != max(uint64(len(history)), r.from-1) {
				t.Fatalf("watcher of %v from %d got %q up to %d, want %q up to %d", r.ranges, r.from, r.got, r.upTo, want, len(history))
			}
		}
	})
}

func keysOf(r state.Revision) (keys []string) {
	for _, c := range r.Changes {
		keys = append(keys, c.Key)
	}
	return keys
}

// Where the state is replaced, those who lack something are told so, and only they.
func TestReplacedStateCutsThoseWhoLackSomething(t *testing.T) {
	n := &feedNode{Feed: machine.NewFeed(10, 1<<20), view: fixedRevision{revision: 10}}
	h := newHub(n)
	all := []keyRange{{"", "z"}}
	lacks, future, lags := h.watch(all, 11), h.watch(all, 51), h.watch(all, 11)
	for _, w := range []*watcher{lacks, future} {
		if _, err := w.take(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	n.Reset(50)
	_, err := n.Read(t.Context(), h.next)
	e, _ := errors.AsType[*metasrv.Error](err)
	h.skipTo(e.Revision, err)
	for _, w := range []*watcher{lacks, lags} {
		_, err := w.take(t.Context())
		if e, ok := errors.AsType[*metasrv.Error](err); !ok || !errors.Is(err, metasrv.ErrCompacted) || e.Revision != 51 {
			t.Errorf("one who lacks revisions is told %v", err)
		}
	}
	n.Publish([]state.Revision{{Number: 51, Changes: []state.Change{{Key: "a"}}}})
	read, err := n.Read(t.Context(), h.next)
	if err != nil {
		t.Fatal(err)
	}
	h.dispatch(read)
	if got, err := future.take(t.Context()); err != nil || len(got.revisions) != 1 || got.revisions[0].Number != 51 {
		t.Errorf("one who lacks nothing got %v, %v", got, err)
	}
}

// A client that reads nothing is cut off when the feed has moved on far enough, and told the revision to go on from,
// which is still to be had. The others go on.
func TestSlowWatcherIsCutOff(t *testing.T) {
	m := startLeader(t)
	slow := m.watch(t, &metasrvpb.WatchRequest{Key: []byte("k"), ChangesOnly: true})
	fast := m.watch(t, &metasrvpb.WatchRequest{Key: []byte("k"), ChangesOnly: true})
	begin, err := slow.stream.Recv()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fast.stream.Recv(); err != nil {
		t.Fatal(err)
	}
	value := string(make([]byte, 512<<10))
	written := 0
	for m.watchers() > 1 {
		revision := m.put(t, "k", value)
		eventually(t, "the change is dispatched", func() bool { return m.services.hub.done.Load() >= revision })
		if written++; written > 400 {
			t.Fatal("the watcher was not cut off after 200 MB")
		}
		fast.next(t, 1)
		// Only what its client does counts, not when the member finds time for it.
		eventually(t, "the slow watcher has all, or waits for its client", m.allTakenOrSending)
	}
	seen := begin.GetRevision()
	for {
		resp, err := slow.stream.Recv()
		if err == nil {
			for _, e := range resp.GetEvents() {
				if e.GetKv().GetModRevision() != seen+1 {
					t.Errorf("revision %d follows %d", e.GetKv().GetModRevision(), seen)
				}
				seen = e.GetKv().GetModRevision()
			}
			continue
		}
		wantRefusal(t, err, refusal{Code: codes.ResourceExhausted, Reason: "SLOW_WATCHER"})
		// The message that was under way may have arrived.
		if got := revisionOf(err); got > seen+1 || got <= begin.GetRevision() {
			t.Errorf("told to go on from %d, has seen %d to %d", got, begin.GetRevision()+1, seen)
		}
		break
	}
	if oldest, _ := m.node.Remembered(); oldest > seen+1 {
		t.Fatalf("the feed begins at revision %d, and what the watcher lacks at %d", oldest, seen+1)
	}
	again := m.watch(t, &metasrvpb.WatchRequest{Key: []byte("k"), StartRevision: seen + 1})
	if got := again.next(t, 1); got[0] != fmt.Sprintf("k=%s@%d", value, seen+1) {
		t.Errorf("went on with %d bytes", len(got[0]))
	}
}

// allTakenOrSending reports whether every watch has all that it is to send, or is sending.
func (m *testMemberServer) allTakenOrSending() bool {
	h := m.services.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	for w := range h.watchers {
		w.mu.Lock()
		taken := w.err != nil || !w.lags && len(w.queue) == 0
		w.mu.Unlock()
		if !taken && w.sending.Load() == 0 {
			return false
		}
	}
	return true
}

// A client that takes nothing is cut off sooner where it was far behind before: the feed would overtake it. One that takes
// its messages is not, however far behind.
func TestStalledWatcherFarBehindIsCutOffSooner(t *testing.T) {
	n := &feedNode{Feed: machine.NewFeed(10, 64<<20), view: fixedRevision{revision: 10}}
	h := newHub(n)
	value := make([]byte, 1<<20)
	write := func(mb int) {
		for range mb {
			n.Publish([]state.Revision{{Number: h.next, Changes: []state.Change{{Key: "k", Value: value}}}})
			read, err := n.Read(t.Context(), h.next)
			if err != nil {
				t.Fatal(err)
			}
			h.dispatch(read)
		}
	}
	behind, near, takes := h.watch([]keyRange{{"", "z"}}, 11), h.watch([]keyRange{{"", "z"}}, 11), h.watch([]keyRange{{"", "z"}}, 11)
	for _, w := range []*watcher{behind, near, takes} {
		w.resume.Store(11)
	}
	write(14)
	near.resume.Store(25)
	for _, w := range []*watcher{behind, near, takes} {
		w.sending.Store(1 + h.changed.Load())
	}
	write(3)
	takes.sending.Store(1 + h.changed.Load())
	write(2)
	if behind.why() == nil || near.why() != nil || takes.why() != nil {
		t.Errorf("far behind: %v, near: %v, taking: %v; want only the first to be cut off", behind.why(), near.why(), takes.why())
	}
}

// watchers returns the number of watches that were not cut off.
func (m *testMemberServer) watchers() (n int) {
	m.services.hub.mu.Lock()
	defer m.services.hub.mu.Unlock()
	for w := range m.services.hub.watchers {
		if w.why() == nil {
			n++
		}
	}
	return n
}
