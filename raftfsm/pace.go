package raftfsm

import (
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// A member that was just added takes all the cores and the disk that it can get, to store and execute what it lacks. Where
// members share a machine or a disk, clients of the others wait for that. Nothing depends on it before it votes, so
// until then it is fed at a bounded rate, though always faster than there is more to feed.

const (
	// feedRate is how many bytes of entries a second a member that doesn't vote is sent: about a third of what a core
	// stores and executes of them.
	feedRate = 4 << 20
	// snapshotRate is the same for a state, which is only stored.
	snapshotRate = 16 << 20
	// feedPause bounds one wait. What a message was too large for is not waited for later: the next ones may be small.
	feedPause = time.Second
	// feedStep is how much of a state is sent at once.
	feedStep = 256 << 10
)

// pace slows the feeding of members that don't vote.
type pace struct {
	// written returns the bytes of all entries so far.
	written func() uint64
	// hurry reports whether a member must have the state that it is sent soon.
	hurry func(raft.ServerID) bool
	// wanted reports whether what this member sends as the metasrv leader of a term is still for another one.
	wanted func(id raft.ServerID, term uint64) bool
	closed <-chan struct{}

	mu sync.Mutex
	// slow reports whether a member may wait; none may while it is nil.
	slow  func(raft.ServerID) bool
	peers map[raft.ServerID]*paced
}

func (p *pace) setSlow(slow func(raft.ServerID) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.slow = slow
}

func (p *pace) isSlow(id raft.ServerID) bool {
	p.mu.Lock()
	slow := p.slow
	p.mu.Unlock()
	return slow != nil && slow(id)
}

// paced is how far one member was fed.
type paced struct {
	// due is when the next message is.
	due time.Time
	// at and written are of the last message.
	at      time.Time
	written uint64
}

// sent is called when a member has taken a message as long as messages get: it lacks more. It returns when the next one is
// due. began is when the message was sent.
func (p *pace) sent(id raft.ServerID, entries []*raft.Log, began time.Time) {
	if !p.isSlow(id) {
		return
	}
	bytes := 0
	for _, e := range entries {
		bytes += len(e.Data)
	}
	p.wait(p.next(id, bytes, began, time.Now()))
}

// next returns how long a member is to wait after a message of the given size.
func (p *pace) next(id raft.ServerID, bytes int, began, now time.Time) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	written := uint64(0)
	if p.written != nil {
		written = p.written()
	}
	s := p.peers[id]
	if s == nil || began.Sub(s.at) > 2*feedPause { // it was not fed for a while
		s = &paced{at: began, written: written}
		if p.peers == nil {
			p.peers = make(map[raft.ServerID]*paced)
		}
		p.peers[id] = s
	}
	rate := float64(feedRate)
	if elapsed := now.Sub(s.at).Seconds(); elapsed > 0 {
		rate = max(rate, 2*float64(written-s.written)/elapsed)
	}
	s.at, s.written = now, written
	if s.due.Before(began) {
		s.due = began // what it was slower than it might doesn't make it faster later
	}
	s.due = s.due.Add(time.Duration(float64(bytes) / rate * float64(time.Second)))
	if latest := now.Add(feedPause); s.due.After(latest) {
		s.due = latest
	}
	return s.due.Sub(now)
}

func (p *pace) wait(d time.Duration) {
	if d <= 0 {
		return
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-p.closed:
	}
}

// snapshot returns a reader of a state that is sent to a member in a term.
func (p *pace) snapshot(id raft.ServerID, term uint64, r io.Reader) io.Reader {
	if !p.isSlow(id) {
		return r
	}
	return &pacedReader{pace: p, id: id, term: term, r: r, due: time.Now()}
}

// errUnwanted ends the sending of a state. A member that takes one hears nobody else, and raft does not stop before all
// was sent.
var errUnwanted = errors.New("this member is not the metasrv leader any more that began to send a state")

// pacedReader reads at snapshotRate at most, unless the member must have the state soon.
type pacedReader struct {
	pace *pace
	id   raft.ServerID
	term uint64
	r    io.Reader
	due  time.Time
}

// Read reads what is there, once it is due.
func (r *pacedReader) Read(b []byte) (int, error) {
	if !r.pace.wanted(r.id, r.term) {
		return 0, errUnwanted
	}
	if r.pace.hurry(r.id) {
		r.due = time.Now()
	}
	r.pace.wait(time.Until(r.due))
	n, err := r.r.Read(b[:min(len(b), feedStep)])
	r.due = r.due.Add(time.Duration(n) * time.Second / snapshotRate)
	return n, err
}

// mayWait reports whether a member belongs to the cluster and doesn't vote.
func (n *Node) mayWait(id raft.ServerID) bool {
	return slices.ContainsFunc(n.configuration().Servers, func(s raft.Server) bool { return s.ID == id && !isVoter(s) })
}
