package client

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
)

func mustGet(t *testing.T, c *RouteCache, name string) *TableRoute {
	t.Helper()
	r, err := c.Get(t.Context(), tableNamed(name))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestRouteCacheFetchesOnce(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("cpu", 1024, 1, "m"))
	c := s.cache(t)
	first := mustGet(t, c, "cpu")
	if again := mustGet(t, c, "cpu"); again != first {
		t.Error("the route was replaced")
	}
	if n := len(s.fetches()); n != 1 {
		t.Errorf("%d fetches", n)
	}
	want := &Region{
		ID: metasrv.NewRegionID(1024, 1), Partition: 1, LeaderEpoch: 1, ConfVersion: 1,
		Leader: Endpoint{NodeID: 2, Addr: "node-2:1", ReplicaID: 11},
		Followers: []Endpoint{
			{NodeID: 3, Addr: "node-3:1", ReplicaID: 12}, {NodeID: 1, Addr: "node-1:1", ReplicaID: 13},
		},
	}
	if diff := cmp.Diff(want, &first.Regions[1]); diff != "" {
		t.Error(diff)
	}
}

func TestRouteCacheThroughClient(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("cpu", 1024, 1))
	client, err := New(Config{Endpoints: []string{s.serve(t)}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}()
	c := NewRouteCache(client)
	mustGet(t, c, "cpu")
	if _, err := c.Get(t.Context(), tableNamed("no")); !errors.Is(err, metasrv.ErrTableNotFound) {
		t.Errorf("got %v, want ErrTableNotFound", err)
	}
}

func TestRouteCacheDoesNotRememberAbsence(t *testing.T) {
	s := newScriptedRouter()
	c := s.cache(t)
	_, err := c.Get(t.Context(), tableNamed("cpu"))
	if Reason(err) != metasrv.ErrTableNotFound.Reason || !strings.Contains(err.Error(), "c.s.cpu") {
		t.Fatalf("got %v, want TABLE_NOT_FOUND naming the table", err)
	}
	if len(c.entries) != 0 {
		t.Errorf("%d entries are left", len(c.entries))
	}
	s.put(routeOf("cpu", 1024, 1))
	mustGet(t, c, "cpu")
}

func TestGetAllFetchesInOneCall(t *testing.T) {
	s := newScriptedRouter()
	for i, name := range []string{"a", "b", "d"} {
		s.put(routeOf(name, uint64(1024+i), 1))
	}
	c := s.cache(t)
	mustGet(t, c, "a")
	names := []metasrv.TableName{tableNamed("a"), tableNamed("b"), tableNamed("d"), tableNamed("b")}
	routes, err := c.GetAll(t.Context(), names...)
	if err != nil || len(routes) != 3 {
		t.Fatalf("%d routes, %v", len(routes), err)
	}
	if calls := s.fetches(); len(calls) != 2 || len(calls[1]) != 2 {
		t.Errorf("calls: %v", calls)
	}
}

func TestGetAllServesTheOthers(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("a", 1024, 1))
	s.put(routeOf("b", 1025, 1))
	c := s.cache(t)
	routes, err := c.GetAll(t.Context(), tableNamed("a"), tableNamed("no"), tableNamed("b"))
	if Reason(err) != metasrv.ErrTableNotFound.Reason || strings.Count(err.Error(), "route of table") != 1 {
		t.Errorf("got %v, want one TABLE_NOT_FOUND", err)
	}
	if len(routes) != 2 || routes[tableNamed("a")] == nil || routes[tableNamed("b")] == nil {
		t.Errorf("routes: %v", routes)
	}
}

func TestRouteCacheIsSingleFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScriptedRouter()
		s.put(routeOf("cpu", 1024, 1))
		open := make(chan struct{})
		s.gate = func(context.Context, int) { <-open }
		c := s.cacheInBubble(t)
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				if _, err := c.Get(t.Context(), tableNamed("cpu")); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		close(open)
		wg.Wait()
		if n := len(s.fetches()); n != 1 {
			t.Errorf("%d fetches", n)
		}
	})
}

