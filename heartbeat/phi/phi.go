// Package phi says how unlikely a silence is, given the intervals at which something was heard before: the accrual failure
// detector of Hayashibara, Défago, Yared and Katayama (2004). It knows no clock, and decides nothing.
package phi

import (
	"math"
	"time"
)

const (
	// size is how many intervals are remembered.
	size = 64
	// enough is how many there must be to judge by.
	enough = 16
	// max bounds what Phi returns: beyond it the numbers mean nothing.
	maxPhi = 100
)

// History is the last intervals between two arrivals. Its zero value is empty.
type History struct {
	// intervals are in seconds.
	intervals   [size]float32
	count, next int
	last        time.Time
}

// Arrive notes an arrival. One that is not later than the last one is ignored.
func (h *History) Arrive(at time.Time) {
	if !h.last.IsZero() {
		if !at.After(h.last) {
			return
		}
		h.intervals[h.next] = float32(at.Sub(h.last).Seconds())
		h.next = (h.next + 1) % size
		h.count = min(h.count+1, size)
	}
	h.last = at
}

// Forget begins anew: what comes next has intervals of its own.
func (h *History) Forget() { *h = History{} }

// Phi returns -log10 of how likely it is that the next arrival takes so long as it has at now, between 0 and 100; false where
// too little is known. From 8 on, one such silence in 10^8 is a mistake, if intervals go on as they did. It never falls while
// nothing arrives. least is the standard deviation that is assumed at least, for arrivals that were more regular than anything
// stays.
func (h *History) Phi(now time.Time, least time.Duration) (phi float64, known bool) {
	if h.count < enough {
		return 0, false
	}
	mean, deviation := h.moments()
	deviation = max(deviation, least.Seconds())
	if deviation <= 0 {
		return 0, false
	}
	// The tail of the normal distribution, which falls too fast for a float far out.
	tail := math.Erfc((now.Sub(h.last).Seconds()-mean)/(deviation*math.Sqrt2)) / 2
	if tail <= 0 {
		return maxPhi, true
	}
	return min(max(0, -math.Log10(tail)), maxPhi), true
}

// moments returns the mean of the intervals and their standard deviation.
func (h *History) moments() (mean, deviation float64) {
	for _, d := range h.intervals[:h.count] {
		mean += float64(d)
	}
	mean /= float64(h.count)
	for _, d := range h.intervals[:h.count] {
		deviation += (float64(d) - mean) * (float64(d) - mean)
	}
	return mean, math.Sqrt(deviation / float64(h.count))
}
