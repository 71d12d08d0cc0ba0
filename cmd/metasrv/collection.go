package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// Go collects garbage when the heap has doubled. A member whose state is small is through its heap again and again
// then, several times a second under load, which is a tenth of its work. So a small heap may grow by collectAfter
// bytes before it is collected, though not to more than (100+maxGrowth) percent of itself; one that is larger doubles
// as before.
const (
	collectAfter = 256 << 20
	minGrowth    = 100
	maxGrowth    = 400
	// growthPeriod is how often the size of the heap is looked at, growthStep the change in percent that counts.
	growthPeriod = time.Second
	growthStep   = 10
)

// growthOf returns by how many percent a heap may grow of which live bytes are in use.
func growthOf(live uint64) int {
	if live == 0 {
		return minGrowth
	}
	return int(min(max(collectAfter*100/live, minGrowth), maxGrowth)) //nolint:gosec // at most maxGrowth
}

// paceCollection fits the garbage collector to the size of the heap until ctx ends, unless the operator has set GOGC.
func paceCollection(ctx context.Context) {
	if os.Getenv("GOGC") != "" {
		return
	}
	defer debug.SetGCPercent(debug.SetGCPercent(minGrowth))
	ticker := time.NewTicker(growthPeriod)
	defer ticker.Stop()
	for growth := minGrowth; ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		if next := growthOf(liveHeap()); next < growth-growthStep || next > growth+growthStep {
			growth = next
			debug.SetGCPercent(growth)
		}
	}
}

// liveHeap returns the bytes that the last collection found in use.
func liveHeap() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindUint64 {
		return 0
	}
	return sample[0].Value.Uint64()
}