// Whoever waits for a fetch is not harmed when the one who fetches gives up.
func TestRouteCacheSurvivesAbandonedFetch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScriptedRouter()
		s.put(routeOf("cpu", 1024, 1))
		open := make(chan struct{})
		s.gate = func(context.Context, int) { <-open }
		c := s.cacheInBubble(t)
		var wg sync.WaitGroup
		first, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wg.Go(func() {
			if _, err := c.Get(first, tableNamed("cpu")); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("the first caller got %v", err)
			}
		})
		synctest.Wait()
		for range 3 {
			wg.Go(func() {
				if _, err := c.Get(t.Context(), tableNamed("cpu")); err != nil {
					t.Errorf("a waiting caller got %v", err)
				}
			})
		}
		impatient, cancelImpatient := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancelImpatient()
		start := time.Now()
		if _, err := c.Get(impatient, tableNamed("cpu")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("the impatient caller got %v", err)
		}
		if waited := time.Since(start); waited != 100*time.Millisecond {
			t.Errorf("the impatient caller waited %s", waited)
		}
		time.Sleep(time.Second) // simulated: the first caller gives up
		synctest.Wait()
		close(open)
		wg.Wait()
		if n := len(s.fetches()); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestInvalidate(t *testing.T) {
	tests := []struct {
		name    string
		version uint64
		fetches int
	}{
		{"older than the cached route", 4, 1},
		{"as old as the cached route", 5, 1},
		{"newer", 6, 2},
		{"unknown", 0, 2},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newScriptedRouter()
			s.put(routeOf("cpu", 1024, 5))
			c := s.cache(t)
			mustGet(t, c, "cpu")
			s.put(routeOf("cpu", 1024, 6))
			c.Invalidate(tableNamed("cpu"), test.version)
			c.Invalidate(tableNamed("never asked for"), 7)
			r := mustGet(t, c, "cpu")
			mustGet(t, c, "cpu")
			if n := len(s.fetches()); n != test.fetches {
				t.Errorf("%d fetches, want %d", n, test.fetches)
			}
			if want := uint64(4 + test.fetches); r.Version != want {
				t.Errorf("version %d, want %d", r.Version, want)
			}
		})
	}
}

// A datanode may know a version before the member that is asked.
func TestGetWaitsForTheVersion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScriptedRouter()
		s.put(routeOf("cpu", 1024, 1))
		c := s.cacheInBubble(t)
		mustGet(t, c, "cpu")
		c.Invalidate(tableNamed("cpu"), 2)
		time.AfterFunc(300*time.Millisecond, func() { s.put(routeOf("cpu", 1024, 2)) })
		if r := mustGet(t, c, "cpu"); r.Version != 2 {
			t.Errorf("version %d", r.Version)
		}
		if n := len(s.fetches()); n < 3 || n > 10 {
			t.Errorf("%d fetches", n)
		}
	})
}

// A version that never comes must not make the table unreachable.
func TestGetWaitsABoundedTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScriptedRouter()
		s.put(routeOf("cpu", 1024, 1))
		c := s.cacheInBubble(t, WithCatchUp(500*time.Millisecond))
		mustGet(t, c, "cpu")
		c.Invalidate(tableNamed("cpu"), 99)
		start := time.Now()
		mustGet(t, c, "cpu")
		if waited := time.Since(start); waited > 500*time.Millisecond || waited < 200*time.Millisecond {
			t.Errorf("waited %s", waited)
		}
		start = time.Now()
		mustGet(t, c, "cpu")
		if waited := time.Since(start); waited != 0 {
			t.Errorf("waited %s for what is known not to come", waited)
		}

		c.Invalidate(tableNamed("cpu"), 99)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		if _, err := c.Get(ctx, tableNamed("cpu")); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want DeadlineExceeded", err)
		}
	})
}

