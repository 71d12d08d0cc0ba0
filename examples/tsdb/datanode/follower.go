package datanode

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	// sendTimeout is how long a follower may take to store what it was sent.
	sendTimeout = 5 * time.Second
	// firstPause and longestPause lie between attempts to reach a follower.
	firstPause   = 50 * time.Millisecond
	longestPause = time.Second
)

// errTooFarBehind: what a replica lacks is no longer kept.
var errTooFarBehind = errors.New("it lacks writes that are no longer kept")

// follower is another replica of the region, as its leader sees it. A goroutine feeds it.
type follower struct {
	l    *leadership
	id   uint64
	ctx  context.Context //nolint:containedctx // the life of the goroutine
	stop context.CancelFunc

	// l.mu guards what follows.
	peer *metasrvpb.Peer
	// inSync: in the committed in-sync set; growing: asked to come in, and the outcome is not known.
	inSync, growing bool
	// known: the follower has the leader's log up to confirmed, the record there being at position.
	known     bool
	confirmed uint64
	position  store.Position
	// err is why it doesn't get on.
	err error
	// late is for how long it has lacked something without getting on; rested for how long nothing has failed.
	late, rested time.Duration
	// holds is the first place of the log that it needs after a copy, 0 where it needs none.
	holds uint64
}

func newFollower(l *leadership, id uint64) *follower {
	f := &follower{l: l, id: id}
	f.ctx, f.stop = context.WithCancel(l.ctx)
	return f
}

// required reports whether a write must be on this replica before it is acknowledged. l.mu is held.
func (f *follower) required() bool { return f.inSync || f.growing }

func (f *follower) start() {
	if !f.l.region.service.begin(f.run) {
		f.stop()
	}
}

// run feeds the follower until the leadership, or the replica's place in it, ends.
func (f *follower) run() {
	pause := firstPause
	for f.ctx.Err() == nil {
		err := f.step()
		if f.ctx.Err() != nil {
			return
		}
		f.note(err)
		if err == nil {
			pause = firstPause
			continue
		}
		select {
		case <-time.After(pause):
			pause = min(2*pause, longestPause)
		case <-f.ctx.Done():
		}
	}
}

// note keeps how a step ended. A follower at a newer epoch shows that this leader is none.
func (f *follower) note(err error) {
	l := f.l
	l.mu.Lock()
	f.err = err
	if err != nil {
		f.known, f.rested = false, 0
	}
	l.mu.Unlock()
	if e, ok := routing.FromError(err); ok && e.LeaderEpoch > l.epoch {
		e.Message = "a follower knows a newer region leader"
		e.Replica, e.Region = l.region.replica.ID(), l.region.replica.Region()
		l.region.stopLeading(l.epoch+1, e)
	}
}

// step does the next thing: it finds out where the follower is, sends what it lacks, copies the replica, or waits until
// there is something to send.
func (f *follower) step() error {
	f.l.mu.Lock()
	known, next, last, changed, peer := f.known, f.confirmed+1, f.l.last, f.l.changed, f.peer
	recent := f.l.recent
	f.l.mu.Unlock()
	switch {
	case !known:
		return f.find(peer)
	case next > last:
		select {
		case <-changed:
		case <-f.ctx.Done():
		}
		return nil
	case recent != nil && recent.Previous.Seq+1 == next:
		return f.confirm(f.send(peer, recent.Previous, recent.Records))
	}
	records, previous, err := f.l.region.replica.Log(f.ctx, next, groupBytes)
	if err != nil {
		return err
	}
	if len(records) == 0 {
		return f.rebuild(peer, errTooFarBehind)
	}
	return f.confirm(f.send(peer, previous, records))
}

// find finds the last position that the follower's log and the leader's have in common.
func (f *follower) find(peer *metasrvpb.Peer) error {
	at := f.l.region.replica.State().End()
	for {
		found, err := f.send(peer, at, nil)
		if isDiverged(err) {
			return f.rebuild(peer, err)
		}
		if err != nil || found.matched {
			return f.confirm(found, err)
		}
		next, err := f.l.region.replica.Common(f.ctx, found.hint)
		if err != nil {
			return err
		}
		if next.Seq >= at.Seq {
			return fmt.Errorf("it finds no common write before %d", at.Seq)
		}
		at = next
	}
}

// sent is the answer of a follower.
type sent struct {
	matched bool
	// end is the last record that was sent, or the position before the first one.
	end store.Position
	// hint is where to look where nothing matched.
	hint store.Position
}

// send has the follower store records behind a position.
func (f *follower) send(peer *metasrvpb.Peer, previous store.Position, records []*tsdbpb.LogRecord) (sent, error) {
	c, err := f.l.region.service.peer(peer.GetAddr())
	if err != nil {
		return sent{}, err
	}
	ctx, cancel := context.WithTimeout(f.ctx, sendTimeout)
	defer cancel()
	response, err := c.Replicate(ctx, &tsdbpb.ReplicateRequest{
		Route: f.route(), Records: records, Previous: &tsdbpb.Position{Epoch: previous.Epoch, Seq: previous.Seq},
		EpochStart: f.l.start, CommittedSeq: f.l.committedSeq(),
	})
	if err != nil {
		return sent{}, err
	}
	end := previous
	if n := len(records); n > 0 {
		end = store.Position{Epoch: records[n-1].GetEpoch(), Seq: records[n-1].GetSeq()}
	}
	return sent{
		matched: response.GetMatched(), end: end,
		hint: store.Position{Epoch: response.GetHint().GetEpoch(), Seq: response.GetHint().GetSeq()},
	}, nil
}

func (f *follower) route() *tsdbpb.Route {
	return &tsdbpb.Route{RegionId: uint64(f.l.region.replica.Region()), ReplicaId: f.id, LeaderEpoch: f.l.epoch}
}

// confirm takes an answer: the follower has everything up to its end.
func (f *follower) confirm(answer sent, err error) error {
	if err != nil {
		return err
	}
	f.l.mu.Lock()
	defer f.l.mu.Unlock()
	if !answer.matched {
		f.known = false
		return nil
	}
	f.known, f.confirmed, f.position, f.late = true, answer.end.Seq, answer.end, 0
	if f.holds > 0 && f.confirmed >= f.l.committed {
		f.holds = 0
		f.l.hold()
	}
	f.l.commit()
	f.l.broadcast()
	return nil
}

// isDiverged reports whether a follower answered that it can't take back what it has.
func isDiverged(err error) bool {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok && info.GetReason() == "DIVERGED" && info.GetDomain() == routing.Domain {
			return true
		}
	}
	return false
}
