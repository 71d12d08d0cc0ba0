package raftfsm

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
)

func never(raft.ServerID) bool { return false }

func always(raft.ServerID, uint64) bool { return true }

// feedFor sends messages of 1 MB to a member for ten seconds, each of which it takes 50 ms for, and returns how many bytes
// it got; a second sees written bytes of new entries.
func feedFor(p *pace, id raft.ServerID, written int) int {
	began, sent := time.Now(), 0
	p.written = func() uint64 { return uint64(time.Since(began).Seconds() * float64(written)) }
	entries := []*raft.Log{{Data: make([]byte, 1<<19)}, {Data: make([]byte, 1<<19)}}
	for time.Since(began) < 10*time.Second {
		at := time.Now()
		time.Sleep(50 * time.Millisecond)
		p.sent(id, entries, at)
		sent += 1 << 20
	}
	return sent
}

func TestMembersThatDontVoteAreFedSlowly(t *testing.T) {
	for name, tt := range map[string]struct {
		id      raft.ServerID
		written int
		want    int // bytes a second
	}{
		"a voter":                   {"voter", 0, 20 << 20},
		"a member that was added":   {"added", 0, feedRate},
		"while little is written":   {"added", 1 << 20, feedRate},
		"while more is written":     {"added", 6 << 20, 12 << 20},
		"while too much is written": {"added", 50 << 20, 20 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &pace{slow: func(id raft.ServerID) bool { return id == "added" }, closed: make(chan struct{})}
				if got := feedFor(p, tt.id, tt.written) / 10; got < tt.want*9/10 || got > tt.want*11/10 {
					t.Errorf("%d bytes a second, want about %d", got, tt.want)
				}
			})
		})
	}
}

func TestStateIsSentSlowlyToMembersThatDontVote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{slow: func(id raft.ServerID) bool { return id == "added" }, hurry: never, wanted: always, closed: make(chan struct{})}
		state := make([]byte, 2*snapshotRate)
		for id, want := range map[raft.ServerID]time.Duration{"voter": 0, "added": 2 * time.Second} {
			began := time.Now()
			got, err := io.ReadAll(p.snapshot(id, 1, bytes.NewReader(state)))
			if took := time.Since(began); err != nil || len(got) != len(state) || took < want*9/10 || took > want {
				t.Errorf("%s: %d bytes, %v after %v, want %v", id, len(got), err, took, want)
			}
		}
	})
}

// A member that stops doesn't wait until a message is due.
func TestPaceEndsWithItsTransport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		closed := make(chan struct{})
		p := &pace{slow: func(raft.ServerID) bool { return true }, closed: closed}
		began := time.Now()
		time.AfterFunc(10*time.Millisecond, func() { close(closed) })
		p.sent("added", []*raft.Log{{Data: make([]byte, feedRate)}}, began)
		if took := time.Since(began); took != 10*time.Millisecond {
			t.Errorf("it waited for %v", took)
		}
	})
}

// A message may be larger than what is sent while a member waits at most. That must not be made up for by later ones: they
// may be small, and the member would fall behind what is written.
func TestLargeMessagesDontHoldBackLaterOnes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &pace{slow: func(raft.ServerID) bool { return true }, closed: make(chan struct{})}
		for range 20 {
			p.sent("added", []*raft.Log{{Data: make([]byte, 8*feedRate)}}, time.Now())
		}
		began := time.Now()
		for range 32 {
			p.sent("added", []*raft.Log{{Data: make([]byte, feedRate/32)}}, time.Now())
		}
		if took := time.Since(began); took > time.Second+feedPause {
			t.Errorf("what takes a second was sent in %v", took)
		}
	})
}

// The log is kept for a member that takes a state, but only so much of it: where more and more is written, the state is
// sent faster, or the member would need another one, again and again.
func TestStateIsSentBeforeItsPinGivesWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 16 << 20
		began := time.Now()
		written := func() uint64 { return uint64(time.Since(began).Seconds() * most / 2) }
		held := newPins(most, written, nil)
		p := &pace{slow: func(raft.ServerID) bool { return true }, hurry: held.presses, wanted: always, closed: make(chan struct{})}
		held.feed("added", 7)
		if _, err := io.Copy(io.Discard, p.snapshot("added", 1, bytes.NewReader(make([]byte, 4*snapshotRate)))); err != nil {
			t.Fatal(err)
		}
		if last := held.before(); last != 6 {
			t.Errorf("after %v the log may be dropped up to %d, the member needs 7", time.Since(began), last)
		}
	})
}

// A member that has handed over, or stops, ends the state that it sends: the one that takes it hears nobody else.
func TestStateOfAnEndedTermIsNotSentToItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		leads := func(_ raft.ServerID, term uint64) bool { return term == 3 && time.Since(began) < time.Second }
		p := &pace{slow: func(raft.ServerID) bool { return true }, hurry: never, wanted: leads, closed: make(chan struct{})}
		_, err := io.Copy(io.Discard, p.snapshot("added", 3, bytes.NewReader(make([]byte, 4*snapshotRate))))
		if took := time.Since(began); !errors.Is(err, errUnwanted) || took > time.Second+feedPause/10 {
			t.Errorf("ended with %v after %v", err, took)
		}
	})
}
