package store

import (
	"testing"
	"time"
)

// TestWriteAges: what may be forgotten is old, however many writes there are, up to a bound; and never the last ones.
func TestWriteAges(t *testing.T) {
	start := time.Now()
	at := func(d time.Duration) time.Time { return start.Add(d) }
	var a writeAges
	steps := []struct {
		after  time.Duration
		stored uint64
		cut    uint64
		old    uint64
	}{
		{after: 0, stored: 100_000},
		{after: rememberedFor - 1, stored: 150_000},
		{after: rememberedFor, stored: 150_000, old: 100_000},
		{after: rememberedFor + time.Second, stored: 400_000, old: 100_000},
		{after: 2*rememberedFor - 2, stored: 700_000, old: 200_000},
		{after: 2*rememberedFor - 1, stored: 700_000, old: 200_000},
		{after: 2 * rememberedFor, stored: 700_000, old: 200_000},
		{after: 2*rememberedFor + time.Minute, stored: 705_000, old: 205_000},
		{after: 4 * rememberedFor, stored: 705_001, old: 704_001},
		// What takes the places of writes that were taken back is young.
		{after: 4 * rememberedFor, stored: 705_001, cut: 600_000, old: 600_000},
		{after: 4*rememberedFor + time.Minute, stored: 720_000, old: 600_000},
	}
	for i, s := range steps {
		if s.cut > 0 {
			a.cut(s.cut)
		}
		a.mark(at(s.after), s.stored)
		if got := a.old(at(s.after), s.stored); got != s.old {
			t.Errorf("step %d: %d, want %d", i, got, s.old)
		}
	}
	for i := range uint64(100_000) {
		now := at(10*rememberedFor + time.Duration(i)*time.Second)
		a.mark(now, 720_000+i)
		a.old(now, 720_000+i)
	}
	if n := len(a.marks); n > int(rememberedFor/markEvery)+2 {
		t.Errorf("%d marks are kept", n)
	}
}
