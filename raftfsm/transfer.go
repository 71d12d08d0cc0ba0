package raftfsm

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
)

const (
	// transferPause is the time between two looks at how far a transfer of the leadership is.
	transferPause = 20 * time.Millisecond
	// successorTimeout bounds the wait for another metasrv leader once this member has handed over. The members elect
	// one within seconds or, without a majority, perhaps never.
	successorTimeout = 10 * time.Second
)

// TransferLeadership makes another voter the metasrv leader: the one with an id, or where that is empty the one that is
// furthest. It returns who that is, which can be another one than was asked for where the members elected it at that
// moment. ErrNotTransferred: the leadership stayed here or came back, or nobody has it yet.
func (n *Node) TransferLeadership(ctx context.Context, id string) (string, error) {
	c, unlock, err := n.configure(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if id == n.cfg.MemberID {
		return id, nil
	}
	term := n.raft.CurrentTerm()
	if err := n.transferTo(ctx, c, id); err != nil {
		return "", err
	}
	return n.awaitSuccessor(ctx, term)
}

// transferTo hands the leadership over, and returns when the duties of this member's term have ended.
func (n *Node) transferTo(ctx context.Context, c *configuration, id string) error {
	term := n.raft.CurrentTerm()
	var err error
	if id == "" {
		if !slices.ContainsFunc(c.servers.Servers, func(s raft.Server) bool { return isVoter(s) && string(s.ID) != n.cfg.MemberID }) {
			return metasrv.ErrNotTransferred.With("member %s is the only voter", n.cfg.MemberID)
		}
		err = n.awaitFuture(ctx, n.raft.LeadershipTransfer())
	} else {
		s, missing := c.member(id)
		switch {
		case missing != nil:
			return missing
		case !isVoter(s):
			return metasrv.ErrNotTransferred.With("member %s does not vote; promote it first", id)
		case n.askHistory(ctx, string(s.Address)).GetMemberId() != id:
			return metasrv.ErrNotTransferred.With("member %s does not answer at %s", id, s.Address)
		}
		err = n.awaitFuture(ctx, n.raft.LeadershipTransferToServer(s.ID, s.Address))
	}
	if err != nil && n.raft.State() == raft.Leader {
		return metasrv.ErrNotTransferred.With("member %s is still the metasrv leader: %v", n.cfg.MemberID, err)
	}
	// Its duties end a moment later than raft's leadership.
	for l := n.leading.Load(); l != nil && l.Term <= term && ctx.Err() == nil; l = n.leading.Load() {
		wait(ctx, transferPause)
	}
	return nil
}

// awaitSuccessor returns who leads after this member has handed over its leadership of a term. A target that fails at
// that moment, or whose votes are lost, lets this member be elected again.
func (n *Node) awaitSuccessor(ctx context.Context, term uint64) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, successorTimeout)
	defer cancel()
	for ctx.Err() == nil {
		if _, leader := n.raft.LeaderWithID(); leader != "" && string(leader) != n.cfg.MemberID {
			return string(leader), nil
		}
		if now := n.raft.CurrentTerm(); now > term && n.raft.State() == raft.Leader {
			return "", metasrv.ErrNotTransferred.With("member %s handed over the leadership and was elected again, in term %d", n.cfg.MemberID, now)
		}
		wait(ctx, transferPause)
	}
	return "", metasrv.ErrNotTransferred.With("member %s handed over the leadership, and no other member has it yet", n.cfg.MemberID)
}

// wait returns after a while, or when ctx ends.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}
