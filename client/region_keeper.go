package client

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// RegionKeeper knows which regions a node leads, and until when it may acknowledge writes to them. A HeartbeatTask that
// has one keeps its leases up. A datanode asks it twice a write:
//
//	w, err := keeper.BeginWrite(region)   // metasrv.ErrNotRegionLeader, metasrv.ErrNoLease: nothing may be written
//	… number the write in w.Epoch(), store it here and on all other in-sync replicas …
//	err = w.End()                         // metasrv.ErrOutcomeUnknown: it must not be acknowledged
//
// Time is counted by a clock of this node that goes on while the machine is suspended, where it has one. A region is
// covered by a lease only if a request reported it as led, in its epoch, after Lead was called, and metasrv granted that
// request.
type RegionKeeper struct {
	// now is the time by the clock of leases, from some beginning.
	now func() time.Duration

	// regions has a *leadership by metasrv.RegionID. It is changed with mu held.
	regions sync.Map
	mu      sync.Mutex
	// number counts the requests, over all streams.
	number uint64
	// lapses counts the leases that ended before the next one was granted.
	lapses uint64
	// firstLease is closed, and replaced, when a leadership gets its first lease.
	firstLease chan struct{}
}

// leadership is one region that the node leads in one epoch.
type leadership struct {
	region, replica, epoch uint64
	// until is when the lease ends by the keeper's clock, in ns; 0 before the first one and once the leadership is over.
	until atomic.Int64
	// since is the first of the requests that have all reported the leadership, 0 where the last one didn't; reported is the
	// last one that did. The keeper's mu guards both.
	since, reported uint64
}

// NewRegionKeeper returns a keeper of a node that leads nothing yet.
func NewRegionKeeper() *RegionKeeper {
	return &RegionKeeper{now: leaseClock, firstLease: make(chan struct{})}
}

// Lead says that a replica of this node leads its region from now on, in an epoch that it has made durable. It acknowledges
// writes when it has been reported like that, and metasrv has granted a lease. Leading it already in this epoch or a later
// one, it changes nothing.
func (k *RegionKeeper) Lead(region metasrv.RegionID, replica metasrv.ReplicaID, epoch uint64) {
	k.mu.Lock()
	defer k.mu.Unlock()
	was := k.leadership(region)
	switch {
	case was == nil:
	case was.epoch > epoch, was.epoch == epoch && was.replica == uint64(replica):
		return
	default:
		was.until.Store(0)
	}
	k.regions.Store(region, &leadership{region: uint64(region), replica: uint64(replica), epoch: epoch})
}

// Stop says that the node no longer leads a region. Writes under way must not be acknowledged.
func (k *RegionKeeper) Stop(region metasrv.RegionID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stop(region)
}

func (k *RegionKeeper) stop(region metasrv.RegionID) {
	if l := k.leadership(region); l != nil {
		l.until.Store(0)
		k.regions.Delete(region)
	}
}

func (k *RegionKeeper) leadership(region metasrv.RegionID) *leadership {
	l, ok := k.regions.Load(region)
	if !ok {
		return nil
	}
	return l.(*leadership)
}

// BeginWrite checks that this node may write to a region. metasrv.ErrNotRegionLeader: another node leads it.
// metasrv.ErrNoLease: this one leads it, and has no lease at present: metasrv was not reached in time, or has not judged
// the leadership yet.
func (k *RegionKeeper) BeginWrite(region metasrv.RegionID) (Write, error) {
	l := k.leadership(region)
	if l == nil {
		return Write{}, metasrv.ErrNotRegionLeader.With("this node doesn't lead region %s", region)
	}
	if !k.holds(l) {
		return Write{}, metasrv.ErrNoLease.With("this node leads region %s in epoch %d, but has no lease of metasrv at present", region, l.epoch)
	}
	return Write{keeper: k, leadership: l}, nil
}

