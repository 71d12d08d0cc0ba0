package cluster

import (
	"context"
	"maps"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
)

// errMoved: an answer was not waited for any longer.
var errMoved = status.Error(codes.Unavailable, "no answer, and the region is led elsewhere by now")

// suspectEvery is how often a route is fetched again that is only suspect: where a node has failed, the writers of all its regions
// suspect the same one, over and over.
const suspectEvery = 250 * time.Millisecond

// suspects are the times at which routes were suspect last.
type suspects struct {
	mu   sync.Mutex
	last map[metasrv.TableName]time.Time
}

// suspect has the route of a table fetched again, unless that was done a moment ago.
func (c *Cluster) suspect(name metasrv.TableName) {
	now := time.Now()
	c.suspects.mu.Lock()
	defer c.suspects.mu.Unlock()
	if now.Sub(c.suspects.last[name]) < suspectEvery {
		return
	}
	if c.suspects.last == nil {
		c.suspects.last = map[metasrv.TableName]time.Time{}
	}
	// What has become old says nothing any more: the map has no more names than tables are suspect at a time.
	maps.DeleteFunc(c.suspects.last, func(_ metasrv.TableName, at time.Time) bool { return now.Sub(at) >= suspectEvery })
	c.suspects.last[name] = now
	c.routes.Invalidate(name, 0)
}

// untilMoved returns a context for a call to the leader of a region. It ends, with the cause errMoved, when the region is
// known to have another leader: a node that stands still would be waited for in vain. done frees what watches for that.
func (c *Cluster) untilMoved(ctx context.Context, t *client.TableRoute, r *client.Region) (_ context.Context, done func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	var watching sync.WaitGroup
	watching.Go(func() {
		for route := t; ; {
			select {
			case <-ctx.Done():
				return
			case <-c.routes.Changed(route):
			}
			next, err := c.routes.Get(ctx, t.Name)
			if err != nil {
				return // the call itself finds out
			}
			if now := regionOf(next, r.ID); now == nil || now.LeaderEpoch != r.LeaderEpoch || now.Leader != r.Leader {
				cancel(errMoved)
				return
			}
			route = next
		}
	})
	return ctx, func() {
		cancel(nil)
		watching.Wait()
	}
}

// pauseUnlessChanged is pause, but shorter where the route of the table changes.
func (c *Cluster) pauseUnlessChanged(ctx context.Context, n int, t *client.TableRoute) error {
	least := time.NewTimer(minBackoff / 2)
	defer least.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-least.C:
	}
	timer := time.NewTimer(backoffOf(n))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-timer.C:
	case <-c.routes.Changed(t):
	}
	return nil
}
