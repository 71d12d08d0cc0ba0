package raftfsm

import "time"

// unflushed is what the image lacks of the state: a member that is killed executes it again at its next start.
type unflushed struct {
	// bytes is the size of the entries.
	bytes int
	// executing is how long this member took to execute them.
	executing time.Duration
}

func (u unflushed) plus(v unflushed) unflushed {
	return unflushed{bytes: u.bytes + v.bytes, executing: u.executing + v.executing}
}

// flushLook is how often the flusher looks whether a cut is due, unless the interval is shorter.
const flushLook = time.Second

const (
	// burstBytes: a burst of writes that is smaller waits for the interval.
	burstBytes = 4 << 20
	// burstOver: it is over when less than a 50th of it came within a look. Of a load that goes on steadily more comes, up to
	// the end of the interval.
	burstOver = 50
)

// tooMuch says whether a cut is due, however long ago the last one was.
func (u unflushed) tooMuch(t Timing) bool {
	return u.bytes >= t.FlushBytes || t.FlushReplay > 0 && u.executing >= t.FlushReplay
}

// flushPace says when a cut is due that is not due by what it has. Each flush writes all keys that changed, so a long burst is best
// flushed seldom. But when it is over, the keys that it changed most often change no more, and a member that is killed in the quiet
// after it should have little to execute again.
type flushPace struct {
	interval time.Duration
	// flushed is when a cut was last due.
	flushed time.Time
	// looked is what the image lacked at the last look.
	looked int
}

// due says whether a cut is due, with lacking the bytes that the image lacks. It is asked at each look.
func (p *flushPace) due(lacking int, now time.Time) bool {
	came := lacking - p.looked
	p.looked = lacking
	over := lacking >= burstBytes && came >= 0 && came < lacking/burstOver
	if !over && now.Sub(p.flushed) < p.interval {
		return false
	}
	p.flushed = now
	return true
}

// missed says that the disk has no space for the cut that was due: it is due again at each look.
func (p *flushPace) missed() { p.flushed = time.Time{} }
