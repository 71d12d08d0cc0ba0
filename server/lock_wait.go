package server

import (
	"context"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/lock"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// claimWait waits for a claim to become the first on its name.
type claimWait struct {
	*services
	kind   storagepb.ClaimKind
	name   []byte
	holder uint64
	// renew is how often the holder is renewed meanwhile, 0 where its caller does that.
	renew time.Duration
	held  bool
}

// answerShare is the share of a caller's time that is kept for an answer where its claim stays.
const answerShare = 4

// untilHeld returns the claim once it holds its name. ErrNotHeld: it is there no more. ErrNotLeader: this member can't
// renew the holder any longer. ErrStillWaiting: the caller's time is nearly over, and its claim keeps its place.
func (w *claimWait) untilHeld(ctx context.Context) (*storagepb.ClaimRecord, error) {
	deadline, limited := ctx.Deadline()
	if w.renew > 0 || !limited {
		return w.await(ctx)
	}
	bounded, cancel := context.WithTimeout(ctx, time.Until(deadline)*(answerShare-1)/answerShare)
	defer cancel()
	claim, err := w.await(bounded)
	if err != nil && bounded.Err() != nil && ctx.Err() == nil {
		return nil, metasrv.ErrStillWaiting.With("holder %d waits for %q", w.holder, w.name)
	}
	return claim, err
}

func (w *claimWait) await(ctx context.Context) (*storagepb.ClaimRecord, error) {
	changes := w.follow(w.kind, w.name)
	defer changes.close()
	var renewal <-chan time.Time
	if w.renew > 0 {
		ticker := time.NewTicker(w.renew)
		defer ticker.Stop()
		renewal = ticker.C
	}
	for {
		claim, ahead, err := lock.Place(w.node.View(), w.kind, w.name, w.holder)
		if err != nil {
			return nil, err
		}
		if ahead == 0 {
			w.held = true
			return claim, nil
		}
		due, err := changes.next(ctx, renewal)
		if err == nil && due {
			err = w.keep(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
}

func (w *claimWait) keep(ctx context.Context) error {
	_, err := w.node.Propose(ctx, state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_KEEP_HOLDER, Payload: &storagepb.KeepHolder{Holder: w.holder},
	})
	return err
}

// withdrawUnlessHeld takes the claim of a caller back that doesn't wait any longer. If that fails, the holder expires.
func (w *claimWait) withdrawUnlessHeld(ctx context.Context) {
	if w.held {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), withdrawTimeout)
	defer cancel()
	_, err := w.node.Propose(ctx, state.Proposal{
		Kind:    storagepb.CommandKind_COMMAND_KIND_WITHDRAW,
		Payload: &storagepb.Withdraw{Kind: w.kind, Name: w.name, Holder: w.holder},
	})
	if err != nil {
		w.log.Warn("claim of a caller that went away is not withdrawn, it expires", "name", string(w.name), "holder", w.holder, "error", err)
	}
}

// claimChanges tells when the claims on a name change.
type claimChanges struct {
	hub     *hub
	watcher *watcher
}

// follow tells of changes from now on.
func (s *services) follow(kind storagepb.ClaimKind, name []byte) *claimChanges {
	key := lock.Key(kind, name)
	c := &claimChanges{hub: s.hub}
	c.begin([]keyRange{{from: key, to: key + "\x00"}})
	return c
}

// begin watches from now on. The first look brings the watcher, which lags at first, to the hub.
func (c *claimChanges) begin(ranges []keyRange) {
	c.watcher = c.hub.watch(ranges, c.hub.node.View().Revision()+1)
	c.watcher.wake <- struct{}{}
}

func (c *claimChanges) close() { c.hub.remove(c.watcher) }

// next returns when the claims may have changed, or with due when timer is.
func (c *claimChanges) next(ctx context.Context, timer <-chan time.Time) (due bool, err error) {
	select {
	case <-c.watcher.wake:
	case <-c.watcher.cut:
	case <-timer:
		return true, nil
	case <-ctx.Done():
		return false, ctx.Err()
	}
	return false, c.drain(ctx)
}

// drain takes what has changed: only that something has counts. What is no longer remembered counts as a change.
func (c *claimChanges) drain(ctx context.Context) error {
	for {
		next, err := c.watcher.take(ctx)
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case err != nil:
			c.hub.remove(c.watcher)
			c.begin(c.watcher.ranges)
			return nil
		case next.idle:
			return nil
		}
	}
}
