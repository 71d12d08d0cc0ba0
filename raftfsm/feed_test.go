package raftfsm

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/kv"
)

// feedFollower keeps a copy of the keys of a member by its feed, as a watch does.
type feedFollower struct {
	mu       sync.Mutex
	pairs    map[string]string
	next     uint64
	restarts int
}

func (f *feedFollower) begin(n *Node) error {
	v := n.View()
	f.mu.Lock()
	defer f.mu.Unlock()
	f.pairs, f.next = map[string]string{}, v.Revision()+1
	for pair, err := range kv.Scan(v, kv.Range{End: []byte{0}}) {
		if err != nil {
			return err
		}
		f.pairs[string(pair.Key)] = string(pair.Value)
	}
	return nil
}

func (f *feedFollower) run(ctx context.Context, t *testing.T, n *Node) {
	for ctx.Err() == nil {
		revisions, err := n.Read(ctx, f.next)
		if e, ok := errors.AsType[*metasrv.Error](err); ok && errors.Is(err, metasrv.ErrCompacted) {
			if e.Revision <= f.next {
				t.Errorf("revision %d is refused, but %d is the oldest", f.next, e.Revision)
			}
			f.restarts++
			err = f.begin(n)
		}
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
		f.mu.Lock()
		for i := range revisions {
			if revisions[i].Number != f.next {
				t.Errorf("revision %d follows %d", revisions[i].Number, f.next-1)
			}
			f.next = revisions[i].Number + 1
			for j := range revisions[i].Changes {
				_, after, ok, err := kv.Changed(&revisions[i].Changes[j], revisions[i].Number)
				if !ok || err != nil {
					t.Errorf("change of %s: %v", revisions[i].Changes[j].Key, err)
					continue
				}
				f.pairs[string(after.Key)] = string(after.Value)
			}
		}
		f.mu.Unlock()
	}
}

// Who follows the feed of a member that is fed with a snapshot is told that changes are missing, and has all of them
// after it has begun again.
func TestFeedAcrossASnapshotInstall(t *testing.T) {
	c := newCluster(t, 3, func(c *cluster) {
		c.log = LogRetention{Trailing: 10, Threshold: 20, Interval: 20 * time.Millisecond}
	})
	at, leader := c.leader()
	behind := (at + 1) % 3
	n := c.nodes[behind]
	f := &feedFollower{}
	if err := f.begin(n); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { f.run(ctx, t, n) })
	defer wg.Wait()
	defer stop()
	write := func(value string) {
		t.Helper()
		for i := range 150 {
			if _, err := put(within(t, time.Minute), leader, key(i), value); err != nil {
				t.Fatal(err)
			}
		}
	}
	write("before")
	c.net.Cut(c.servers[behind].RaftAddr)
	write("meanwhile")
	eventually(t, "the metasrv leader drops what the image has", func() bool { return leader.Status().FlushedIndex > 250 })
	write("again")
	c.net.Heal(c.servers[behind].RaftAddr)
	_, leader = c.leader()
	if _, err := put(within(t, time.Minute), leader, "after", "1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the follower has everything", func() bool {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.pairs["after"] == "1"
	})
	stop()
	wg.Wait()
	want := map[string]string{}
	for k, v := range pairsOf(n.View()) {
		if name, ok := strings.CutPrefix(k, "kv/"); ok {
			want[name] = v
		}
	}
	if !maps.Equal(f.pairs, want) {
		t.Errorf("the follower has %d pairs, the member %d, or other values", len(f.pairs), len(want))
	}
	if f.restarts == 0 {
		t.Error("no snapshot was installed")
	}
}
