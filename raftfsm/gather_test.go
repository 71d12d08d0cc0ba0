package raftfsm

import (
	"context"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// entryTime is how long an entry takes in these tests, turnTime how long a client takes for its next command.
const (
	entryTime = 10 * time.Millisecond
	turnTime  = time.Millisecond
)

// gatherLoad runs senders for a second of a proposer whose entries take entryTime each. It returns the size of each
// entry, and the time between an entry and the next while somebody waited.
func gatherLoad(t *testing.T, senders int, send func(ctx context.Context, propose func())) (sizes []int, delay time.Duration) {
	t.Helper()
	p := newProposer()
	running, stop := context.WithCancel(t.Context())
	var ended time.Time
	var proposer, clients sync.WaitGroup
	proposer.Go(func() {
		p.run(running, func(b *batch) {
			if !ended.IsZero() {
				delay += time.Since(ended)
			}
			sizes = append(sizes, b.commands)
			time.Sleep(entryTime)
			ended = time.Now()
		})
	})
	loaded, end := context.WithTimeout(t.Context(), time.Second)
	defer end()
	put := &state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_PUT, Payload: &storagepb.Put{Key: []byte("k")}}
	for range senders {
		clients.Go(func() {
			send(loaded, func() {
				b, _, err := p.add(put)
				if err == nil {
					<-b.done
				}
			})
		})
	}
	clients.Wait()
	stop()
	proposer.Wait()
	return sizes, delay
}

// turns sends the next command turnTime after the last was answered; clients begin at different times.
func turns() func(ctx context.Context, propose func()) {
	var mu sync.Mutex
	n := time.Duration(0)
	return func(ctx context.Context, propose func()) {
		mu.Lock()
		n++
		later := n * turnTime / 4
		mu.Unlock()
		for time.Sleep(later); ctx.Err() == nil; time.Sleep(turnTime) {
			propose()
		}
	}
}

func total(sizes []int) (sum int) {
	for _, n := range sizes {
		sum += n
	}
	return sum
}

func TestClientsOfAnEntryAreGathered(t *testing.T) {
	for _, clients := range []int{32, 64, 256} {
		synctest.Test(t, func(t *testing.T) {
			sizes, _ := gatherLoad(t, clients, turns())
			if len(sizes) < 50 {
				t.Fatalf("%d entries in a second", len(sizes))
			}
			late := sizes[len(sizes)/2 : len(sizes)-2]
			if mean := total(late) / len(late); mean < clients*15/16 {
				t.Errorf("%d commands an entry of %d clients: %v", mean, clients, sizes)
			}
		})
	}
}

func TestLoneClientIsNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes, delay := gatherLoad(t, 1, turns())
		if len(sizes) < 85 || delay > time.Duration(len(sizes)+1)*turnTime {
			t.Errorf("%d entries, %v between them: %v", len(sizes), delay, sizes)
		}
	})
}

// byThemselves sends commands at fixed times, whether the last was answered or not.
func byThemselves(period time.Duration) func(ctx context.Context, propose func()) {
	return func(ctx context.Context, propose func()) {
		var under sync.WaitGroup
		for ; ctx.Err() == nil; time.Sleep(period) {
			under.Go(propose)
		}
		under.Wait()
	}
}

func TestFewCommandsAreNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes, delay := gatherLoad(t, 1, byThemselves(2*turnTime))
		if len(sizes) < 95 || delay > 0 {
			t.Errorf("%d entries, %v between them: %v", len(sizes), delay, sizes)
		}
	})
}

// Commands that come by themselves can't be told from those of clients that come back.
func TestEntryWaitsAtMostAsLongAsTheLastTook(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		sizes, delay := gatherLoad(t, 1, byThemselves(turnTime/4))
		if len(sizes) < 45 || delay > time.Duration(len(sizes))*entryTime {
			t.Errorf("%d entries, %v between them: %v", len(sizes), delay, sizes)
		}
	})
}

func TestClientsThatDoNotComeBackAreNotAwaited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProposer()
		began := time.Now()
		for range 200 {
			p.gather(t.Context(), 100, entryTime)
		}
		if waited := time.Since(began); waited > 10*entryTime {
			t.Errorf("waited %v", waited)
		}
	})
}

func TestFullEntryIsNotDelayed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newProposer()
		large := &state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_PUT, Payload: &storagepb.Put{Value: make([]byte, maxBatchBytes/2)}}
		if _, _, err := p.add(large); err != nil {
			t.Fatal(err)
		}
		var gathered sync.WaitGroup
		began := time.Now()
		gathered.Go(func() { p.gather(t.Context(), 100, entryTime) })
		synctest.Wait()
		if _, _, err := p.add(large); err != nil {
			t.Fatal(err)
		}
		gathered.Wait()
		if waited := time.Since(began); waited > 0 {
			t.Errorf("waited %v", waited)
		}
	})
}
