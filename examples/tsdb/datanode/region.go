package datanode

import (
	"sync"
	"time"

	"github.com/metasrv/metasrv/examples/tsdb/store"
)

// region is what the service keeps of a replica in memory.
type region struct {
	service  *Service
	replica  *store.Replica
	counters counters
	// measured is for the reports alone.
	measured measured

	// reads has those who wait to hear that the replica has everything.
	reads rounds

	// storing is held while the region leader's writes are stored, and noted in the journal.
	storing sync.Mutex

	mu sync.Mutex
	// leading is set while the replica leads its region, in one epoch.
	leading *leadership
	// waiting are writes that no group has taken yet; running says that a goroutine takes them.
	waiting []*pendingWrite
	running bool
	// closed: the replica is neither served nor reported, until it is opened again.
	closed bool
}

// lead has the replica lead in the epoch of its state, which is durable, or know the configuration of it if it leads already.
func (g *region) lead() {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.replica.State() // with the lock: an older one must not end a newer leadership
	if !s.Leads() || g.closed {
		return
	}
	if g.leading == nil || g.leading.epoch != s.LeaderEpoch {
		if g.leading != nil {
			g.leading.end(errHandedOver(g))
		}
		g.leading = newLeadership(g, s)
	}
	g.leading.configure(s.Config)
	g.service.keeper.Lead(g.replica.Region(), g.replica.ID(), s.LeaderEpoch)
}

// stopLeading ends the leadership of epochs below one: nothing is acknowledged under them from then on.
func (g *region) stopLeading(below uint64, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if l := g.leading; l != nil && l.epoch < below {
		g.service.keeper.Stop(g.replica.Region())
		g.leading = nil
		l.end(err)
	}
}

// leadership returns the present one, nil where the replica doesn't lead.
func (g *region) leadership() *leadership {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.leading
}

// errHandedOver says that this replica doesn't lead any more.
func errHandedOver(g *region) error {
	return invalid(g.replica.Region(), g.replica, "the replica on this datanode leads the region no longer")
}

// watch looks after the regions that this node leads: it has followers that don't answer leave the in-sync set, and
// those that caught up come back.
func (s *Service) watch() {
	ticker := time.NewTicker(watchInterval)
	defer ticker.Stop()
	last := time.Now()
	for {
		select {
		case <-s.ctx.Done():
			return
		case now := <-ticker.C:
			// A process that was paused has not waited for its followers as long.
			passed := min(now.Sub(last), 2*watchInterval)
			last = now
			for _, g := range s.allRegions() {
				if l := g.leadership(); l != nil {
					l.review(passed)
				}
			}
		}
	}
}

// watchInterval is how often a region leader looks which of its followers keep up.
const watchInterval = 200 * time.Millisecond
