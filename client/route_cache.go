package client

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// RouterSource gives access to the Router service. *Client is one.
type RouterSource interface {
	Router() metasrvpb.RouterClient
}

// RouteCache keeps the routes of the tables that were asked for. Routes are fetched when they are first needed,
// once however many ask at a time, and again after Invalidate; Run keeps them fresh besides. It starts no
// goroutine that outlives a call, and is safe for concurrent use.
type RouteCache struct {
	router metasrvpb.RouterClient
	logger *slog.Logger
	// catchUp is how long a fetch is repeated for a version that metasrv doesn't have yet.
	catchUp time.Duration

	// lifeNumber changes when the cluster has begun another life, in which the routes are others.
	lifeNumber func() uint64

	mu      sync.Mutex
	seen    uint64 // the life that the entries are of
	entries map[metasrv.TableName]*entry
	names   map[metasrv.TableID]metasrv.TableName // of the entries with a route
	// floor is the revision from which Run knows all changes: routes read before it may have missed some.
	floor uint64
}

// entry is what is known of one name.
type entry struct {
	route *TableRoute // nil before the first fetch has ended
	// stale: the route must be fetched before it is used again, at least version least of table leastOf.
	stale   bool
	least   uint64
	leastOf metasrv.TableID
	// flight is the fetch under way. One that was detached from its entry answers only those who wait for it.
	flight *flight
	// changed is closed when route is replaced, nil while nobody waits for that.
	changed chan struct{}
}

func (e *entry) isBehind(r *TableRoute) bool { return r.ID == e.leastOf && r.Version < e.least }

// RouteCacheOption changes a RouteCache from its defaults.
type RouteCacheOption func(*RouteCache)

// WithRouteLogger gives a logger for what Run meets; there is none by default.
func WithRouteLogger(l *slog.Logger) RouteCacheOption { return func(c *RouteCache) { c.logger = l } }

// WithCatchUp sets how long Get waits for the version that Invalidate named, 1 s by default. Then it takes what
// metasrv answers.
func WithCatchUp(d time.Duration) RouteCacheOption { return func(c *RouteCache) { c.catchUp = d } }

// NewRouteCache returns an empty cache.
func NewRouteCache(source RouterSource, options ...RouteCacheOption) *RouteCache {
	c := &RouteCache{
		router:     source.Router(),
		logger:     slog.New(slog.DiscardHandler),
		catchUp:    time.Second,
		lifeNumber: func() uint64 { return 0 },
		entries:    make(map[metasrv.TableName]*entry),
		names:      make(map[metasrv.TableID]metasrv.TableName),
	}
	if s, ok := source.(interface{ lifeNumber() uint64 }); ok {
		c.lifeNumber = s.lifeNumber
	}
	for _, o := range options {
		o(c)
	}
	return c
}

// renew forgets all routes when the cluster was restored or recovered. The caller holds mu.
func (c *RouteCache) renew() {
	now := c.lifeNumber()
	if now == c.seen {
		return
	}
	c.seen, c.floor = now, 0
	for name := range c.entries {
		c.drop(name)
	}
}

// Get returns the route of a table. A table that doesn't exist is the error of Router.Route
// (metasrv.ErrTableNotFound through a Client); it is not remembered.
func (c *RouteCache) Get(ctx context.Context, name metasrv.TableName) (*TableRoute, error) {
	if r := c.cached(name); r != nil {
		return r, nil
	}
	routes, err := c.GetAll(ctx, name)
	return routes[name], err
}

// cached returns a route that needs no fetch, nil where there is none.
func (c *RouteCache) cached(name metasrv.TableName) *TableRoute {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renew()
	if e := c.entries[name]; e != nil && !e.stale {
		return e.route
	}
	return nil
}

