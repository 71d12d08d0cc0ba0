package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	minWatchPause = 50 * time.Millisecond
	maxWatchPause = 2 * time.Second
)

// Run follows the changes of routes and keeps the cached ones fresh until ctx ends, which is what it returns. It
// only updates tables that were asked for. While metasrv can't be reached the cache goes on serving what it has.
// A cluster without Router.Watch is an error at once; the cache works without Run.
func (c *RouteCache) Run(ctx context.Context) error {
	var next uint64 // revision to watch from, 0 where the routes must be read again
	wait := minWatchPause
	for {
		before := next
		err := c.follow(ctx, &next)
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case status.Code(err) == codes.Unimplemented:
			return err
		case Reason(err) == metasrv.ErrCompacted.Reason:
			next = 0
		}
		if next > before {
			wait = minWatchPause
		}
		c.logger.Info("route watch broken", "revision", next, "error", err)
		// Half of the pause is random: all frontends lose a member at the same time.
		if !pause(ctx, wait/2+rand.N(wait/2)) {
			<-ctx.Done()
			return context.Cause(ctx)
		}
		wait = min(2*wait, maxWatchPause)
	}
}

// follow watches from revision *next on, which it moves forward, until the watch breaks.
func (c *RouteCache) follow(ctx context.Context, next *uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the stream
	if *next == 0 {
		revision, err := c.readAgain(ctx)
		if err != nil {
			return err
		}
		*next = revision + 1
	}
	stream, err := c.router.Watch(ctx, &metasrvpb.WatchRoutesRequest{StartRevision: *next})
	if err != nil {
		return err
	}
	for {
		m, err := stream.Recv()
		if err != nil {
			return err
		}
		c.apply(m)
		*next = max(*next, m.GetRevision()+1)
	}
}

// errNoRevision: a member that leaves out revisions can't be watched.
var errNoRevision = errors.New("metasrv answered without a revision")

// readAgain returns the present revision, and has routes that were read before it fetched anew when they are next
// asked for: changes may have been missed.
func (c *RouteCache) readAgain(ctx context.Context) (uint64, error) {
	answer, err := c.router.Route(ctx, &metasrvpb.RouteRequest{Header: &metasrvpb.RequestHeader{
		ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_LINEARIZABLE,
	}})
	if err != nil {
		return 0, err
	}
	if answer.GetHeader() == nil {
		return 0, errNoRevision
	}
	revision := answer.GetHeader().GetRevision() // 0 in a cluster in which nothing was changed yet
	c.mu.Lock()
	defer c.mu.Unlock()
	c.floor = revision
	for _, e := range c.entries {
		if e.route != nil && e.route.Revision < revision {
			e.stale = true
		}
	}
	return revision, nil
}

// apply brings the cached routes up to date with the events of one message.
func (c *RouteCache) apply(m *metasrvpb.WatchRoutesResponse) {
	for _, event := range m.GetEvents() {
		switch change := event.GetChange().(type) {
		case *metasrvpb.RouteEvent_Updated:
			r, err := NewTableRoute(change.Updated, m.GetPeers())
			if err != nil {
				// Whoever asks for the table fetches it, and gets this error if it is still so.
				table := change.Updated.GetTable()
				c.logger.Warn("route not understood", "table_id", table.GetId(), "error", err)
				c.Invalidate(nameOf(table.GetTableName()), 0)
				continue
			}
			r.Revision = event.GetRevision()
			c.update(r)
		case *metasrvpb.RouteEvent_Removed:
			table := change.Removed
			c.remove(metasrv.TableID(table.GetId()), nameOf(table.GetTableName()), event.GetRevision())
		case *metasrvpb.RouteEvent_Moved:
			c.moved(change.Moved, event.GetRevision())
		}
	}
}

// update replaces the route of a table, if the cache has its name and no newer route.
func (c *RouteCache) update(r *TableRoute) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if before, ok := c.names[r.ID]; ok && before != r.Name {
		c.drop(before) // renamed
	}
	e := c.entries[r.Name]
	if e == nil || e.route != nil && e.route.Revision > r.Revision {
		return
	}
	// The fetch that Invalidate asked for is still needed, unless this is what it would find.
	stale, least := e.stale && (e.least == 0 || e.isBehind(r)), e.least
	c.keep(r.Name, e, r)
	if stale {
		e.stale, e.least, e.leastOf = true, least, r.ID
	}
}

// remove forgets a table, unless its name was read since. A first fetch under way may have read it before.
func (c *RouteCache) remove(id metasrv.TableID, name metasrv.TableName, revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[name]; e != nil && e.route == nil {
		c.drop(name)
	}
	if name, ok := c.names[id]; ok && c.entries[name].route.Revision <= revision {
		c.drop(name)
	}
}

// moved gives a node another address in all routes that were read before. A first fetch under way may have read the old
// one: it answers only those who wait for it.
func (c *RouteCache) moved(node *metasrvpb.Peer, revision uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for name, e := range c.entries {
		switch {
		case e.route == nil:
			c.drop(name)
		case e.route.Revision < revision:
			if r := e.route.withAddress(metasrv.NodeID(node.GetId()), node.GetAddr()); r != nil {
				r.Revision = revision
				e.change()
				e.route = r
			}
		}
	}
}
