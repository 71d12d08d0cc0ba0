package e2e

import (
	"context"
	"errors"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// guarded is what a lock guards: it refuses whoever comes with a lower token than it has seen.
type guarded struct {
	mu     sync.Mutex
	token  uint64
	inside int
	writes int
}

// enter is called by who has the lock, and leave before it is given back.
func (g *guarded) enter(t *testing.T, token uint64) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if token <= g.token {
		t.Errorf("token %d after %d", token, g.token)
	}
	if g.inside++; g.inside != 1 {
		t.Errorf("%d have the lock at the same time", g.inside)
	}
	g.token = token
	g.writes++
}

func (g *guarded) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
}

// One holder at a time has a lock, under rising tokens, while metasrv leaders are killed.
func TestLockIsHeldByOneAcrossKilledLeaders(t *testing.T) {
	c := newCluster(t)
	const workers, turns = 4, 10
	var g guarded
	var work sync.WaitGroup
	for i := range workers {
		cl := c.client()
		work.Go(func() {
			for range turns {
				// The time to live outlasts elections: nobody loses a lock in this test.
				h, err := cl.OpenHolder(within(t), client.HolderConfig{TTL: 30 * time.Second, Name: "worker " + strconv.Itoa(i)})
				if err != nil {
					t.Error(err)
					return
				}
				l, err := h.Lock(within(t), "the lock")
				if err != nil {
					t.Error(err)
					return
				}
				g.enter(t, l.FencingToken())
				time.Sleep(10 * time.Millisecond)
				g.leave()
				if err := errors.Join(l.Valid(), h.Close(within(t))); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 2 {
		before := g.count()
		eventually(t, "the lock goes round", func() bool { return g.count() >= min(before+workers, workers*turns) })
		m := c.leader()
		c.kill(m)
		c.start(m)
	}
	work.Wait()
	if g.writes != workers*turns {
		t.Errorf("the lock was had %d times, not %d", g.writes, workers*turns)
	}
}

func (g *guarded) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.writes
}

// A holder that is gone is replaced by the next candidate, who waits no longer than its time to live; observers on every
// member see it, and a new metasrv leader in between makes nobody lose what is renewed.
func TestElectedOneIsReplaced(t *testing.T) {
	c := newCluster(t)
	gone, stays := c.client(), c.client()
	first := campaign(t, gone, "first")
	ctx, stop := context.WithCancel(t.Context())
	var observers sync.WaitGroup
	var seen []chan string
	for _, m := range c.members {
		cl, err := client.New(client.Config{Endpoints: []string{m.grpc}})
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		values := make(chan string, 100)
		seen = append(seen, values)
		observers.Go(func() {
			_ = cl.ObserveElection(ctx, "writer", func(e *metasrvpb.ElectedCandidate) error {
				values <- string(e.GetValue())
				return nil
			})
		})
	}
	// A member that lags a moment behind the election begins with nobody.
	expect(t, seen, "first", "")
	second := make(chan *client.Office, 1)
	go func() { second <- campaign(t, stays, "second") }()
	if err := gone.Close(); err != nil { // without a word of its holder
		t.Fatal(err)
	}
	o := <-second
	if o.FencingToken() <= first.FencingToken() {
		t.Errorf("token %d after %d", o.FencingToken(), first.FencingToken())
	}
	expect(t, seen, "second", "")
	c.kill(c.leader())
	if err := o.Proclaim(within(t), []byte("third")); err != nil {
		t.Error(err)
	}
	if err := o.Valid(); err != nil {
		t.Error(err)
	}
	stop()
	observers.Wait()
}

// expect waits until every observer was told a value, and nothing before it but what may be.
func expect(t *testing.T, seen []chan string, value string, mayBe ...string) {
	t.Helper()
	for i, values := range seen {
		for was := ""; was != value; {
			select {
			case was = <-values:
			case <-time.After(waitLimit):
				t.Fatalf("observer %d is not told of %q", i, value)
			}
			if was != value && !slices.Contains(mayBe, was) {
				t.Errorf("observer %d is told of %q before %q", i, was, value)
			}
		}
	}
}

func campaign(t *testing.T, cl *client.Client, value string) *client.Office {
	h, err := cl.OpenHolder(within(t), client.HolderConfig{TTL: 2 * time.Second, Name: value})
	if err != nil {
		t.Error(err)
		return nil
	}
	o, err := h.Campaign(within(t), "writer", []byte(value))
	if err != nil {
		t.Error(err)
	}
	return o
}

// A holder that metasrv can't hear believes in its time no longer than metasrv does.
func TestHolderThatIsNotHeardKnowsItsEnd(t *testing.T) {
	c := newCluster(t)
	cl, other := c.client(), c.client()
	h, err := cl.OpenHolder(within(t), client.HolderConfig{TTL: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	l, err := h.Lock(within(t), "x")
	if err != nil {
		t.Fatal(err)
	}
	// It still renews itself, but a person takes it away: as if it had stood still for longer than its time.
	if _, err := other.Locks().Lock(within(t), &metasrvpb.LockRequest{Name: []byte("x"), ExpireSecs: 9, NoWait: true}); !errors.Is(err, metasrv.ErrNotHeld) {
		t.Errorf("another one takes it: %v", err)
	}
	for _, line := range []struct{ command, want string }{
		{"list", `"x"`}, {"break y", "nobody has"}, {"break x", "has lost the lock"},
	} {
		args := append([]string{"--endpoints", c.members[0].grpc, "lock"}, strings.Fields(line.command)...)
		if out, _ := exec.Command(metactl, args...).CombinedOutput(); !strings.Contains(string(out), line.want) {
			t.Errorf("metactl lock %s: %s", line.command, out)
		}
	}
	select {
	case <-l.Lost():
	case <-time.After(waitLimit):
		t.Fatal("it doesn't notice")
	}
	if err := l.Valid(); !errors.Is(err, metasrv.ErrHolderNotFound) {
		t.Errorf("valid: %v", err)
	}
	if _, err := h.Lock(within(t), "y"); !errors.Is(err, metasrv.ErrHolderNotFound) {
		t.Errorf("it takes another lock: %v", err)
	}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	t.Cleanup(cancel)
	return ctx
}
