package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// scriptedStream answers with what it holds, the last one being an error.
type scriptedStream []any

func (s *scriptedStream) Recv() (*metasrvpb.WatchResponse, error) {
	next := (*s)[0]
	*s = (*s)[1:]
	if err, ok := next.(error); ok {
		return nil, err
	}
	return next.(*metasrvpb.WatchResponse), nil
}

func answer(revision uint64, keys ...string) *metasrvpb.WatchResponse {
	m := &metasrvpb.WatchResponse{Revision: revision}
	for _, key := range keys {
		m.Events = append(m.Events, &metasrvpb.WatchEvent{Kv: &metasrvpb.KeyValue{Key: []byte(key)}})
	}
	return m
}

func shortUpdate(u Update[*metasrvpb.WatchEvent]) string {
	var keys []string
	for _, e := range u.Events {
		keys = append(keys, string(e.GetKv().GetKey()))
	}
	s := fmt.Sprintf("%s@%d", strings.Join(keys, ","), u.Revision)
	if u.Begins {
		s = "begins " + s
	}
	if !u.Complete {
		s += " …"
	}
	return s
}

var errLost = status.Error(codes.Unavailable, "lost")

func TestWatcherGoesOnWhereItWas(t *testing.T) {
	compacted := statusOf(metasrv.ErrCompacted.With("gone"))
	tests := []struct {
		name    string
		start   uint64
		begins  bool
		streams []scriptedStream
		opened  []position
		want    []string
	}{
		{
			"from the present on", 0, true,
			[]scriptedStream{{answer(0, "a", "b"), answer(7, "c"), answer(9, "d"), answer(12), errLost}, {answer(13, "e")}},
			[]position{{first: true}, {start: 13, least: 12}},
			[]string{"begins a,b@0 …", "c@7", "d@9", "@12", "e@13"},
		},
		{
			"lost while it begins", 0, true,
			[]scriptedStream{{answer(0, "a"), errLost}, {answer(0, "a"), answer(7, "b")}},
			[]position{{first: true}, {first: true}},
			[]string{"begins a@0 …", "begins a@0 …", "b@7"},
		},
		{
			"a revision in parts is told whole, and once", 5, false,
			[]scriptedStream{{answer(5, "a"), answer(0, "b"), errLost}, {answer(0, "b"), answer(0, "c"), answer(6, "d")}},
			[]position{{start: 5, first: true}, {start: 6, least: 5}},
			[]string{"a@5", "b,c,d@6"},
		},
		{
			"too late", 5, false,
			[]scriptedStream{{answer(5, "a"), errLost}, {compacted}, {answer(0, "x"), answer(20, "y"), errLost}, {answer(21, "z")}},
			[]position{{start: 5, first: true}, {start: 6, least: 5}, {least: 5}, {start: 21, least: 20}},
			[]string{"a@5", "begins x@5 …", "y@20", "z@21"},
		},
		{
			"changes only", 0, false,
			[]scriptedStream{{answer(7), errLost}, {answer(8, "a")}},
			[]position{{first: true}, {start: 8, least: 7}},
			[]string{"@7", "a@8"},
		},
		{
			"nothing was ever changed", 0, true,
			[]scriptedStream{{answer(0), errLost}, {answer(1, "a")}},
			[]position{{first: true}, {start: 1}},
			[]string{"begins @0", "a@1"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var opened []position
				var got []string
				enough := errors.New("enough")
				err := follower[*metasrvpb.WatchEvent, *metasrvpb.WatchResponse]{
					begins: tt.begins,
					open: func(_ context.Context, p position) (receiver[*metasrvpb.WatchResponse], error) {
						opened = append(opened, p)
						return &tt.streams[len(opened)-1], nil
					},
					handle: func(u Update[*metasrvpb.WatchEvent]) error {
						if got = append(got, shortUpdate(u)); len(got) == len(tt.want) {
							return enough
						}
						return nil
					},
				}.run(t.Context(), tt.start, &Client{cfg: Config{}.withDefaults()})
				if !errors.Is(err, enough) {
					t.Errorf("ended with %v", err)
				}
				if !slices.Equal(got, tt.want) || !slices.Equal(opened, tt.opened) {
					t.Errorf("told %q, want %q\nopened at %+v, want %+v", got, tt.want, opened, tt.opened)
				}
			})
		})
	}
}

func TestWatcherEndsWhereItIsRefused(t *testing.T) {
	refused := status.Error(codes.InvalidArgument, "key: is empty")
	err := follower[*metasrvpb.WatchEvent, *metasrvpb.WatchResponse]{
		open: func(context.Context, position) (receiver[*metasrvpb.WatchResponse], error) { return nil, refused },
	}.run(t.Context(), 1, &Client{cfg: Config{}.withDefaults()})
	if !errors.Is(err, refused) {
		t.Errorf("ended with %v", err)
	}
}

func TestRunFollowsANodeToItsNewAddress(t *testing.T) {
	runInBubble(t, func(t *testing.T, r running) {
		r.script.put(routeOf("cpu", 1024, 1))
		before := mustGet(t, r.RouteCache, "cpu")
		leader := before.Regions[0].Leader
		r.sends(&metasrvpb.WatchRoutesResponse{Revision: before.Revision + 1, Events: []*metasrvpb.RouteEvent{{
			Revision: before.Revision + 1,
			Change:   &metasrvpb.RouteEvent_Moved{Moved: &metasrvpb.Peer{Id: uint64(leader.NodeID), Addr: "10.9.9.9:1"}},
		}}})
		after := mustGet(t, r.RouteCache, "cpu")
		if got := after.Regions[0].Leader.Addr; got != "10.9.9.9:1" || r.fetchesOf() != 1 {
			t.Errorf("the leader is at %s after %d fetches", got, r.fetchesOf())
		}
		if before.Regions[0].Leader != leader {
			t.Error("a route that was given out has changed")
		}
	})
}
