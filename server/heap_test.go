package server

import (
	"runtime"
	"testing"
)

func TestMemoryIsGivenBackWhenABurstIsOver(t *testing.T) {
	const mb = 1 << 20
	h := &heap{}
	for i, step := range []struct {
		use  heapUse
		due  bool
		what string
	}{
		{heapUse{allocated: 10 * mb, live: 5 * mb, held: 10 * mb}, false, "a small member"},
		{heapUse{allocated: 5000 * mb, live: 200 * mb, held: 400 * mb}, false, "a burst"},
		{heapUse{allocated: 5017 * mb, live: 200 * mb, held: 400 * mb}, false, "the burst goes on"},
		{heapUse{allocated: 5020 * mb, live: 200 * mb, held: 400 * mb}, true, "it is over"},
		{heapUse{allocated: 5021 * mb, live: 200 * mb, held: 400 * mb}, false, "nothing happened since, it would be for nothing"},
		{heapUse{allocated: 5060 * mb, live: 200 * mb, held: 400 * mb}, false, "another burst"},
		{heapUse{allocated: 5061 * mb, live: 200 * mb, held: 280 * mb}, false, "which left little"},
		{heapUse{allocated: 5062 * mb, live: 200 * mb, held: 290 * mb}, true, "or much"},
	} {
		if got := h.due(step.use); got != step.due {
			t.Errorf("step %d, %s: due is %v", i, step.what, got)
		}
	}
}

// The names of the runtime's metrics are right.
func TestHeapIsRead(t *testing.T) {
	block := make([]byte, 8<<20)
	runtime.GC()
	if u := readHeap(); u.allocated < 8<<20 || u.live < 8<<20 || u.held < u.live {
		t.Errorf("with 8 MB in use, the heap has %+v", u)
	}
	runtime.KeepAlive(block)
}
