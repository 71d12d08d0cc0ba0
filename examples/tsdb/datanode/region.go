package datanode

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
	"github.com/metasrv/metasrv/examples/tsdb/store"
)

const (
	// groupBytes bounds the rows that are stored and sent together.
	groupBytes = 8 << 20
	// groupTimeout is the time that storing and replicating a group may take.
	groupTimeout = 10 * time.Second
)

// region is what the service keeps of a replica in memory. On a region leader it puts writes into one order:
// those that arrive while a group is under way make up the next one.
type region struct {
	service  *Service
	replica  *store.Replica
	counters counters

	mu      sync.Mutex
	waiting []*pendingWrite
	running bool

	// followers are used by the one goroutine that runs.
	followers []*follower
}

// pendingWrite is a write whose caller waits for its outcome.
type pendingWrite struct {
	write store.Write
	size  int
	done  chan outcome
}

type outcome struct {
	repeated bool
	err      error
}

func newRegion(s *Service, r *store.Replica) *region {
	g := &region{service: s, replica: r}
	for _, p := range r.Definition().GetPeers() {
		g.followers = append(g.followers, &follower{peer: p})
	}
	return g
}

// write stores a write on all replicas. When ctx ends first, its outcome is unknown.
func (g *region) write(ctx context.Context, w store.Write) (repeated bool, err error) {
	p := &pendingWrite{write: w, size: proto.Size(w.Rows), done: make(chan outcome, 1)}
	if err := g.enqueue(p); err != nil {
		return false, err
	}
	select {
	case o := <-p.done:
		return o.repeated, o.err
	case <-ctx.Done():
		return false, ctx.Err()
	}
}

func (g *region) enqueue(p *pendingWrite) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.running {
		if !g.service.begin(g.run) {
			return status.Error(codes.Unavailable, "the datanode is stopping")
		}
		g.running = true
	}
	g.waiting = append(g.waiting, p)
	return nil
}

// begin runs fn in a goroutine that Close waits for, unless the service is closed.
func (s *Service) begin(fn func()) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.work.Go(fn)
	}
	return !s.closed
}

// run handles the writes that wait, group after group, until none does.
func (g *region) run() {
	for {
		group := g.next()
		if len(group) == 0 {
			return
		}
		ctx, cancel := context.WithTimeout(g.service.ctx, groupTimeout)
		g.handle(ctx, group)
		cancel()
	}
}

// next takes the writes that are handled together. Where there are none, nobody runs any more.
func (g *region) next() []*pendingWrite {
	g.mu.Lock()
	defer g.mu.Unlock()
	n, size := 0, 0
	for n < len(g.waiting) && (n == 0 || size+g.waiting[n].size <= groupBytes) {
		size += g.waiting[n].size
		n++
	}
	group := g.waiting[:n:n]
	g.waiting = g.waiting[n:]
	g.running = n > 0
	return group
}

// handle stores a group: first whatever followers lack, so that no more than one group is ever stored on the
// leader alone; then the group here; then on the followers. The leader goes first because it must not give a
// place that followers have filled to another write after a crash.
func (g *region) handle(ctx context.Context, group []*pendingWrite) {
	err := g.catchUp(ctx)
	var out *store.Appended
	if err == nil {
		writes := make([]store.Write, len(group))
		for i, p := range group {
			writes[i] = p.write
		}
		out, err = g.replica.Append(ctx, writes, len(g.followers) > 0, g.confirmed())
	}
	switch {
	case errors.Is(err, store.ErrNotFound):
		err = invalid(g.replica.Region(), nil, "the replica is not on this datanode")
	case err != nil && ctx.Err() != nil:
		err = detailed(status.Newf(codes.Unavailable, "region %s: %v", g.replica.Region(), err), "WRITE_INTERRUPTED")
	}
	if err != nil {
		for _, p := range group {
			p.done <- outcome{err: err}
		}
		return
	}
	err = g.replicate(ctx, out)
	for i, p := range group {
		// What an earlier request stored was confirmed by catchUp.
		if out.Seqs[i] < out.First {
			p.done <- outcome{repeated: true}
			continue
		}
		p.done <- outcome{err: err}
	}
}

