package cluster

import (
	"context"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv/client"
)

// errMoved: an answer was not waited for any longer.
var errMoved = status.Error(codes.Unavailable, "no answer, and the region is led elsewhere by now")

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
