package phi_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/metasrv/metasrv/heartbeat/phi"
)

const least = 50 * time.Millisecond

// heard returns a history of some intervals, and when it ends.
func heard(intervals []time.Duration) (*phi.History, time.Time) {
	h, at := &phi.History{}, time.Unix(1000, 0)
	h.Arrive(at)
	for _, d := range intervals {
		at = at.Add(d)
		h.Arrive(at)
	}
	return h, at
}

func drawIntervals(t *rapid.T, least int) []time.Duration {
	ms := rapid.SliceOfN(rapid.IntRange(1, 5000), least, 100).Draw(t, "intervals in ms")
	list := make([]time.Duration, len(ms))
	for i, n := range ms {
		list[i] = time.Duration(n) * time.Millisecond
	}
	return list
}

// Suspicion is bounded, never falls during a silence, and is there in the end.
func TestSuspicionGrowsWithSilence(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, end := heard(drawIntervals(t, 16))
		before := 0.0
		for silence := time.Duration(0); silence < time.Hour; silence += silence/4 + 10*time.Millisecond {
			p, known := h.Phi(end.Add(silence), least)
			if !known || p < before || p > 100 {
				t.Fatalf("after %s: %g, %t, before that %g", silence, p, known, before)
			}
			before = p
		}
		if before < 8 {
			t.Fatalf("after an hour it is %g", before)
		}
	})
}

// An arrival ends suspicion: after one, no silence shorter than the mean of all intervals is suspected by more than chance.
func TestArrivalEndsSuspicion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		intervals := drawIntervals(t, 16)
		h, end := heard(intervals)
		end = end.Add(time.Minute)
		h.Arrive(end)
		if p, known := h.Phi(end, least); !known || p > 0.302 { // -log10(1/2)
			t.Fatalf("at an arrival it is %g", p)
		}
	})
}

// The less regular the beats were, the longer a silence is not suspected.
func TestIrregularityDelaysSuspicion(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		jitter := time.Duration(rapid.IntRange(200, 900).Draw(t, "jitter in ms")) * time.Millisecond
		var regular, irregular []time.Duration
		for i := range 64 {
			regular = append(regular, time.Second)
			irregular = append(irregular, time.Second+jitter*time.Duration(2*(i%2)-1))
		}
		a, endA := heard(regular)
		b, endB := heard(irregular)
		const silence = 1500 * time.Millisecond
		p, _ := a.Phi(endA.Add(silence), least)
		q, _ := b.Phi(endB.Add(silence), least)
		if q > p {
			t.Fatalf("regular beats: %g, irregular ones: %g", p, q)
		}
	})
}

func TestPhi(t *testing.T) {
	few := make([]time.Duration, 15)
	for i := range few {
		few[i] = time.Second
	}
	h, end := heard(few)
	if _, known := h.Phi(end.Add(time.Hour), least); known {
		t.Error("15 intervals are enough")
	}
	h.Arrive(end.Add(time.Second))
	end = end.Add(time.Second)
	h.Arrive(end.Add(-time.Second / 2)) // late, and ignored
	for silence, suspected := range map[time.Duration]bool{time.Second: false, 1200 * time.Millisecond: false, 1500 * time.Millisecond: true} {
		if p, known := h.Phi(end.Add(silence), least); !known || p >= 8 != suspected {
			t.Errorf("after %s: %g, %t", silence, p, known)
		}
	}
	h.Forget()
	if _, known := h.Phi(end.Add(time.Hour), least); known {
		t.Error("it has forgotten nothing")
	}
}