// GetAll returns the routes of tables; those that have to be fetched are fetched in one call. Where some can't be
// had, the error says which and why, and the map holds the others.
func (c *RouteCache) GetAll(ctx context.Context, names ...metasrv.TableName) (map[metasrv.TableName]*TableRoute, error) {
	routes := make(map[metasrv.TableName]*TableRoute, len(names))
	failed := make(map[metasrv.TableName]error)
	for again := true; again; {
		led, joined := c.board(names, routes, failed)
		if len(led) > 0 {
			c.fetch(ctx, led)
		}
		again = false
		for name, f := range joined {
			err := f.wait(ctx)
			switch {
			case err != nil:
				failed[name] = err
			case f.abandoned:
				again = true
			default:
				led[name] = f
			}
		}
		for name, f := range led {
			if f.err != nil {
				failed[name] = f.err
				continue
			}
			routes[name] = f.route
		}
	}
	var errs []error
	for _, name := range names {
		if err := failed[name]; err != nil {
			errs = append(errs, fmt.Errorf("route of table %s: %w", name, err))
			delete(failed, name)
		}
	}
	if len(errs) == 1 {
		return routes, errs[0]
	}
	return routes, errors.Join(errs...)
}

// board fills routes with what is cached and returns flights for the rest that has not failed: those that the
// caller must fetch, and those that others fetch already.
func (c *RouteCache) board(
	names []metasrv.TableName, routes map[metasrv.TableName]*TableRoute, failed map[metasrv.TableName]error,
) (led, joined map[metasrv.TableName]*flight) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.renew()
	led, joined = make(map[metasrv.TableName]*flight), make(map[metasrv.TableName]*flight)
	for _, name := range names {
		if routes[name] != nil || failed[name] != nil || led[name] != nil {
			continue
		}
		e := c.entries[name]
		if e == nil {
			e = &entry{}
			c.entries[name] = e
		}
		switch {
		case e.route != nil && !e.stale:
			routes[name] = e.route
		case e.flight != nil:
			joined[name] = e.flight
		default:
			e.flight = &flight{done: make(chan struct{})}
			led[name] = e.flight
		}
	}
	return led, joined
}

// keep makes r the route of an entry. The caller holds mu.
func (c *RouteCache) keep(name metasrv.TableName, e *entry, r *TableRoute) {
	if e.route != nil && e.route.ID != r.ID {
		delete(c.names, e.route.ID)
	}
	if before, ok := c.names[r.ID]; ok && before != name {
		c.drop(before) // renamed
	}
	if e.route != r {
		e.change()
	}
	e.route, e.stale, e.least, e.leastOf = r, false, 0, 0
	c.names[r.ID] = name
}

// drop forgets an entry and detaches its flight. The caller holds mu.
func (c *RouteCache) drop(name metasrv.TableName) {
	if e := c.entries[name]; e != nil && e.route != nil {
		delete(c.names, e.route.ID)
		e.change()
	}
	delete(c.entries, name)
}

// Invalidate is called when a datanode answered InvalidRoute: the next Get fetches the route of at least the
// version that the datanode named, waiting for it up to WithCatchUp. With version 0 it fetches in any case;
// otherwise a route that is as new stays. Fetches under way answer only those who wait for them already.
//
// Call it with version 0 also when a datanode can't be reached: its address may have changed, which is no change
// of the route.
func (c *RouteCache) Invalidate(name metasrv.TableName, atLeastRouteVersion uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[name]
	if e == nil {
		return // nothing to forget; a fetch from now on is linearizable
	}
	if e.route == nil {
		c.drop(name)
		return
	}
	if atLeastRouteVersion > 0 {
		isNew := !e.stale && e.route.Version >= atLeastRouteVersion
		isComing := e.flight != nil && e.least >= atLeastRouteVersion
		if isNew || isComing {
			return
		}
	}
	e.flight = nil
	e.stale = true
	e.least, e.leastOf = max(e.least, atLeastRouteVersion), e.route.ID
}

// invalidateRoute has a route fetched anew, unless it was replaced already.
func (c *RouteCache) invalidateRoute(r *TableRoute) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[r.Name]; e != nil && e.route == r && !e.stale {
		e.stale, e.flight = true, nil
	}
}
