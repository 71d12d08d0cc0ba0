package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// history is what a watcher was told of keys whose values count up.
type history struct {
	mu       sync.Mutex
	revision uint64
	values   map[string]string
	events   int
	began    int
	wrong    []string
}

func (h *history) tell(u client.Update[*metasrvpb.WatchEvent]) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if u.Begins {
		h.began++
		h.values = map[string]string{}
	}
	for _, e := range u.Events {
		key, value, mod := string(e.GetKv().GetKey()), string(e.GetKv().GetValue()), e.GetKv().GetModRevision()
		if e.GetType() != metasrvpb.WatchEvent_TYPE_PRESENT {
			h.events++
			if mod <= h.revision {
				h.wrong = append(h.wrong, fmt.Sprintf("%s=%s of revision %d after revision %d was complete", key, value, mod, h.revision))
			}
			if was := h.values[key]; e.GetPrevKv() != nil && string(e.GetPrevKv().GetValue()) != was {
				h.wrong = append(h.wrong, fmt.Sprintf("%s=%s followed %q, the watcher knew %q", key, value, e.GetPrevKv().GetValue(), was))
			}
		}
		h.values[key] = value
	}
	if u.Complete {
		h.revision = u.Revision
	}
	return nil
}

// Watchers that begin on each member see every change once and in order while members are killed, mostly those that
// lead.
func TestStoreWatchAcrossKilledMembers(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	all := &metasrvpb.WatchRequest{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true}

	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	var histories []*history
	for i := range 4 {
		// Each begins at another member; the last one with any.
		endpoints := []string{c.members[(i+1)%3].grpc, c.members[i%3].grpc, c.members[(i+2)%3].grpc}
		watching, err := client.New(client.Config{Endpoints: endpoints, CallTimeout: waitLimit})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = watching.Close() }()
		h := &history{}
		histories = append(histories, h)
		wg.Go(func() {
			if err := watching.WatchStore(ctx, all, h.tell); !errors.Is(err, context.Canceled) {
				t.Errorf("watch ended with %v", err)
			}
		})
	}
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key, value := fmt.Sprintf("k%d_%d", w, i%5), fmt.Sprint(i)
				_, err := cl.Store().Put(ctx, &metasrvpb.PutRequest{Key: []byte(key), Value: []byte(value)}, client.Once())
				if err != nil && ctx.Err() == nil {
					t.Errorf("put %s: %v", key, err)
				}
			}
		})
	}
	for range 4 {
		time.Sleep(time.Duration(200+random.IntN(600)) * time.Millisecond) // load between two kills
		m := c.leader()
		if random.IntN(3) == 0 {
			m = c.follower()
		}
		c.kill(m)
		c.leader()
		c.start(m)
	}
	last, err := cl.Store().Put(t.Context(), &metasrvpb.PutRequest{Key: []byte("kz"), Value: []byte("end")})
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range histories {
		eventually(t, fmt.Sprintf("watcher %d has seen revision %d", i, last.Header.Revision), func() bool {
			h.mu.Lock()
			defer h.mu.Unlock()
			return h.revision >= last.Header.Revision
		})
	}
	stop()
	wg.Wait()
	answer, err := cl.Store().Range(t.Context(), &metasrvpb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
	if err != nil {
		t.Fatal(err)
	}
	for i, h := range histories {
		t.Logf("watcher %d: %d events, began %d times, revision %d", i, h.events, h.began, h.revision)
		if len(h.wrong) > 0 {
			t.Errorf("watcher %d: %q", i, h.wrong[:min(len(h.wrong), 5)])
		}
		if h.events == 0 {
			t.Errorf("watcher %d saw no change", i)
		}
		for _, pair := range answer.Kvs {
			// The writers may have gone on after a watcher was stopped.
			if got := h.values[string(pair.Key)]; pair.ModRevision <= h.revision && got != string(pair.Value) {
				t.Errorf("watcher %d has %s=%s at revision %d, it is %s", i, pair.Key, got, h.revision, pair.Value)
			}
		}
	}
}
