package datanode

import (
	"context"
	"fmt"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// leadership is a replica leading its region in one epoch: it knows how far the others are, and which of them must have a
// write before it is acknowledged.
type leadership struct {
	region *region
	epoch  uint64
	// start is the last place before those of the epoch.
	start uint64
	ctx   context.Context //nolint:containedctx // the life of the leadership, for the goroutines that feed followers
	stop  context.CancelFunc

	mu sync.Mutex
	// changed is closed, and replaced, when something of what follows changes.
	changed chan struct{}
	config  *metasrvpb.RegionConfig
	// followers are the other replicas, by id.
	followers map[uint64]*follower
	// last is the last place that is stored here, committed the last one that all required replicas have. What is
	// acknowledged is at or before committed.
	last, committed uint64
	// recent are the last writes, still in memory.
	recent *store.Appended
	// asked is the change of the in-sync set whose outcome isn't known.
	asked *metasrvpb.InSyncChange
	// vouched: metasrv has granted this leadership a lease, or told it the configuration. Before that the process that was here
	// earlier may have asked for a replica to come in that this one knows nothing of.
	vouched bool
	// over is why the leadership ended.
	over error
}

func newLeadership(g *region, s store.State) *leadership {
	l := &leadership{
		region: g, epoch: s.LeaderEpoch, start: s.EpochStart, changed: make(chan struct{}), followers: map[uint64]*follower{},
		config: &metasrvpb.RegionConfig{}, last: s.StoredSeq, committed: s.Committed,
	}
	l.ctx, l.stop = context.WithCancel(g.service.ctx)
	return l
}

// end ends the leadership: writes under way fail with err, and the log is kept for nobody any more. The region's mu is held: the
// next leadership of the replica may hold the log.
func (l *leadership) end(err error) {
	l.stop()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over == nil {
		l.over = err
		l.region.replica.Hold(0)
	}
	l.broadcast()
}

// vouch notes that metasrv has said what the in-sync set is.
func (l *leadership) vouch() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.vouched = true
}

// leased reports whether a lease covers the leadership at present.
func (l *leadership) leased() bool {
	w, err := l.region.service.keeper.BeginWrite(l.region.replica.Region())
	if err != nil || w.Epoch() != l.epoch {
		return false
	}
	l.vouch()
	return true
}

// broadcast wakes all who wait for a change. l.mu is held.
func (l *leadership) broadcast() {
	close(l.changed)
	l.changed = make(chan struct{})
}

// configure takes what metasrv says of the region: which replicas there are, and which are in sync.
func (l *leadership) configure(c *metasrvpb.RegionConfig) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.over != nil || c.GetConfVersion() < l.config.GetConfVersion() {
		return
	}
	l.config = c
	// What was asked for on an earlier configuration was carried out, or never will be.
	known := l.asked != nil && c.GetConfVersion() > l.asked.GetConfVersion()
	if known {
		l.asked = nil
	}
	own := uint64(l.region.replica.ID())
	present := map[uint64]bool{}
	for _, r := range c.GetReplicas() {
		if r.GetReplicaId() == own {
			continue
		}
		present[r.GetReplicaId()] = true
		f := l.followers[r.GetReplicaId()]
		if f == nil {
			f = newFollower(l, r.GetReplicaId())
			l.followers[r.GetReplicaId()] = f
			f.start()
		}
		f.peer, f.inSync, f.growing = r.GetPeer(), r.GetInSync(), f.growing && !known
	}
	for id, f := range l.followers {
		if !present[id] {
			f.stop()
			delete(l.followers, id)
		}
	}
	l.hold()
	l.commit()
	l.broadcast()
}

// commit moves the place forward that all required replicas have. l.mu is held.
func (l *leadership) commit() {
	lowest := l.last
	for _, f := range l.followers {
		if f.required() {
			lowest = min(lowest, f.confirmed)
		}
	}
	l.committed = max(l.committed, lowest)
}

// keeps reports whether writes must be kept for other replicas.
func (l *leadership) keeps() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.followers) > 0
}

func (l *leadership) committedSeq() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.committed
}

// stored notes that writes were stored here, and returns the last place.
func (l *leadership) stored(out *store.Appended) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	last := out.Previous.Seq + uint64(len(out.Records))
	if last > l.last {
		l.last, l.recent = last, out
		l.commit()
		l.broadcast()
	}
	return last
}

// await waits until all required replicas have what is stored up to a place.
func (l *leadership) await(ctx context.Context, seq uint64) error {
	for {
		l.mu.Lock()
		over, done, changed := l.over, l.committed >= seq, l.changed
		l.mu.Unlock()
		switch {
		case over != nil:
			return over
		case done:
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return l.laggards(seq)
		}
	}
}

// laggards says which replicas a write waits for.
func (l *leadership) laggards(seq uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	var late []string
	for id, f := range l.followers {
		if !f.required() || f.confirmed >= seq {
			continue
		}
		why := "it doesn't answer"
		if f.err != nil {
			why = f.err.Error()
		}
		late = append(late, fmt.Sprintf("follower replica %d on node %d at %s: %s", id, f.peer.GetId(), f.peer.GetAddr(), why))
	}
	return detailed(status.Newf(codes.Unavailable, "region %s: %s", l.region.replica.Region(), strings.Join(late, "; ")), "FOLLOWER_FAILED")
}

// states describes the other replicas for metasrv.
func (l *leadership) states() []*metasrvpb.ReplicaState {
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []*metasrvpb.ReplicaState
	for _, r := range l.config.GetReplicas() {
		f := l.followers[r.GetReplicaId()]
		if f == nil {
			continue
		}
		state := &metasrvpb.ReplicaState{
			ReplicaId: f.id, LogEpoch: f.position.Epoch, LogSequence: f.position.Seq,
			CaughtUp: f.known && f.confirmed >= l.committed,
		}
		if f.err != nil {
			state.Error = f.err.Error()
		}
		list = append(list, state)
	}
	return list
}
