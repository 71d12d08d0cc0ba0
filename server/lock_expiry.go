package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/metasrv/metasrv/lock"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// holderPeriod is how often holders are looked at; an expiry is late by so much at the most.
const holderPeriod = 250 * time.Millisecond

// expireHolders removes the holders of locks and candidacies that were not renewed in time, until ctx ends.
func (d *duties) expireHolders(ctx context.Context, t *term, log *slog.Logger) {
	since := t.leadership.Now()
	ticker := time.NewTicker(holderPeriod)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		open := false
		d.node.Glance(func(v state.View) { open = lock.AnyHolder(v) })
		if !open {
			continue
		}
		expired := lock.ExpiredHolders(d.node.View(), since, t.leadership.Now())
		if len(expired) == 0 {
			continue
		}
		err := d.propose(ctx, t.leadership, storagepb.CommandKind_COMMAND_KIND_EXPIRE_HOLDERS, &storagepb.ExpireHolders{Holders: expired})
		switch {
		case err == nil:
			log.Info("holders of locks and candidacies expired that were not renewed", "holders", len(expired))
		case ctx.Err() == nil:
			log.Warn("holders that were not renewed could not be removed yet", "holders", len(expired), "error", err)
		}
	}
}