// follower is another replica of the region, as its leader sees it.
type follower struct {
	peer *tsdbpb.ReplicaPeer
	// confirmed is the place up to which the follower has stored everything, if known.
	confirmed uint64
	known     bool
}

// confirmed returns the place up to which all followers have stored everything.
func (g *region) confirmed() uint64 {
	lowest := uint64(math.MaxInt64)
	for _, f := range g.followers {
		lowest = min(lowest, f.confirmed)
	}
	return lowest
}

// eachFollower runs fn for all followers at the same time, and returns an error of one that failed. The others
// are not interrupted: what they store need not be sent again.
func (g *region) eachFollower(fn func(*follower) error) error {
	var group errgroup.Group
	for _, f := range g.followers {
		group.Go(func() error {
			err := fn(f)
			if err == nil {
				return nil
			}
			f.known = false
			return g.failure(f, err)
		})
	}
	return group.Wait()
}

// failure says that a follower didn't store a write. A follower at a newer epoch shows that this leader is none.
func (g *region) failure(f *follower, err error) error {
	if e, ok := routing.FromError(err); ok && e.LeaderEpoch > g.replica.State().LeaderEpoch {
		e.Message = "a follower knows a newer region leader"
		e.Replica, e.Region = g.replica.ID(), g.replica.Region()
		return e
	}
	return detailed(status.Newf(codes.Unavailable, "region %s: follower replica %d on node %d at %s: %v",
		g.replica.Region(), f.peer.GetReplicaId(), f.peer.GetPeer().GetId(), f.peer.GetPeer().GetAddr(), err),
		"FOLLOWER_FAILED")
}

// catchUp makes sure that the followers have every write that the leader has.
func (g *region) catchUp(ctx context.Context) error {
	stored := g.replica.State().StoredSeq
	return g.eachFollower(func(f *follower) error {
		if !f.known {
			if err := g.send(ctx, f, nil, nil); err != nil {
				return err
			}
		}
		if f.confirmed > stored {
			return fmt.Errorf("it has write %d, the region leader only %d: %w", f.confirmed, stored, store.ErrDiverged)
		}
		for f.confirmed < stored {
			records, previous, err := g.replica.Log(ctx, f.confirmed+1, groupBytes)
			if err != nil {
				return err
			}
			if len(records) == 0 {
				return fmt.Errorf("it lacks the writes from %d on, which are no longer kept", f.confirmed+1)
			}
			before := f.confirmed
			if err := g.send(ctx, f, previous, records); err != nil {
				return err
			}
			if f.confirmed <= before {
				return fmt.Errorf("it stays at write %d", f.confirmed)
			}
		}
		return nil
	})
}

// replicate sends the new writes to the followers.
func (g *region) replicate(ctx context.Context, out *store.Appended) error {
	if len(out.Records) == 0 {
		return nil
	}
	last := out.Records[len(out.Records)-1].GetSeq()
	return g.eachFollower(func(f *follower) error {
		if err := g.send(ctx, f, out.Previous, out.Records); err != nil {
			return err
		}
		if f.confirmed < last {
			return fmt.Errorf("it is at write %d, not %d", f.confirmed, last)
		}
		return nil
	})
}

// send has a follower store records, none to ask for its place.
func (g *region) send(ctx context.Context, f *follower, previous []byte, records []*tsdbpb.LogRecord) error {
	c, err := g.service.peer(f.peer.GetPeer().GetAddr())
	if err != nil {
		return err
	}
	response, err := c.Replicate(ctx, &tsdbpb.ReplicateRequest{
		Route: &tsdbpb.Route{
			RegionId: uint64(g.replica.Region()), ReplicaId: f.peer.GetReplicaId(),
			LeaderEpoch: g.replica.State().LeaderEpoch,
		},
		Records: records, PreviousWriteId: previous,
	})
	if err != nil {
		return err
	}
	f.confirmed, f.known = response.GetStoredSeq(), true
	return nil
}
