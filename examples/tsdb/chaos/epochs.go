package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// epochs is what metasrv said of the leaders of regions, as a watch of the routes told it.
type epochs struct {
	mu      sync.Mutex
	leaders map[epoch]elected
	latest  map[uint64]uint64
}

// epoch is one leader_epoch of a region.
type epoch struct{ region, number uint64 }

// elected is the replica that leads in an epoch, and when this was known here: metasrv had decided it before.
type elected struct {
	replica uint64
	known   time.Time
}

func newEpochs() *epochs {
	return &epochs{leaders: map[epoch]elected{}, latest: map[uint64]uint64{}}
}

// watch follows the routes until ctx ends.
func (e *epochs) watch(ctx context.Context, cl *client.Client, violated func(error)) {
	next := uint64(0)
	for ctx.Err() == nil {
		stream, err := cl.Router().Watch(ctx, &metasrvpb.WatchRoutesRequest{StartRevision: next})
		for err == nil {
			var answer *metasrvpb.WatchRoutesResponse
			if answer, err = stream.Recv(); err != nil {
				break
			}
			for _, event := range answer.GetEvents() {
				for _, r := range event.GetUpdated().GetRegionRoutes() {
					if err := e.note(r, time.Now()); err != nil {
						violated(err)
					}
				}
			}
			if answer.GetRevision() > 0 {
				next = answer.GetRevision() + 1
			}
		}
		sleep(ctx, 100*time.Millisecond)
	}
}

// note keeps what a route says of a region, and returns what is wrong with it.
func (e *epochs) note(r *metasrvpb.RegionRoute, now time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	region, number, replica := r.GetRegion().GetId(), r.GetLeaderEpoch(), r.GetLeaderReplicaId()
	if last := e.latest[region]; number < last {
		return fmt.Errorf("the leader_epoch of region %d went back from %d to %d", region, last, number)
	}
	e.latest[region] = number
	at := epoch{region, number}
	if known, ok := e.leaders[at]; ok && known.replica != replica {
		return fmt.Errorf("region %d has two leaders in epoch %d: replicas %d and %d", region, number, known.replica, replica)
	}
	if _, ok := e.leaders[at]; !ok {
		e.leaders[at] = elected{replica: replica, known: now}
	}
	return nil
}

// knows reports whether the watch has seen an epoch of a region.
func (e *epochs) knows(region, number uint64) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.latest[region] >= number
}

// elections returns how often a region got another leader.
func (e *epochs) elections() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	return len(e.leaders) - len(e.latest)
}
