package server

import (
	"context"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// recount counts the replicas on each node from the beginning.
func recount(t *testing.T, v state.View) placement {
	t.Helper()
	p := placement{}
	for route := range router.Values(v) {
		if err := p.add(route, 1); err != nil {
			t.Fatal(err)
		}
	}
	return p
}

// The count that follows the changes is that of all routes, also after more changes than are remembered.
func TestPlacementsFollowTheChanges(t *testing.T) {
	m := startLeader(t)
	a, b := m.addDatanode(t, 1), m.addDatanode(t, 2)
	check := func(when string) {
		t.Helper()
		view := m.node.View()
		got, err := m.services.placed.at(t.Context(), view)
		if err != nil {
			t.Fatal(err)
		}
		maps.DeleteFunc(got, func(_ uint64, n replicaCount) bool { return n == replicaCount{} })
		if want := recount(t, view); !maps.Equal(got, want) {
			t.Errorf("%s: %v, want %v", when, got, want)
		}
	}
	check("without tables")
	m.createTable(t, "one", a, b)
	check("with a table")
	m.createTable(t, "two", a, b)
	if _, err := m.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("one")}); err != nil {
		t.Fatal(err)
	}
	check("with one being dropped")
	a.beat(t)
	b.beat(t)
	check("with its replicas gone")

	m.services.placed.revision = 0 // as after a state that replaced this one: the revisions between are not remembered
	m.services.placed.source = compacted{m.node}
	check("after a gap in the changes")
}

// A count that begins with an older view than that of a creation that is no longer under way has that creation's replicas.
func TestCountHasWhatWasExecutedMeanwhile(t *testing.T) {
	m := startLeader(t)
	a := m.addDatanode(t, 1)
	before := m.node.View()
	m.createTable(t, "one", a)
	m.services.placed.counted = nil
	got, err := m.services.placed.at(t.Context(), before)
	if want := recount(t, m.node.View()); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
}

type compacted struct{ placementSource }

func (compacted) Read(context.Context, uint64) ([]state.Revision, error) {
	return nil, metasrv.ErrCompacted
}

// Creations that are under way at once see each other: each alone would choose the nodes with the fewest replicas.
func TestCreationsUnderWayCount(t *testing.T) {
	m := startLeader(t, func(c *Config) { c.SuspectAfter, c.DownAfter = time.Hour, 2*time.Hour }) // the nodes beat once
	for id := range uint64(4) {
		m.addDatanode(t, id+1)
	}
	var wg sync.WaitGroup
	for i := range 40 {
		wg.Go(func() {
			_, err := m.router().Create(timeout(t), &metasrvpb.CreateRequest{
				TableName: tableName(string(rune('A' + i))), Replicas: 1,
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for node, n := range recount(t, m.node.View()) {
		if n.replicas < 8 || n.replicas > 12 {
			t.Errorf("node %d has %d of 40 replicas on 4 nodes", node, n.replicas)
		}
	}
	if n := len(m.services.placed.reserved); n != 0 {
		t.Errorf("%d nodes have reservations with nothing under way", n)
	}
}
