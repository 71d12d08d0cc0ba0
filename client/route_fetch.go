package client

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// flight is one fetch of one route. All but done is set before done is closed.
type flight struct {
	done  chan struct{}
	route *TableRoute
	err   error
	// abandoned: the context of the caller who fetched has ended, which says nothing to those who wait.
	abandoned bool
}

// wait returns when the flight has landed, or with the error of ctx.
func (f *flight) wait(ctx context.Context) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

const (
	firstCatchUpPause = 20 * time.Millisecond
	maxCatchUpPause   = 200 * time.Millisecond
)

// errNotFetched is the error of flights whose fetch ended by a panic.
var errNotFetched = errors.New("the fetch was given up")

// fetch lands the flights: with a route, or with an error.
func (c *RouteCache) fetch(ctx context.Context, led map[metasrv.TableName]*flight) {
	left := make(map[metasrv.TableName]struct{}, len(led))
	for name := range led {
		left[name] = struct{}{}
	}
	err := errNotFetched
	defer func() {
		for name := range left {
			c.land(name, led[name], fetched{err: err}, true)
		}
	}()
	deadline := time.Now().Add(c.catchUp)
	for wait := firstCatchUpPause; ; wait = min(2*wait, maxCatchUpPause) {
		late := time.Until(deadline) < wait
		for name, got := range c.routes(ctx, left) {
			if got.err == nil && !late && c.isBehind(name, led[name], got.route) {
				continue
			}
			c.land(name, led[name], got, endedBy(ctx, got.err))
			delete(left, name)
		}
		if len(left) == 0 {
			return
		}
		if !pause(ctx, wait) {
			if err = context.Cause(ctx); err == nil {
				err = context.DeadlineExceeded // it would have passed during the pause
			}
			return
		}
	}
}

// endedBy reports whether ctx may be the reason for err. The deadline counts a little before it passes, for a
// Client gives up when there is no time for another attempt.
func endedBy(ctx context.Context, err error) bool {
	if ctx.Err() != nil {
		return true
	}
	_, bounded := ctx.Deadline()
	return bounded && (errors.Is(err, context.DeadlineExceeded) || status.Code(err) == codes.DeadlineExceeded)
}

// isBehind reports whether a flight must go on because a datanode knows a newer version than it found.
func (c *RouteCache) isBehind(name metasrv.TableName, f *flight, r *TableRoute) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entries[name]
	return e != nil && e.flight == f && e.isBehind(r)
}

// land ends a flight and, unless it was detached meanwhile, keeps what it found.
func (c *RouteCache) land(name metasrv.TableName, f *flight, got fetched, abandoned bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.route, f.err, f.abandoned = got.route, got.err, abandoned && got.err != nil
	close(f.done)
	e := c.entries[name]
	if e == nil || e.flight != f {
		return
	}
	e.flight = nil
	switch {
	case got.err == nil:
		r := got.route
		if e.route != nil && e.route.Revision > r.Revision {
			r = e.route // Run was faster
		}
		c.keep(name, e, r)
		e.stale = r.Revision < c.floor
	case isNotFound(got.err) || e.route == nil:
		c.drop(name)
	}
}

// fetched is the answer for one name.
type fetched struct {
	route *TableRoute
	err   error
}

// maxSingleFetches bounds the calls that are made at a time after a call for several tables was refused.
const maxSingleFetches = 8

// routes asks metasrv for routes. A call for several tables fails if one of them does not exist; then it asks
// for each alone, so that the others are served.
func (c *RouteCache) routes(ctx context.Context, names map[metasrv.TableName]struct{}) map[metasrv.TableName]fetched {
	got := make(map[metasrv.TableName]fetched, len(names))
	list := make([]metasrv.TableName, 0, len(names))
	for name := range names {
		list = append(list, name)
	}
	routes, err := c.call(ctx, list)
	if len(list) == 1 || !isRefused(err) {
		for _, name := range list {
			got[name] = answerFor(name, routes, err)
		}
		return got
	}
	var mu sync.Mutex
	var g errgroup.Group
	g.SetLimit(maxSingleFetches)
	for _, name := range list {
		g.Go(func() error {
			routes, err := c.call(ctx, []metasrv.TableName{name})
			mu.Lock()
			defer mu.Unlock()
			got[name] = answerFor(name, routes, err)
			return nil
		})
	}
	_ = g.Wait() // each name has its own error
	return got
}

func answerFor(name metasrv.TableName, routes map[metasrv.TableName]*TableRoute, err error) fetched {
	switch {
	case err != nil:
		return fetched{err: err}
	case routes[name] == nil:
		return fetched{err: metasrv.ErrTableNotFound.With("metasrv answered without table %s", name)}
	}
	return fetched{route: routes[name]}
}

// call is one Router.Route.
func (c *RouteCache) call(
	ctx context.Context, names []metasrv.TableName,
) (map[metasrv.TableName]*TableRoute, error) {
	request := &metasrvpb.RouteRequest{Header: &metasrvpb.RequestHeader{
		ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_LINEARIZABLE,
	}}
	for _, name := range names {
		request.TableNames = append(request.TableNames, protoOf(name))
	}
	answer, err := c.router.Route(ctx, request)
	if err != nil {
		return nil, err
	}
	routes := make(map[metasrv.TableName]*TableRoute, len(names))
	for _, m := range answer.GetTableRoutes() {
		r, err := NewTableRoute(m, answer.GetPeers())
		if err != nil {
			return nil, err
		}
		r.Revision = answer.GetHeader().GetRevision()
		routes[r.Name] = r
	}
	return routes, nil
}

// isNotFound reports whether metasrv says that the table, its schema or its catalog does not exist.
func isNotFound(err error) bool {
	return kindOf(err) == metasrv.KindNotFound
}

// isRefused reports whether metasrv refused a call for what is asked for, so that a part of it may succeed.
func isRefused(err error) bool {
	return err != nil && (isNotFound(err) || kindOf(err) == metasrv.KindInvalidArgument)
}

func kindOf(err error) metasrv.Kind {
	if err == nil {
		return metasrv.KindInternal
	}
	return metasrv.ErrorOf(Reason(err), "", "").Kind
}
