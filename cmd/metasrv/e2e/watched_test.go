package e2e

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// change is one change of what is watched: key has another value from a revision on, or is gone.
type change struct {
	revision   uint64
	key, value string
	gone       bool
}

// life is what a watch told between two beginnings: what there was at one revision, and all changes up to another.
type life struct {
	listed     bool
	from, upTo uint64
	present    map[string]string
	changes    []change
}

// at returns what there was at a revision of the life.
func (l *life) at(revision uint64) map[string]string {
	present := maps.Clone(l.present)
	for _, c := range l.between(l.from, revision) {
		if delete(present, c.key); !c.gone {
			present[c.key] = c.value
		}
	}
	return present
}

// between returns the changes after one revision up to another.
func (l *life) between(after, upTo uint64) []change {
	var found []change
	for _, c := range l.changes {
		if c.revision > after && c.revision <= upTo {
			found = append(found, c)
		}
	}
	return found
}

// told is everything that one watch told.
type told struct {
	mu    sync.Mutex
	lives []*life
}

// watchedAs notes the updates of a watch. read returns an event as a change; its revision doesn't count while the watch
// tells what there is.
func watchedAs[E any](to *told, read func(E) change) func(client.Update[E]) error {
	return func(u client.Update[E]) error {
		to.mu.Lock()
		defer to.mu.Unlock()
		if u.Begins {
			to.lives = append(to.lives, &life{present: map[string]string{}})
		}
		l := to.lives[len(to.lives)-1]
		for _, e := range u.Events {
			if c := read(e); l.listed {
				l.changes = append(l.changes, c)
			} else {
				l.present[c.key] = c.value
			}
		}
		if u.Complete {
			if !l.listed {
				l.listed, l.from = true, u.Revision
			}
			l.upTo = u.Revision
		}
		return nil
	}
}

// reached returns how often the watch began, and up to which revision it has told everything.
func (w *told) reached() (lives int, revision uint64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.lives) == 0 {
		return 0, 0
	}
	return len(w.lives), w.lives[len(w.lives)-1].upTo
}

// check compares what a watch told with what a watch told that never lost its member.
func (w *told) check(t *testing.T, whole *told) {
	t.Helper()
	if n, _ := whole.reached(); n != 1 {
		t.Fatalf("the watch that the others are compared with began %d times", n)
	}
	truth, before := whole.lives[0], uint64(0)
	for i, l := range w.lives {
		if l.from < before || l.from < truth.from {
			t.Errorf("life %d began at revision %d, after all up to %d was told", i, l.from, before)
		}
		before = l.upTo
		if want := truth.at(l.from); !maps.Equal(l.present, want) {
			t.Errorf("life %d began with %d values at revision %d, there were %d, or others", i, len(l.present), l.from, len(want))
		}
		want := truth.between(l.from, l.upTo)
		if !slices.Equal(l.changes, want) {
			t.Errorf("life %d has %d changes from revision %d to %d, there were %d, or others", i, len(l.changes), l.from, l.upTo, len(want))
		}
	}
}

// topics are all things that can be watched.
type topics map[string]*told

// reached returns the lowest revision up to which all of them have told everything, and the least number of beginnings.
func (w topics) reached() (lives int, revision uint64) {
	lives, revision = math.MaxInt, math.MaxUint64
	for _, one := range w {
		n, upTo := one.reached()
		lives, revision = min(lives, n), min(revision, upTo)
	}
	return lives, revision
}

// watchAll watches everything on one member, from a state on that has at least a revision, until ctx ends.
func watchAll(ctx context.Context, t *testing.T, m *member, least uint64, wg *sync.WaitGroup) topics {
	cl, err := client.New(client.Config{Endpoints: []string{m.grpc}, CallTimeout: waitLimit})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	all := topics{"kv": {}, "catalog": {}, "nodes": {}, "routes": {}}
	header := func() *metasrvpb.RequestHeader { return &metasrvpb.RequestHeader{MinRevision: least} }
	run := func(topic string, watch func() error) {
		wg.Go(func() {
			if err := watch(); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: the watch ended with %v", topic, err)
			}
		})
	}
	run("kv", func() error {
		return cl.WatchStore(ctx, &metasrvpb.WatchRequest{Header: header(), Key: []byte{0}, RangeEnd: []byte{0}}, watchedAs(all["kv"], kvChange))
	})
	run("catalog", func() error {
		return cl.WatchCatalog(ctx, &metasrvpb.WatchCatalogRequest{Header: header()}, watchedAs(all["catalog"], catalogChange))
	})
	run("nodes", func() error {
		return cl.WatchNodes(ctx, &metasrvpb.WatchNodesRequest{Header: header()}, watchedAs(all["nodes"], nodeChange))
	})
	run("routes", func() error { return followRoutes(ctx, cl, least, watchedAs(all["routes"], routeChange)) })
	return all
}

