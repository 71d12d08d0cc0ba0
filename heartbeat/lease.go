package heartbeat

import (
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// leaseMargin is the part of a lease, 1/20, by which clocks may run apart while it lasts: so much longer does metasrv
// hold a lease for valid than the node does.
const leaseMargin = 20

// HeldFor returns how long after the arrival of a request a lease that was granted for it may be held by its node.
func HeldFor(lease time.Duration) time.Duration { return lease + lease/leaseMargin }

// heldFor returns how long after the arrival of a request any lease that was granted for it may be held.
func (c Config) heldFor() time.Duration { return HeldFor(max(c.Lease, c.Longest)) }

// SetLease changes the length of the leases that are granted from now on; longest is that of the longest ones that may still
// run, 0 where none are longer. Leases of the length before are granted only for requests that arrived before SetLease
// returned. How long those run that earlier metasrv leaders granted stays as NewTracker was told.
func (t *Tracker) SetLease(lease, longest time.Duration) {
	cfg := t.cfg
	cfg.Lease, cfg.Longest = lease, longest
	t.present.Store(&cfg)
}

// lease returns the length of a lease that is granted now. Who grants one asks before the barrier: by its proof that no later
// metasrv leader was there then, the state that the length is from has nothing that a successor of this one doesn't know of
// when it takes over.
func (t *Tracker) lease() time.Duration { return t.present.Load().Lease }

// Withhold keeps a region out of every grant to a node from now on, until Release. It returns when the last grant ends
// that may cover the region, by this member's monotonic clock: before that moment, nobody else may be made its leader.
// Calls add up: each needs its Release.
//
// Whoever takes a leadership away withholds it first, then waits for the moment returned, then proposes, and releases
// once the outcome is applied on this member or is known to be none.
func (t *Tracker) Withhold(node metasrv.NodeID, region metasrv.RegionID) time.Time {
	h := t.getOrAdd(node)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.withheld == nil {
		h.withheld = make(map[metasrv.RegionID]int)
	}
	h.withheld[region]++
	return t.leaseEnd(h)
}

// Release takes back a Withhold. The outcome of what was proposed meanwhile must be applied on this member: the region is
// judged again before the next grant, by a state that has it.
func (t *Tracker) Release(node metasrv.NodeID, region metasrv.RegionID) {
	h := t.getOrAdd(node)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.withheld[region]--; h.withheld[region] <= 0 {
		delete(h.withheld, region)
	}
	// The barrier of a beat that is under way may have begun before the outcome was committed.
	h.markTable(region.Table())
}

// Withheld returns how many regions are withheld.
func (t *Tracker) Withheld() int {
	t.mu.RLock()
	defer t.mu.RUnlock()
	n := 0
	for _, h := range t.nodes {
		h.mu.Lock()
		n += len(h.withheld)
		h.mu.Unlock()
	}
	return n
}

// LeaseEnd returns when the last grant to a node ends, whichever regions it covers, by this member's monotonic clock. What
// earlier metasrv leaders granted counts: it ended at the latest one lease after this one took over.
func (t *Tracker) LeaseEnd(node metasrv.NodeID) time.Time {
	h := t.get(node)
	if h == nil {
		return t.started.Add(t.cfg.heldFor())
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return t.leaseEnd(h)
}

// leaseEnd is LeaseEnd. h.mu is held.
func (t *Tracker) leaseEnd(h *heard) time.Time {
	earliest := t.started.Add(t.cfg.heldFor())
	if h.grantedUntil.After(earliest) {
		return h.grantedUntil
	}
	return earliest
}

// grant records a lease of a length for a request that arrived at some time, and returns the region leaders that it doesn't cover.
// h.mu is held, from before the reports were judged until the record is made: who takes a leadership away either comes
// before, and the grant leaves the region out, or after, and sees how long it lasts.
func (t *Tracker) grant(h *heard, arrived time.Time, lease time.Duration) []*metasrvpb.ReplicaRef {
	var ungranted []*metasrvpb.ReplicaRef
	for _, d := range h.differences {
		ungranted = append(ungranted, d.refused...)
	}
	refused := len(ungranted)
	for region := range h.withheld {
		for _, r := range h.reports.region(region) {
			if r.Leads() {
				ungranted = append(ungranted, refOf(r))
			}
		}
	}
	t.counters.Refused.Add(uint64(refused))
	t.counters.Withheld.Add(uint64(len(ungranted) - refused)) //nolint:gosec // not negative
	h.hold(arrived, lease)
	return ungranted
}

// hold notes a lease that was granted. h.mu is held.
func (h *heard) hold(arrived time.Time, lease time.Duration) {
	if until := arrived.Add(HeldFor(lease)); until.After(h.grantedUntil) {
		h.grantedUntil = until
	}
}

func refOf(r RegionReport) *metasrvpb.ReplicaRef {
	return &metasrvpb.ReplicaRef{RegionId: uint64(r.Region), ReplicaId: uint64(r.Replica)}
}
