package main

import (
	"context"
	"runtime"
	"runtime/debug"
	"testing"
	"testing/synctest"
	"time"
)

func TestSmallHeapsAreCollectedLessOften(t *testing.T) {
	for _, c := range []struct {
		live uint64
		want int
	}{
		{0, 100},
		{1 << 20, 400},
		{64 << 20, 400},
		{128 << 20, 200},
		{256 << 20, 100},
		{4 << 30, 100},
	} {
		if got := growthOf(c.live); got != c.want {
			t.Errorf("%d MB may grow by %d percent, want %d", c.live>>20, got, c.want)
		}
	}
}

func TestCollectionIsPaced(t *testing.T) {
	t.Setenv("GOGC", "")
	runtime.GC() // so that the size of the heap is known
	was := setGrowth()
	synctest.Test(t, func(t *testing.T) {
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); paceCollection(ctx) }()
		time.Sleep(2 * growthPeriod)
		if got := setGrowth(); got <= minGrowth {
			t.Errorf("the heap may grow by %d percent", got)
		}
		stop()
		<-done
	})
	if got := setGrowth(); got != was {
		t.Errorf("afterwards the heap may grow by %d percent, before by %d", got, was)
	}
}

func TestOperatorsGOGCIsKept(t *testing.T) {
	t.Setenv("GOGC", "50")
	was := setGrowth()
	synctest.Test(t, func(t *testing.T) {
		paceCollection(t.Context()) // returns at once
	})
	if got := setGrowth(); got != was {
		t.Errorf("the heap may grow by %d percent, before by %d", got, was)
	}
}

// setGrowth returns the growth that is set.
func setGrowth() int {
	percent := debug.SetGCPercent(minGrowth)
	debug.SetGCPercent(percent)
	return percent
}
