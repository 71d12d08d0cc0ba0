package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

type watchStreamOf = grpc.ServerStreamingServer[metasrvpb.WatchRoutesResponse]

// scriptedWatch lets a test send what Router.Watch sends. Every message or error is taken by the stream that is
// open then.
type scriptedWatch struct {
	mu     sync.Mutex
	starts []uint64
	send   chan any // *metasrvpb.WatchRoutesResponse or error
}

func (s *scriptedRouter) scriptWatch() *scriptedWatch {
	w := &scriptedWatch{send: make(chan any)}
	s.watch = func(request *metasrvpb.WatchRoutesRequest, stream watchStreamOf) error {
		w.mu.Lock()
		w.starts = append(w.starts, request.GetStartRevision())
		w.mu.Unlock()
		for {
			select {
			case m := <-w.send:
				if err, ok := m.(error); ok {
					return err
				}
				if err := stream.Send(m.(*metasrvpb.WatchRoutesResponse)); err != nil {
					return err
				}
			case <-stream.Context().Done():
				return stream.Context().Err()
			}
		}
	}
	return w
}

func (w *scriptedWatch) started() []uint64 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.starts)
}

func updated(revision uint64, r *metasrvpb.TableRoute) *metasrvpb.WatchRoutesResponse {
	return &metasrvpb.WatchRoutesResponse{Revision: revision, Peers: scriptPeers, Events: []*metasrvpb.RouteEvent{
		{Revision: revision, Change: &metasrvpb.RouteEvent_Updated{Updated: r}},
	}}
}

func removed(revision uint64, r *metasrvpb.TableRoute) *metasrvpb.WatchRoutesResponse {
	return &metasrvpb.WatchRoutesResponse{Revision: revision, Events: []*metasrvpb.RouteEvent{
		{Revision: revision, Change: &metasrvpb.RouteEvent_Removed{Removed: r.Table}},
	}}
}

// running is a cache whose Run follows a scripted watch in a bubble.
type running struct {
	*RouteCache
	script *scriptedRouter
	watch  *scriptedWatch
}

// runInBubble calls test with a running cache and waits for Run to end.
func runInBubble(t *testing.T, test func(t *testing.T, r running)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newScriptedRouter()
		r := running{script: s, watch: s.scriptWatch(), RouteCache: s.cacheInBubble(t)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		synctest.Wait()
		test(t, r)
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	})
}

func (r running) sends(m any) {
	r.watch.send <- m
	synctest.Wait()
}

// fetchesOf counts the fetches of routes; Run also asks for the revision.
func (r running) fetchesOf() int {
	n := 0
	for _, names := range r.script.fetches() {
		n += len(names)
	}
	return n
}

func TestRunFollowsChanges(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.script.put(routeOf("cpu", 1024, 1))
		mustGet(t, r.RouteCache, "cpu")
		r.sends(updated(r.script.put(routeOf("cpu", 1024, 2)), routeOf("cpu", 1024, 2)))
		r.sends(updated(r.script.put(routeOf("mem", 1025, 1)), routeOf("mem", 1025, 1)))
		if got := mustGet(t, r.RouteCache, "cpu"); got.Version != 2 || r.fetchesOf() != 1 {
			t.Errorf("version %d after %d fetches", got.Version, r.fetchesOf())
		}
		if len(r.entries) != 1 {
			t.Error("a table that was never asked for is cached")
		}
		r.sends(removed(r.script.remove(tableNamed("cpu")), routeOf("cpu", 1024, 2)))
		if _, err := r.Get(t.Context(), tableNamed("cpu")); Reason(err) != metasrv.ErrTableNotFound.Reason {
			t.Errorf("got %v, want TABLE_NOT_FOUND", err)
		}
	})
}

func TestRunIgnoresOldEvents(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.script.put(routeOf("cpu", 1024, 5))
		old := r.script.put(routeOf("cpu", 1024, 6))
		r.script.put(routeOf("cpu", 1024, 7))
		mustGet(t, r.RouteCache, "cpu")
		r.sends(updated(old, routeOf("cpu", 1024, 6)))
		r.sends(removed(old, routeOf("cpu", 1024, 6)))
		if got := mustGet(t, r.RouteCache, "cpu"); got.Version != 7 || r.fetchesOf() != 1 {
			t.Errorf("version %d after %d fetches", got.Version, r.fetchesOf())
		}
	})
}

func TestRunFollowsRename(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.script.put(routeOf("old", 1024, 1))
		mustGet(t, r.RouteCache, "old")
		r.script.remove(tableNamed("old"))
		r.sends(updated(r.script.put(routeOf("new", 1024, 1)), routeOf("new", 1024, 1)))
		if _, err := r.Get(t.Context(), tableNamed("old")); Reason(err) != metasrv.ErrTableNotFound.Reason {
			t.Errorf("got %v, want TABLE_NOT_FOUND", err)
		}
	})
}