func kvChange(e *metasrvpb.WatchEvent) change {
	kv := e.GetKv()
	return change{
		revision: kv.GetModRevision(), key: string(kv.GetKey()), value: fmt.Sprintf("%s, version %d", kv.GetValue(), kv.GetVersion()),
		gone: e.GetType() == metasrvpb.WatchEvent_TYPE_DELETE,
	}
}

func nodeChange(e *metasrvpb.NodeEvent) change {
	node := e.GetRegistered()
	return change{
		revision: e.GetRevision(), key: fmt.Sprint(max(node.GetPeer().GetId(), e.GetRemoved().GetPeer().GetId())),
		value: fmt.Sprint(node.GetIncarnation()), gone: node == nil,
	}
}

func routeChange(e *metasrvpb.RouteEvent) change {
	c := change{revision: e.GetRevision(), gone: e.GetUpdated() == nil}
	if c.key = fmt.Sprint(e.GetRemoved().GetId()); c.gone {
		return c
	}
	route := e.GetUpdated()
	c.key, c.value = fmt.Sprint(route.GetTable().GetId()), fmt.Sprintf("%s %d", route.GetTable().GetTableName(), route.GetRouteVersion())
	for _, r := range route.GetRegionRoutes() {
		c.value += fmt.Sprintf(" %d/%d", r.GetRegion().GetId(), r.GetLeaderReplicaId())
	}
	return c
}

func catalogChange(e *metasrvpb.CatalogEvent) change {
	c := change{revision: e.GetRevision()}
	var what proto.Message
	switch of := e.GetChange().(type) {
	case *metasrvpb.CatalogEvent_Catalog:
		c.key, what = "catalog "+of.Catalog.GetName(), of.Catalog
	case *metasrvpb.CatalogEvent_Schema:
		c.key, what = "schema "+of.Schema.GetSchemaName(), of.Schema
	case *metasrvpb.CatalogEvent_Table:
		c.key, what = fmt.Sprint("table ", of.Table.GetId()), of.Table
	case *metasrvpb.CatalogEvent_CatalogDropped:
		c.key, c.gone = "catalog "+of.CatalogDropped.GetName(), true
	case *metasrvpb.CatalogEvent_SchemaDropped:
		c.key, c.gone = "schema "+of.SchemaDropped.GetSchemaName(), true
	case *metasrvpb.CatalogEvent_TableDropped:
		c.key, c.gone = fmt.Sprint("table ", of.TableDropped.GetId()), true
	}
	if what != nil {
		b, err := proto.MarshalOptions{Deterministic: true}.Marshal(what)
		if err != nil {
			panic(err)
		}
		c.value = string(b)
	}
	return c
}

// followRoutes watches the routes as the watches of the client library do, and begins again where it is told to.
func followRoutes(ctx context.Context, cl *client.Client, least uint64, tell func(client.Update[*metasrvpb.RouteEvent]) error) error {
	start := uint64(0)
	for ctx.Err() == nil {
		stream, err := cl.Router().Watch(ctx, &metasrvpb.WatchRoutesRequest{
			StartRevision: start, Header: &metasrvpb.RequestHeader{MinRevision: least},
		})
		begins := start == 0
		for err == nil {
			var m *metasrvpb.WatchRoutesResponse
			if m, err = stream.Recv(); err != nil {
				break
			}
			complete := m.GetRevision() > 0 || len(m.GetEvents()) == 0
			if complete {
				start, least = m.GetRevision()+1, m.GetRevision()
			}
			_ = tell(client.Update[*metasrvpb.RouteEvent]{Begins: begins, Events: m.GetEvents(), Complete: complete, Revision: m.GetRevision()})
			begins = false
		}
		if client.Reason(err) == metasrv.ErrCompacted.Reason {
			start = 0
		}
	}
	return ctx.Err()
}
