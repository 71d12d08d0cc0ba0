package heartbeat

import "sync/atomic"

// Counters count what the trackers of all terms of a member have done. They only rise.
type Counters struct {
	// Beats counts requests, Lines the replicas that were reported in them.
	Beats, Lines atomic.Uint64
	// Superseded counts requests that were left without an answer because a newer one of the node was there.
	Superseded atomic.Uint64
	// Mismatches counts requests with another digest than that of the reports that are kept.
	Mismatches atomic.Uint64
	// FullAsked counts answers that asked for a full report.
	FullAsked atomic.Uint64
	// Grants counts the leases of nodes whose reports were judged, Presumed those by the digest alone.
	Grants, Presumed atomic.Uint64
	// Refused counts the region leaders that a grant left out because the state says otherwise, Withheld those left out
	// because their leadership was being taken away.
	Refused, Withheld atomic.Uint64
}

// CountIn has the tracker count in counters that outlast its term. It must be called before anything else.
func (t *Tracker) CountIn(c *Counters) { t.counters = c }