// A change that is seen while a fetch is under way must not be undone by the older answer.
func TestRunDuringFetch(t *testing.T) {
	for _, cached := range []bool{false, true} {
		runInBubble(t, func(t *testing.T, r running) {
			r.script.put(routeOf("cpu", 1024, 1))
			if cached {
				mustGet(t, r.RouteCache, "cpu")
				r.Invalidate(tableNamed("cpu"), 0)
			}
			open := make(chan struct{})
			slow := len(r.script.fetches()) + 1
			r.script.mu.Lock()
			r.script.gate = func(_ context.Context, call int) {
				if call == slow {
					<-open
				}
			}
			at := r.script.revision
			r.script.mu.Unlock()
			var wg sync.WaitGroup
			wg.Go(func() { mustGet(t, r.RouteCache, "cpu") })
			synctest.Wait()
			// The event is of a later revision than the answer, which is of revision at.
			r.sends(updated(at+1, routeOf("cpu", 1024, 2)))
			close(open)
			wg.Wait()
			if got := mustGet(t, r.RouteCache, "cpu"); got.Version != 2 {
				t.Errorf("version %d", got.Version)
			}
		})
	}
}

func TestRunRemovesDuringFirstFetch(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.script.put(routeOf("cpu", 1024, 1))
		open := make(chan struct{})
		r.script.mu.Lock()
		r.script.gate = func(context.Context, int) { <-open }
		at := r.script.revision
		r.script.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() { mustGet(t, r.RouteCache, "cpu") })
		synctest.Wait()
		r.sends(removed(at+1, routeOf("cpu", 1024, 1)))
		close(open)
		wg.Wait()
		if len(r.entries) != 0 {
			t.Error("the removed table is cached")
		}
	})
}

func TestRunResumes(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.sends(&metasrvpb.WatchRoutesResponse{Revision: 120})
		r.sends(status.Error(codes.Unavailable, "the member stops"))
		time.Sleep(time.Minute) // simulated
		synctest.Wait()
		if got := r.watch.started(); !slices.Equal(got, []uint64{101, 121}) {
			t.Errorf("watches from %v", got)
		}
	})
}

func TestRunReadsAgainAfterCompaction(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.script.put(routeOf("cpu", 1024, 1))
		mustGet(t, r.RouteCache, "cpu")
		r.script.put(routeOf("cpu", 1024, 2)) // the watch doesn't tell
		for range 3 {
			r.sends(statusOf(metasrv.ErrCompacted.With("revision 101 is gone")))
			time.Sleep(time.Minute)
			synctest.Wait()
		}
		if got := r.watch.started(); !slices.Equal(got, []uint64{101, 103, 103, 103}) {
			t.Errorf("watches from %v", got)
		}
		if got := mustGet(t, r.RouteCache, "cpu"); got.Version != 2 || r.fetchesOf() != 2 {
			t.Errorf("version %d after %d fetches", got.Version, r.fetchesOf())
		}
	})
}

// The answer to a fetch that began before the gap may lack the changes of the gap.
func TestRunReadsAgainDuringFetch(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.script.put(routeOf("cpu", 1024, 1))
		open := make(chan struct{})
		slow := len(r.script.fetches()) + 1
		r.script.mu.Lock()
		r.script.gate = func(_ context.Context, call int) {
			if call == slow {
				<-open
			}
		}
		r.script.mu.Unlock()
		var wg sync.WaitGroup
		wg.Go(func() { mustGet(t, r.RouteCache, "cpu") })
		synctest.Wait()
		r.script.put(routeOf("cpu", 1024, 2)) // the watch doesn't tell
		r.sends(statusOf(metasrv.ErrCompacted.With("revision 101 is gone")))
		time.Sleep(time.Minute)
		synctest.Wait()
		close(open)
		wg.Wait()
		if got := mustGet(t, r.RouteCache, "cpu"); got.Version != 2 {
			t.Errorf("version %d", got.Version)
		}
	})
}

// A metasrv that is away is asked again less and less often.
func TestRunBacksOff(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.script.mu.Lock()
		opened := 0
		r.script.watch = func(*metasrvpb.WatchRoutesRequest, watchStreamOf) error {
			opened++
			return status.Error(codes.Unavailable, "no leader")
		}
		r.script.mu.Unlock()
		r.sends(status.Error(codes.Unavailable, "the member stops"))
		time.Sleep(time.Minute)
		synctest.Wait()
		if opened < 25 || opened > 80 {
			t.Errorf("%d attempts in a minute", opened)
		}
	})
}

func TestRunWithoutWatch(t *testing.T) {
	s := newScriptedRouter()
	c := s.cache(t)
	if err := c.Run(t.Context()); status.Code(err) != codes.Unimplemented {
		t.Errorf("Run returned %v", err)
	}
}

func TestRunSkipsWhatItCannotRead(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.script.put(routeOf("cpu", 1024, 1))
		mustGet(t, r.RouteCache, "cpu")
		bad := updated(r.script.put(routeOf("cpu", 1024, 2)), routeOf("cpu", 1024, 2))
		bad.Peers = nil
		r.sends(bad)
		if got := mustGet(t, r.RouteCache, "cpu"); got.Version != 2 || r.fetchesOf() != 2 {
			t.Errorf("version %d after %d fetches", got.Version, r.fetchesOf())
		}
	})
}
