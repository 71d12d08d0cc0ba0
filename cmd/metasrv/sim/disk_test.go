package sim

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// disk is that of one member, over all its lives.
type disk struct {
	// slow: each sync takes from minSync to maxSync.
	slow   atomic.Bool
	mu     sync.Mutex
	random *rand.Rand
}

const (
	minSync = 100 * time.Millisecond
	maxSync = 2 * time.Second
)

func newDisk(seed, member uint64) *disk {
	return &disk{random: rand.New(rand.NewPCG(seed, 100+member))} //nolint:gosec // a seed that can be repeated
}

// write writes after some time, and returns after some more: a member that crashes in between finds what it had not
// acknowledged.
func (d *disk) write(do func() error) error {
	if !d.slow.Load() {
		return do()
	}
	before, after := d.times()
	time.Sleep(before)
	err := do()
	time.Sleep(after)
	return err
}

func (d *disk) times() (before, after time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	total := minSync + time.Duration(d.random.Int64N(int64(maxSync-minSync)))
	before = time.Duration(d.random.Int64N(int64(total)))
	return before, total - before
}
