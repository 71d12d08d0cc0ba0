package raftfsm

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// raft keeps the log by number of entries. Under load an entry holds the commands of hundreds of clients, alone that of
// one: a number of entries is too little for the one or too much for the other. So the numbers follow the size that
// entries have, and the bytes of the log stay bounded.

// of returns the numbers for entries of a size: those configured, or as many as have the bytes that there may be.
func (r LogRetention) of(entryBytes uint64) (trailing, threshold uint64) {
	most := max(r.Bytes/max(entryBytes, 1), minTrailing)
	return min(r.Trailing, most), min(r.Threshold, max(most/2, minTrailing/2))
}

const (
	// minTrailing entries are kept whatever their size: what is under way to followers.
	minTrailing = 256
	// retentionPeriod is how often the size of entries is looked at.
	retentionPeriod = 5 * time.Second
)

// keepLog sets how much of the log is kept until ctx ends.
func (n *Node) keepLog(ctx context.Context) {
	if n.cfg.Log.Bytes == 0 {
		return
	}
	ticker := time.NewTicker(retentionPeriod)
	defer ticker.Stop()
	index, bytes := n.fsm.current.index(), n.fsm.entryBytes.Load()
	var usual uint64
	trailing := n.cfg.Log.Trailing
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		nowIndex, nowBytes := n.fsm.current.index(), n.fsm.entryBytes.Load()
		if nowIndex <= index || nowBytes <= bytes {
			index, bytes = nowIndex, nowBytes
			continue
		}
		size := (nowBytes - bytes) / (nowIndex - index)
		index, bytes = nowIndex, nowBytes
		if usual == 0 {
			usual = size
		}
		usual = (3*usual + size) / 4
		most, threshold := n.cfg.Log.of(usual)
		if most < trailing/4*5 && most > trailing/5*4 {
			continue
		}
		trailing = most
		if err := n.raft.ReloadConfig(reloaded(n.raft.ReloadableConfig(), most, threshold)); err != nil {
			n.log.Warn("the bound of the log could not be set", "entries", most, "error", err)
		}
	}
}

func reloaded(c raft.ReloadableConfig, trailing, threshold uint64) raft.ReloadableConfig {
	c.TrailingLogs, c.SnapshotThreshold = trailing, threshold
	return c
}
