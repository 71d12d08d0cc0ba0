package raftfsm

import (
	"context"
	"time"

	"github.com/hashicorp/raft"
)

// A metasrv leader whose disk is full refuses writes, so it hands over where others can take them. It needs a majority
// that has space without it: it may be unable to store its vote for the next one. Where there is none it stays and answers
// reads, for an election would change nothing.

// yieldAfter is how often in a row the disk must be found full: by then the others know of their own, which may be the same.
const yieldAfter = 3

// yieldTimeout bounds one attempt to hand over.
const yieldTimeout = 10 * time.Second

// yieldWithoutSpace hands the leadership over while the disk is full, until ctx ends.
func (n *Node) yieldWithoutSpace(ctx context.Context) {
	ticker := time.NewTicker(spacePeriod)
	defer ticker.Stop()
	for full := 0; ; {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if _, leads := n.Leadership(); !leads || n.disk.space() == spaceEnough {
			full = 0
		} else if full++; full >= yieldAfter {
			n.yieldOnce(ctx)
		}
	}
}

func (n *Node) yieldOnce(ctx context.Context) {
	to, found := n.roomiest(ctx)
	if !found {
		return
	}
	n.log.Warn("the disk is full: handing the leadership over to a member that has space", "data_dir", n.cfg.DataDir, "to", string(to))
	bounded, cancel := context.WithTimeout(ctx, yieldTimeout)
	defer cancel()
	if _, err := n.TransferLeadership(bounded, string(to)); err != nil && ctx.Err() == nil {
		n.log.Warn("the leadership was not handed over", "to", string(to), "error", err)
	}
}

// roomiest returns the voter with space that is furthest; false where fewer voters have space than elect a metasrv leader.
func (n *Node) roomiest(ctx context.Context) (to raft.ServerID, found bool) {
	voters := n.voters()
	able, furthest := 0, uint64(0)
	for id, answer := range n.askTerms(ctx, voters) {
		if !answer.GetHasSpace() {
			continue
		}
		if able++; to == "" || answer.GetAppliedIndex() > furthest {
			to, furthest = id, answer.GetAppliedIndex()
		}
	}
	return to, able > len(voters)/2
}
