package heartbeat

import (
	"time"

	"github.com/metasrv/metasrv"
)

// firstBeats is how many intervals a new metasrv leader waits at least before it takes a node for failed, and one that was paused
// from when it goes on: each must have had its chance to find the new one, or to be heard again.
const firstBeats = 3

// Failed returns the nodes that may serve nothing any more at now: silent for longer than a lease, and whatever was granted
// to them, by this member or an earlier metasrv leader, has ended. next is when another one will have failed at the
// earliest if it stays silent, the zero time where there is none.
//
// It knows only datanodes that have replicas or were heard in this term, and doesn't ask whether they keep leases.
func (t *Tracker) Failed(now time.Time) (failed []metasrv.NodeID, next time.Time) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	since := t.listening()
	for id, h := range t.nodes {
		h.mu.Lock()
		at, frontend := t.failsAt(h, since), h.frontend
		h.mu.Unlock()
		switch {
		case frontend:
		case !now.Before(at):
			failed = append(failed, id)
		case next.IsZero() || at.Before(next):
			next = at
		}
	}
	return failed, next
}

// isFrontend notes whether a node is a frontend: one that ends is nothing to look after.
func (h *heard) isFrontend(is bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.frontend = is
}

// HasFailed says of one node what Failed does.
func (t *Tracker) HasFailed(node metasrv.NodeID, now time.Time) bool {
	h := t.get(node)
	if h == nil {
		return !now.Before(t.failsAt(&heard{}, t.listening()))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return !now.Before(t.failsAt(h, t.listening()))
}

// failsAt returns when a node has failed if it stays silent, for a tracker that has listened since some time. h.mu is held.
func (t *Tracker) failsAt(h *heard, since time.Time) time.Time {
	at := since.Add(firstBeats * t.cfg.Interval)
	if end := t.leaseEnd(h); end.After(at) {
		at = end
	}
	// A node that gets no lease, for its reports are not agreed on, is heard all the same.
	if silent := h.lastBeat.Add(t.present.Load().heldFor()); h.beaten && silent.After(at) {
		at = silent
	}
	return at
}

// Silence returns how long nothing has been heard of a node whose status was taken at now: since the beginning of the term
// where nothing was. What the process was paused for doesn't count.
func (t *Tracker) Silence(s NodeStatus, now time.Time) time.Duration {
	if !s.Heard {
		return t.silence(t.started, now)
	}
	return t.silence(now.Add(-s.Age), now)
}

// Doubtful returns the silence from which on a node is counted among those that may be about to fail: it has missed a beat
// at least, and all nodes that fell silent together with one that has failed have been silent for so long.
func (c Config) Doubtful() time.Duration { return c.heldFor() - c.Interval }

// NodeAbsence is a replica that a node doesn't have.
type NodeAbsence struct {
	Node metasrv.NodeID
	Absence
}

// Absent returns the replicas that lead or are in sync by the state, and that their nodes, which are heard, don't have: those
// that were on other storage or were set back, and those that a node has not reported for a lease, while it was told to open them.
func (t *Tracker) Absent() []NodeAbsence {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []NodeAbsence
	cfg := t.Config()
	for id, h := range t.nodes {
		h.mu.Lock()
		for _, d := range h.differences {
			for _, a := range d.absent {
				if a.Lost || a.SetBack || h.lastBeat.Sub(a.since) >= max(cfg.Lease, cfg.Longest) {
					found = append(found, NodeAbsence{id, a.Absence})
				}
			}
		}
		h.mu.Unlock()
	}
	return found
}

// Has says whether the present process of a node has said, in this term, that it has a replica: by naming it, or by the digest
// of all that the state places there.
func (t *Tracker) Has(node metasrv.NodeID, region metasrv.RegionID, replica metasrv.ReplicaID) bool {
	h := t.get(node)
	if h == nil {
		return false
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.presumed && len(h.reports) == 0 {
		_, changed := h.dirty[region.Table()]
		return !changed
	}
	_, reported := h.reports.search(region, replica)
	return reported
}

// HandedOver returns the regions that nodes which were heard lead and hand over.
func (t *Tracker) HandedOver() []metasrv.RegionID {
	t.mu.RLock()
	defer t.mu.RUnlock()
	var found []metasrv.RegionID
	for _, h := range t.nodes {
		h.mu.Lock()
		for _, d := range h.differences {
			found = append(found, d.demoting...)
		}
		h.mu.Unlock()
	}
	return found
}
