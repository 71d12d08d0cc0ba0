package server

import (
	"context"
	"log/slog"
	"time"

	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// groupPeriod is how often groups are looked at; an election is late by so much at the most.
const groupPeriod = 50 * time.Millisecond

// electWriters sees to it that each group of nodes has a writer, until ctx ends.
func (d *duties) electWriters(ctx context.Context, t *term, log *slog.Logger) {
	ticker := time.NewTicker(groupPeriod)
	defer ticker.Stop()
	elections := heartbeat.NewElections(t.tracker, d.node, log)
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		there := false
		d.node.Glance(func(v state.View) { there = heartbeat.AnyGroup(v) })
		if !there {
			continue
		}
		view := d.node.View()
		if quarantined(view) != nil {
			continue // another writer may have been elected in what the state has lost
		}
		if err := elections.Hold(ctx, view, d.pausedWhy(view)); err != nil && ctx.Err() == nil {
			log.Error("groups could not be looked at", "error", err)
		}
	}
}
