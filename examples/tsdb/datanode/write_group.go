package datanode

import (
	"context"
	"errors"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/examples/tsdb/store"
)

const (
	// groupBytes bounds the rows that are stored and sent together.
	groupBytes = 8 << 20
	// groupTimeout is the time that storing and replicating a group may take: less than a frontend waits, so that it hears
	// which follower didn't answer.
	groupTimeout = 4 * time.Second
)

// pendingWrite is a write whose caller waits for its outcome.
type pendingWrite struct {
	// left is closed when the caller no longer waits.
	left  <-chan struct{}
	write store.Write
	size  int
	done  chan outcome
}

type outcome struct {
	repeated bool
	err      error
}

// write stores a write on all in-sync replicas. When ctx ends first, its outcome is unknown.
func (g *region) write(ctx context.Context, w store.Write) (repeated bool, err error) {
	// Refused here, a write costs a node without a lease nothing.
	if _, _, err := g.begin(); err != nil {
		return false, err
	}
	p := &pendingWrite{left: ctx.Done(), write: w, size: proto.Size(w.Rows), done: make(chan outcome, 1)}
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
		out, err := g.handle(ctx, group)
		if err != nil && ctx.Err() != nil && status.Code(err) == codes.Unknown {
			err = detailed(status.Newf(codes.Unavailable, "region %s: %v", g.replica.Region(), err), "WRITE_INTERRUPTED")
		}
		cancel()
		for i, p := range group {
			p.done <- outcome{repeated: err == nil && out.Seqs[i] <= out.Previous.Seq, err: err}
		}
	}
}

// abandoned reports whether nobody waits for a write any more.
func (p *pendingWrite) abandoned() bool {
	select {
	case <-p.left:
		return true
	default:
		return false
	}
}

// next takes the writes that are handled together. Where there are none, nobody runs any more. Writes that nobody waits for
// are left out: while a follower stalls, callers give up and come again, and the queue would grow by each attempt.
func (g *region) next() []*pendingWrite {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting = slices.DeleteFunc(g.waiting, (*pendingWrite).abandoned)
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

// begin returns the leadership under which a write may be stored now.
func (g *region) begin() (*leadership, client.Write, error) {
	l := g.leadership()
	if l == nil {
		return nil, client.Write{}, invalid(g.replica.Region(), g.replica, "the replica on this datanode is no region leader")
	}
	w, err := g.service.keeper.BeginWrite(g.replica.Region())
	switch {
	case errors.Is(err, metasrv.ErrNotRegionLeader):
		return nil, w, errHandedOver(g)
	case err != nil:
		return nil, w, err
	case w.Epoch() != l.epoch:
		return nil, w, metasrv.ErrNoLease.With("region %s is being handed over", g.replica.Region())
	}
	return l, w, nil
}

// handle stores a group and returns nil if it may be acknowledged: it is on all in-sync replicas, and the lease has not
// ended since.
//
// What was stored before must be on all of them first, so that no more than one group is ever stored here alone. It is
// stored here first because a leader must not give a place that followers have filled to another write after a crash.
func (g *region) handle(ctx context.Context, group []*pendingWrite) (*store.Appended, error) {
	l, lease, err := g.begin()
	if err != nil {
		return nil, err
	}
	if err := l.await(ctx, g.replica.State().StoredSeq); err != nil {
		return nil, err
	}
	writes := make([]store.Write, len(group))
	for i, p := range group {
		writes[i] = p.write
	}
	out, err := g.replica.Append(ctx, lease.Epoch(), writes, l.keeps(), l.committedSeq())
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, invalid(g.replica.Region(), nil, "the replica is not on this datanode")
	case errors.Is(err, store.ErrStaleEpoch):
		return nil, errHandedOver(g)
	case err != nil:
		return nil, err
	}
	last := l.stored(out)
	if err := l.await(ctx, last); err != nil {
		return nil, err
	}
	if err := g.end(lease, out.Seqs, writes); err != nil {
		return nil, err
	}
	return out, nil
}

// end checks for the last time that writes may be acknowledged.
func (g *region) end(lease client.Write, seqs []uint64, writes []store.Write) error {
	g.mu.Lock() // what is stored under a later epoch comes behind in the journal
	defer g.mu.Unlock()
	at := time.Now()
	if err := lease.End(); err != nil && !broken("lease") {
		return err
	}
	return g.service.journal.acknowledge(at, g.replica, lease.Epoch(), seqs, writes)
}
