package server

import (
	"runtime/debug"
	"runtime/metrics"
)

const (
	// quietBytes is what a member may allocate in releasePeriod and still counts as quiet.
	quietBytes = 6 << 20
	// spareBytes is what a member may hold beyond a quarter more than what it uses.
	spareBytes = 32 << 20
)

// heap gives memory back to the system once a burst of writes is over. Under load Go holds as much again as the state, to
// collect garbage rarely, and a quiet process would keep that for hours.
type heap struct {
	// allocated is the sum at the last look, released at the last release.
	allocated, released uint64
}

// heapUse says what the heap holds, in bytes: allocated since the start, live at the last collection, and held.
type heapUse struct{ allocated, live, held uint64 }

// due reports whether memory is to be given back now: nothing goes on, and there is much. It is called once a period.
func (h *heap) due(u heapUse) bool {
	quiet := u.allocated-h.allocated < quietBytes
	h.allocated = u.allocated
	// What a release has left can't be given back, so the next one is due when something was allocated since.
	if !quiet || u.allocated-h.released < spareBytes || u.held < u.live+u.live/4+spareBytes {
		return false
	}
	h.released = u.allocated
	return true
}

// release gives back what is due. That collects garbage, which takes a tenth of a second of a core with a million regions.
func (h *heap) release() {
	if h.due(readHeap()) {
		debug.FreeOSMemory()
	}
}

func readHeap() heapUse {
	samples := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"}, {Name: "/gc/heap/live:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"}, {Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(samples)
	value := func(i int) uint64 { return samples[i].Value.Uint64() }
	return heapUse{allocated: value(0), live: value(1), held: value(2) + value(3) + value(4)}
}