// The versions of a table say nothing about a later one of the same name.
func TestGetTakesTheTableCreatedAgain(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("cpu", 1024, 7))
	c := s.cache(t)
	mustGet(t, c, "cpu")
	s.put(routeOf("cpu", 1025, 1))
	c.Invalidate(tableNamed("cpu"), 8)
	if r := mustGet(t, c, "cpu"); r.ID != 1025 {
		t.Errorf("table %s", r.ID)
	}
	if n := len(s.fetches()); n != 2 {
		t.Errorf("%d fetches", n)
	}
}

// A fetch that began before Invalidate has read the old route.
func TestInvalidateDuringFetch(t *testing.T) {
	for _, cached := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			s := newScriptedRouter()
			s.put(routeOf("cpu", 1024, 1))
			c := s.cacheInBubble(t)
			if cached {
				mustGet(t, c, "cpu")
				c.Invalidate(tableNamed("cpu"), 0)
			}
			old, young := make(chan struct{}), make(chan struct{})
			first := len(s.fetches()) + 1
			s.gate = func(_ context.Context, call int) {
				if call == first {
					<-old
				} else {
					<-young
				}
			}
			var wg sync.WaitGroup
			wg.Go(func() { mustGet(t, c, "cpu") })
			synctest.Wait()
			s.put(routeOf("cpu", 1024, 2))
			c.Invalidate(tableNamed("cpu"), 0)
			getNew := func() {
				if r := mustGet(t, c, "cpu"); r.Version != 2 {
					t.Errorf("version %d after Invalidate", r.Version)
				}
			}
			wg.Go(getNew)
			synctest.Wait()
			close(old)
			synctest.Wait()
			wg.Go(getNew)
			synctest.Wait()
			close(young)
			wg.Wait()
			if n := len(s.fetches()); n != first+1 {
				t.Errorf("%d fetches", n)
			}
		})
	}
}

// Many writers hear of the same new version; one fetch serves them all.
func TestInvalidateByMany(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newScriptedRouter()
		s.put(routeOf("cpu", 1024, 1))
		c := s.cacheInBubble(t)
		mustGet(t, c, "cpu")
		s.put(routeOf("cpu", 1024, 2))
		open := make(chan struct{})
		s.gate = func(context.Context, int) { <-open }
		var wg sync.WaitGroup
		for range 10 {
			wg.Go(func() {
				c.Invalidate(tableNamed("cpu"), 2)
				mustGet(t, c, "cpu")
			})
			synctest.Wait()
		}
		close(open)
		wg.Wait()
		if n := len(s.fetches()); n != 2 {
			t.Errorf("%d fetches", n)
		}
	})
}

func TestGetAfterRename(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("old", 1024, 1))
	c := s.cache(t)
	mustGet(t, c, "old")
	s.remove(tableNamed("old"))
	s.put(routeOf("new", 1024, 1))
	mustGet(t, c, "new")
	if _, err := c.Get(t.Context(), tableNamed("old")); Reason(err) != metasrv.ErrTableNotFound.Reason {
		t.Errorf("got %v, want TABLE_NOT_FOUND", err)
	}
}

// An unreachable metasrv is an error of this call; what is cached and valid is served.
func TestRouteCacheWithoutMetasrv(t *testing.T) {
	s := newScriptedRouter()
	s.put(routeOf("cpu", 1024, 1))
	c := s.cache(t)
	mustGet(t, c, "cpu")
	healed := make(chan struct{})
	s.gate = func(context.Context, int) { <-healed }
	mustGet(t, c, "cpu")
	c.Invalidate(tableNamed("cpu"), 0)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Get(ctx, tableNamed("cpu")); err == nil {
		t.Error("an invalidated route was served")
	}
	close(healed)
	mustGet(t, c, "cpu")
}
