package loadgen

import (
	"math/bits"
	"time"
)

// A Histogram counts durations in buckets that are at most 1/128 wider than their lower bound, like HdrHistogram. It
// is for one goroutine; Merge joins those of several.
type Histogram struct {
	counts   []uint64
	count    uint64
	sum      time.Duration
	min, max time.Duration
}

const (
	subBits    = 7
	subBuckets = 1 << subBits
	// longest is counted as such; longer durations are counted as it.
	longest = 1<<40 - 1 // 18 minutes
	buckets = (40 - subBits + 1) * subBuckets
)

// Add counts one duration.
func (h *Histogram) Add(d time.Duration) {
	if h.counts == nil {
		h.counts = make([]uint64, buckets)
		h.min = d
	}
	h.counts[bucketOf(d)]++
	h.count++
	h.sum += d
	h.min, h.max = min(h.min, d), max(h.max, d)
}

// Merge adds what other has counted.
func (h *Histogram) Merge(other *Histogram) {
	if other.count == 0 {
		return
	}
	if h.counts == nil {
		h.counts = make([]uint64, buckets)
		h.min = other.min
	}
	for i, n := range other.counts {
		h.counts[i] += n
	}
	h.count += other.count
	h.sum += other.sum
	h.min, h.max = min(h.min, other.min), max(h.max, other.max)
}

// Count returns how many durations were added.
func (h *Histogram) Count() uint64 { return h.count }

// Min returns the shortest duration, 0 where there is none.
func (h *Histogram) Min() time.Duration { return h.min }

// Max returns the longest duration.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean returns the average.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count) //nolint:gosec // a count of operations
}

// Quantile returns a duration that the share q of all, such as 0.99, does not exceed; at most 1/128 too high.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q * float64(h.count))
	if float64(rank) < q*float64(h.count) {
		rank++
	}
	seen := uint64(0)
	for i, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return min(upperBound(i), h.max)
		}
	}
	return h.max
}

// Bar is one row of a histogram for people.
type Bar struct {
	// UpTo is the longest duration of the row, a power of two microseconds.
	UpTo  time.Duration
	Count uint64
}

// Bars returns the counts by powers of two of a microsecond, from the first that has any to the last.
func (h *Histogram) Bars() []Bar {
	var bars []Bar
	for i, n := range h.counts {
		if n == 0 {
			continue
		}
		top := time.Microsecond
		for top < min(upperBound(i), h.max) {
			top *= 2
		}
		for len(bars) > 0 && bars[len(bars)-1].UpTo < top/2 {
			bars = append(bars, Bar{UpTo: 2 * bars[len(bars)-1].UpTo})
		}
		if len(bars) == 0 || bars[len(bars)-1].UpTo < top {
			bars = append(bars, Bar{UpTo: top})
		}
		bars[len(bars)-1].Count += n
	}
	return bars
}

func bucketOf(d time.Duration) int {
	v := uint64(min(max(d, 0), longest)) //nolint:gosec // not negative
	if v < subBuckets {
		return int(v) //nolint:gosec // below subBuckets
	}
	shift := bits.Len64(v) - subBits - 1
	return shift*subBuckets + int(v>>shift) //nolint:gosec // below 2*subBuckets
}

// upperBound returns the longest duration of a bucket.
func upperBound(i int) time.Duration {
	if i < 2*subBuckets {
		return time.Duration(i)
	}
	shift := i/subBuckets - 1
	return time.Duration((i%subBuckets+subBuckets+1)<<shift - 1)
}
