package sim

import (
	"context"
	"fmt"
	"time"

	"github.com/metasrv/metasrv/cmd/metasrv/internal/workload"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// settle waits until every fault is undone.
func (c *cluster) settle() {
	for _, m := range c.members {
		m.busy.Lock()
		defer m.busy.Unlock()
	}
}

// verify looks at the cluster when all faults are undone: everything is read once more, silent sessions expire, and all
// members have the same state.
func (c *cluster) verify(load *workload.Config) {
	ctx, cancel := context.WithTimeout(c.t.Context(), time.Minute)
	defer cancel()
	for _, m := range c.members {
		if m.server == nil {
			c.problem("member %s did not come back", m.id)
			return
		}
	}
	if err := workload.Verify(ctx, load); err != nil {
		c.problem("after all faults were undone: %v", err)
		return
	}
	if c.schedule.sessionTTL == shortTTL {
		c.await(ctx, c.noSessions)
	}
	c.await(ctx, c.sameState)
}

// await waits until a condition holds, which returns why it does not.
func (c *cluster) await(ctx context.Context, condition func(context.Context) error) {
	for {
		err := condition(ctx)
		if err == nil {
			return
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			c.problem("after all faults were undone: %v", err)
			return
		}
	}
}

// noSessions returns an error while there are sessions. Nobody uses any of them.
func (c *cluster) noSessions(ctx context.Context) error {
	answer, err := metasrvpb.NewMaintenanceClient(c.library).Sessions(ctx, &metasrvpb.SessionsRequest{})
	if err == nil && answer.GetOpen() > 0 {
		err = fmt.Errorf("%d sessions do not expire", answer.GetOpen())
	}
	return err
}

// sameState returns an error while members differ in how far they are. That they differ in their states is a problem.
func (c *cluster) sameState(ctx context.Context) error {
	var first *metasrvpb.StateHash
	for _, m := range c.members {
		answer, err := metasrvpb.NewMaintenanceClient(m.conn).Hash(ctx, &metasrvpb.HashRequest{})
		switch present := answer.GetPresent(); {
		case err != nil:
			return fmt.Errorf("hash of member %s: %w", m.id, err)
		case first == nil:
			first = present
		case first.GetIndex() != present.GetIndex():
			return fmt.Errorf("member %s is at index %d, another one at %d", m.id, present.GetIndex(), first.GetIndex())
		case first.GetHash() != present.GetHash():
			c.problem("member %s has another state at index %d than member %s", m.id, first.GetIndex(), c.members[0].id)
		}
	}
	return nil
}