// AwaitFirstLease waits until this node has had a lease for leading a region in an epoch, or in a later one: those who read the
// routes may hear of a leadership earlier than the node that has it. It returns nil then, and the error of ctx if that ends first.
// A lease that has ended since is not waited for.
func (k *RegionKeeper) AwaitFirstLease(ctx context.Context, region metasrv.RegionID, epoch uint64) error {
	for {
		k.mu.Lock()
		l, granted := k.leadership(region), k.firstLease
		k.mu.Unlock()
		if l != nil && l.epoch >= epoch && l.until.Load() != 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-granted:
		}
	}
}

func (k *RegionKeeper) holds(l *leadership) bool { return int64(k.now()) < l.until.Load() }

// Write is a write that was begun.
type Write struct {
	keeper     *RegionKeeper
	leadership *leadership
}

// Epoch returns the leader epoch that the write is numbered in.
func (w Write) Epoch() uint64 { return w.leadership.epoch }

// End is called when all in-sync replicas have stored the write, just before it is acknowledged: a pause may have fallen
// between BeginWrite and the disk. metasrv.ErrOutcomeUnknown: the epoch or the lease has ended, so another node may lead the
// region, and the write must not be acknowledged; it may survive nevertheless.
func (w Write) End() error {
	if w.keeper.holds(w.leadership) {
		return nil
	}
	return metasrv.ErrOutcomeUnknown.With("the lease of region %s in epoch %d ended while the write was under way",
		metasrv.RegionID(w.leadership.region), w.leadership.epoch)
}

// ticket is a request on its way, as far as a lease can be granted for it.
type ticket struct {
	// sequence is that on the stream, number that of the keeper.
	sequence, number uint64
	sentAt           time.Duration
	digest           uint64
}

// sending notes a request that reports these replicas of the node and is about to be sent.
func (k *RegionKeeper) sending(stats []*metasrvpb.RegionStat) ticket {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.number++
	for _, s := range stats {
		if s.GetRole() != metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER || s.GetDemoted() {
			continue
		}
		if l := k.leadership(metasrv.RegionID(s.GetRegionId())); l != nil && l.replica == s.GetReplicaId() && l.epoch == s.GetLeaderEpoch() {
			l.reported = k.number
		}
	}
	for _, value := range k.regions.Range {
		l := value.(*leadership)
		switch {
		case l.reported != k.number:
			l.since = 0
		case l.since == 0:
			l.since = k.number
		}
	}
	return ticket{number: k.number, sentAt: k.now()}
}

// granted notes that metasrv granted a lease for a request: all that was reported as led up to it, but for what is named.
func (k *RegionKeeper) granted(t ticket, lease time.Duration, ungranted []*metasrvpb.ReplicaRef) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := int64(k.now())
	without := make(map[replicaKey]bool, len(ungranted))
	for _, r := range ungranted {
		without[replicaKey{r.GetRegionId(), r.GetReplicaId()}] = true
	}
	until := int64(t.sentAt + lease)
	first := false
	for _, value := range k.regions.Range {
		l := value.(*leadership)
		if l.since == 0 || l.since > t.number || without[replicaKey{l.region, l.replica}] {
			continue
		}
		// Answers to one request may come more than once, and cover more each time.
		before := l.until.Load()
		if until <= before {
			continue
		}
		if before != 0 && before <= now {
			k.lapses++
		}
		l.until.Store(until)
		first = first || before == 0
	}
	if first {
		close(k.firstLease)
		k.firstLease = make(chan struct{})
	}
}

// demote ends a leadership that an instruction names, before the instruction is executed.
func (k *RegionKeeper) demote(d *metasrvpb.DemoteRegion) {
	k.mu.Lock()
	defer k.mu.Unlock()
	region := metasrv.RegionID(d.GetConfig().GetRegionId())
	if l := k.leadership(region); l != nil && l.replica == d.GetReplicaId() && l.epoch <= d.GetConfig().GetLeaderEpoch() {
		k.stop(region)
	}
}
