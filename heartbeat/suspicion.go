package heartbeat

import "time"

// note notes a beat that is due. Nodes beat in between where they have something to tell, which says nothing of when the next
// beat is due. h.mu is held.
func (h *heard) note(now time.Time, interval time.Duration) {
	if now.Sub(h.noted) < interval/2 {
		return
	}
	h.noted = now
	h.history.Arrive(now)
}

// suspects says whether a node is silent for longer than its history lets expect. Suspicion steers where replicas and region
// leaders go; whether a node has failed is told by its leases alone. h.mu is held.
func (t *Tracker) suspects(h *heard, now time.Time) bool {
	if t.cfg.SuspectPhi == 0 || t.silence(h.lastBeat, now) < t.cfg.Interval+t.cfg.Interval/2 {
		return false
	}
	p, known := h.history.Phi(now, t.cfg.Interval/10)
	return known && p >= t.cfg.SuspectPhi
}
