package heartbeat

import (
	"sync"
	"time"
)

const (
	// AttentionPeriod is how often Attend is to be called.
	AttentionPeriod = 250 * time.Millisecond
	// inattention is the time between two calls from which on the process counts as paused.
	inattention = time.Second
)

// attention tells whether the tracker could hear anything: a process that was paused, or got no processor, finds all nodes silent
// when it goes on, and their beats unread.
type attention struct {
	mu sync.Mutex
	// last is when Attend was last called, zero where it never was: then nothing is a pause.
	last time.Time
	// since is when the tracker began to listen, or went on after a pause.
	since time.Time
}

// Attend says that the process runs. Whoever calls it once calls it each AttentionPeriod.
func (t *Tracker) Attend() {
	a := &t.attention
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wake()
	a.last = time.Now()
}

// wake notes the end of a pause. a.mu is held.
func (a *attention) wake() {
	if now := time.Now(); !a.last.IsZero() && now.Sub(a.last) > inattention {
		a.last, a.since = now, now
	}
}

// listening returns since when the tracker has listened without a pause. Silence from before is nobody's fault but its own.
// Whoever asks first after a pause notices it.
func (t *Tracker) listening() time.Time {
	a := &t.attention
	a.mu.Lock()
	defer a.mu.Unlock()
	a.wake()
	return a.since
}

// silence returns how long a node has been silent that was last heard at some time, while the tracker listened.
func (t *Tracker) silence(heard, now time.Time) time.Duration {
	return max(0, min(now.Sub(heard), now.Sub(t.listening())))
}
