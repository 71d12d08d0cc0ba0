package loadgen

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestBucketHoldsItsDurations(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, longest).Draw(t, "duration"))
		i := bucketOf(d)
		if i >= buckets {
			t.Fatalf("%v is in bucket %d of %d", d, i, buckets)
		}
		top := upperBound(i)
		if top < d || float64(top) > float64(d)*(1+1.0/subBuckets)+1 {
			t.Errorf("%d is in bucket %d, which ends at %d", d, i, top)
		}
		if i > 0 && upperBound(i-1) >= d {
			t.Errorf("%d is in bucket %d, bucket %d ends at %d", d, i, i-1, upperBound(i-1))
		}
	})
}

func TestQuantiles(t *testing.T) {
	var all []time.Duration
	parts := make([]Histogram, 3)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 10_000 {
		d := time.Duration(random.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		parts[i%3].Add(d)
	}
	slices.Sort(all)
	var h Histogram
	for i := range parts {
		h.Merge(&parts[i])
	}
	if h.Count() != 10_000 || h.Min() != all[0] || h.Max() != all[len(all)-1] {
		t.Errorf("count %d, min %v, max %v", h.Count(), h.Min(), h.Max())
	}
	for _, q := range []float64{0.001, 0.5, 0.9, 0.99, 0.999, 1} {
		want := all[int(q*float64(len(all)))-1]
		if got := h.Quantile(q); got < want || float64(got) > float64(want)*1.01 {
			t.Errorf("quantile %v is %v, want %v", q, got, want)
		}
	}
	sum := uint64(0)
	for i, b := range h.Bars() {
		sum += b.Count
		if i > 0 && b.UpTo != 2*h.Bars()[i-1].UpTo {
			t.Errorf("row %d ends at %v, the one before at %v", i, b.UpTo, h.Bars()[i-1].UpTo)
		}
	}
	if sum != h.Count() {
		t.Errorf("the rows have %d durations of %d", sum, h.Count())
	}
}

func TestEmptyHistogram(t *testing.T) {
	var h Histogram
	h.Merge(&Histogram{})
	if h.Quantile(0.99) != 0 || h.Mean() != 0 || h.Max() != 0 || len(h.Bars()) != 0 {
		t.Error("an empty histogram says something")
	}
}
