package raftfsm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/machine"
)

const (
	// configureTimeout bounds the wait for raft's queue, not for the commit.
	configureTimeout = 5 * time.Second
	// promoteTimeout is how long a member may take to reach what the metasrv leader had when its promotion was asked for.
	promoteTimeout = 3 * time.Second
	// promotePause is the time between two looks at how far it is.
	promotePause = 50 * time.Millisecond
)

// Change says which members a change of them is bound to.
type Change struct {
	// At is the index of the configuration that the change was decided on, 0 for any: ErrConfigurationChanged where
	// there is another by now.
	At uint64
}

// Removal says what a removal of a member may do that it refuses otherwise.
type Removal struct {
	// Force: nobody is asked whether enough of the voters that remain answer.
	Force bool
	// Shrink: a voter that works may go although fewer than minVoters remain.
	Shrink bool
}

// minVoters bear the loss of one. Fewer remain only where an operator has said so, or where the one that is removed is
// lost already (hashicorp/consul#5922).
const minVoters = 3

// ConfigurationIndex returns the index of the configuration of members that this member has applied.
func (n *Node) ConfigurationIndex() uint64 { return n.fsm.current.view.Load().configurationIndex }

// AddMember takes a member in as a non-voter and returns the index of the configuration with it. It changes nothing
// where the member is there already. ErrMemberRemoved: the id was used before. ErrMemberExists: the id or the address is
// another member's. ErrInvalidArgument: at the address answers something else. These and the other changes of members
// also return what Propose does; only the metasrv leader makes them.
func (n *Node) AddMember(ctx context.Context, server Server, change Change) (uint64, error) {
	c, unlock, err := n.configure(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	if gone, was := machine.Removed(&n.fsm.current, server.ID); was {
		return 0, metasrv.ErrMemberRemoved.With("a member %s was removed on %s; its id is never used again: choose a new one",
			gone.Id, time.UnixMilli(gone.RemovedAtMs).UTC().Format("2006-01-02 15:04:05Z"))
	}
	s, found := findServer(c.servers, server.ID)
	if _, published := n.publishedMember(server.ID); published && !found {
		return 0, metasrv.ErrMemberRemoved.With("a member %s was removed just now; its id is never used again: choose a new one", server.ID)
	}
	if found {
		if string(s.Address) == server.RaftAddr {
			return c.index, nil
		}
		return 0, metasrv.ErrMemberExists.With("member %s is there already, at %s; its address is changed by: metactl member update %s --raft-addr %s",
			s.ID, s.Address, s.ID, server.RaftAddr)
	}
	if err := c.free(server); err != nil {
		return 0, err
	}
	if answer := n.askHistory(ctx, server.RaftAddr); answer != nil {
		own := n.identity()
		switch {
		case answer.GetMemberId() != server.ID:
			return 0, metasrv.InvalidArgument("raft_addr", "at %s answers member %s, not %s", server.RaftAddr, answer.GetMemberId(), server.ID)
		case answer.GetClusterId() != 0 && answer.GetClusterId() != own.cluster:
			return 0, metasrv.InvalidArgument("raft_addr", "member %s at %s is part of cluster %d, this is cluster %d: start it with an empty folder "+
				"and --initial-cluster-state existing", server.ID, server.RaftAddr, answer.GetClusterId(), own.cluster)
		}
	}
	return c.change(ctx, change, func(prev uint64) raft.IndexFuture {
		return n.raft.AddNonvoter(raft.ServerID(server.ID), raft.ServerAddress(server.RaftAddr), prev, configureTimeout)
	})
}

// PromoteMember makes a non-voter that has caught up a voter. ErrMemberNotCaughtUp says how far it is behind.
func (n *Node) PromoteMember(ctx context.Context, id string, change Change) (uint64, error) {
	c, unlock, err := n.configure(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	s, err := c.member(id)
	switch {
	case err != nil:
		return 0, err
	case isVoter(s):
		return c.index, nil
	}
	if err := n.awaitCaughtUp(ctx, s); err != nil {
		return 0, err
	}
	return c.change(ctx, change, func(prev uint64) raft.IndexFuture {
		return n.raft.AddVoter(s.ID, s.Address, prev, configureTimeout)
	})
}

// awaitCaughtUp returns nil as soon as a non-voter has in its state what was committed when it was asked. Its record
// must be published too: that is what its data is missed by, should it lose it.
func (n *Node) awaitCaughtUp(ctx context.Context, s raft.Server) error {
	timeout := promoteTimeout
	if deadline, ok := ctx.Deadline(); ok { // the answer must come before the caller has given up
		timeout = min(timeout, time.Until(deadline)/2)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	goal := n.raft.CommitIndex()
	for {
		answer := n.askHistory(ctx, string(s.Address))
		_, published := n.publishedMember(string(s.ID))
		switch {
		case answer != nil && answer.GetMemberId() != string(s.ID):
			return metasrv.ErrMemberNotCaughtUp.With("at %s answers member %s, not %s", s.Address, answer.GetMemberId(), s.ID)
		case answer.GetClusterId() != 0 && answer.GetClusterId() != n.identity().cluster:
			return metasrv.ErrMemberNotCaughtUp.With("member %s at %s is part of cluster %d, this is cluster %d: start it with an empty folder "+
				"and --initial-cluster-state existing", s.ID, s.Address, answer.GetClusterId(), n.identity().cluster)
		case answer != nil && answer.GetAppliedIndex() >= goal && published:
			return nil
		}
		select {
		case <-time.After(promotePause):
		case <-ctx.Done():
			return n.errNotCaughtUp(s, goal)
		}
	}
}

func (n *Node) errNotCaughtUp(s raft.Server, goal uint64) error {
	ctx, cancel := context.WithTimeout(n.ctx, min(n.cfg.Timing.PeerTimeout, promoteTimeout/6))
	defer cancel()
	answer := n.askHistory(ctx, string(s.Address))
	if answer == nil {
		return metasrv.ErrMemberNotCaughtUp.With("member %s does not answer at %s; start it, and let it catch up first", s.ID, s.Address)
	}
	applied := answer.GetAppliedIndex()
	if applied >= goal {
		return metasrv.ErrMemberNotCaughtUp.With("member %s has caught up, but has not published its addresses yet; try again", s.ID)
	}
	return metasrv.ErrMemberNotCaughtUp.With("member %s has applied %d of %d entries: %d are missing; let it catch up and try again",
		s.ID, applied, goal, goal-applied)
}

// RemoveMember removes a member for ever. A metasrv leader that is to be removed hands over and returns ErrNotLeader:
// the next one removes it. ErrQuorumAtRisk: fewer than a majority of the voters that remain answer, or fewer than
// minVoters would remain of a cluster that has them; Removal allows either. The last voter is never removed.
func (n *Node) RemoveMember(ctx context.Context, id string, allowed Removal, change Change) (uint64, error) {
	c, unlock, err := n.configure(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	s, err := c.member(id)
	if err != nil {
		if _, was := machine.Removed(&n.fsm.current, id); was {
			return c.index, nil
		}
		if record, published := n.publishedMember(id); published {
			return c.index, n.forget(ctx, id, record.GetRaftAddr(), 0)
		}
		return 0, err
	}
	if isVoter(s) {
		if err := n.checkQuorumWithout(ctx, c, s, allowed); err != nil {
			return 0, err
		}
	}
	if id == n.cfg.MemberID {
		if err := n.transferTo(ctx, c, ""); err != nil {
			return 0, err
		}
		return 0, metasrv.ErrNotLeader.With("member %s has handed over the leadership, and the next metasrv leader removes it", id)
	}
	index, err := c.change(ctx, change, func(prev uint64) raft.IndexFuture {
		return n.raft.RemoveServer(s.ID, prev, configureTimeout)
	})
	if err != nil {
		return 0, err
	}
	if err := n.forget(ctx, id, string(s.Address), 0); err != nil {
		// The member is removed all the same, and the metasrv leader makes up for the record.
		n.log.Warn("a member was removed, and the record of that is not written yet", "removed", id, "error", err)
	}
	return index, nil
}

// checkQuorumWithout returns an error if the cluster could not go on without a voter.
func (n *Node) checkQuorumWithout(ctx context.Context, c *configuration, without raft.Server, allowed Removal) error {
	var remaining []Server
	for _, s := range c.servers.Servers {
		if isVoter(s) && s.ID != without.ID {
			remaining = append(remaining, Server{ID: string(s.ID), RaftAddr: string(s.Address)})
		}
	}
	if len(remaining) == 0 {
		return metasrv.ErrQuorumAtRisk.With("member %s is the only voter; promote another one first", without.ID)
	}
	if len(remaining) == minVoters-1 && !allowed.Shrink && n.works(ctx, without) {
		return metasrv.ErrQuorumAtRisk.With("without member %s the cluster has %d voters, and the loss of one more stops writes. "+
			"Add and promote another member first, or allow it with --shrink", without.ID, len(remaining))
	}
	if allowed.Force {
		return nil
	}
	var silent []string
	for i, answer := range n.askHistories(ctx, remaining) {
		if remaining[i].ID != n.cfg.MemberID && (answer.GetMemberId() != remaining[i].ID || answer.GetClusterId() != n.identity().cluster) {
			silent = append(silent, remaining[i].ID)
		}
	}
	live, need := len(remaining)-len(silent), len(remaining)/2+1
	if live >= need {
		return nil
	}
	return metasrv.ErrQuorumAtRisk.With("without member %s the cluster has %d voters and needs %d of them, but only %d answer (silent: %s): "+
		"writes would stop. Bring them back, or remove a silent one first", without.ID, len(remaining), need, live, strings.Join(silent, ", "))
}

// works reports whether a member answers as one of this cluster.
func (n *Node) works(ctx context.Context, s raft.Server) bool {
	if string(s.ID) == n.cfg.MemberID {
		return true
	}
	answer := n.askHistory(ctx, string(s.Address))
	return answer.GetMemberId() == string(s.ID) && answer.GetClusterId() == n.identity().cluster
}

// UpdateMember changes the address at which the other members dial one.
func (n *Node) UpdateMember(ctx context.Context, server Server, change Change) (uint64, error) {
	c, unlock, err := n.configure(ctx)
	if err != nil {
		return 0, err
	}
	defer unlock()
	s, err := c.member(server.ID)
	switch {
	case err != nil:
		return 0, err
	case string(s.Address) == server.RaftAddr:
		return c.index, nil
	case server.ID == n.cfg.MemberID && len(c.servers.Servers) > 1:
		if err := n.transferTo(ctx, c, ""); err != nil {
			return 0, err
		}
		return 0, metasrv.ErrNotLeader.With("member %s has handed over the leadership, and the next metasrv leader changes its address", server.ID)
	}
	if err := c.free(server); err != nil {
		return 0, err
	}
	return c.change(ctx, change, func(prev uint64) raft.IndexFuture {
		if isVoter(s) {
			return n.raft.AddVoter(s.ID, raft.ServerAddress(server.RaftAddr), prev, configureTimeout)
		}
		return n.raft.AddNonvoter(s.ID, raft.ServerAddress(server.RaftAddr), prev, configureTimeout)
	})
}

// configuration is the latest one of the members, while nobody else changes it here.
type configuration struct {
	n       *Node
	servers raft.Configuration
	index   uint64
}

// configure begins a change of the members, which only the metasrv leader makes, one at a time.
func (n *Node) configure(ctx context.Context) (*configuration, func(), error) {
	if err := n.awaitLeadership(ctx); err != nil {
		return nil, nil, err
	}
	select {
	case n.changing <- struct{}{}:
	case <-ctx.Done():
		return nil, nil, metasrv.ErrNotReady.With("member %s is busy with another change of the members or a transfer of the leadership; try again", n.cfg.MemberID)
	}
	unlock := func() { <-n.changing }
	if err := n.awaitLeadership(ctx); err != nil { // it may have been handed over meanwhile
		unlock()
		return nil, nil, err
	}
	// The applied one has its index, which raft doesn't tell of the latest one. Where another change is under way, raft
	// refuses a change that is bound to this index.
	a := n.fsm.current.Load()
	return &configuration{n: n, servers: a.configuration, index: a.configurationIndex}, unlock, nil
}

func (c *configuration) member(id string) (raft.Server, error) {
	if s, found := findServer(c.servers, id); found {
		return s, nil
	}
	return raft.Server{}, metasrv.ErrMemberNotFound.With("there is no member %q", id)
}

// free returns an error if another member has the address.
func (c *configuration) free(server Server) error {
	for _, s := range c.servers.Servers {
		if string(s.Address) == server.RaftAddr && string(s.ID) != server.ID {
			return metasrv.ErrMemberExists.With("member %s has the address %s", s.ID, s.Address)
		}
	}
	return nil
}

// change makes a change that is bound to the configuration which was looked at.
func (c *configuration) change(ctx context.Context, change Change, make func(prev uint64) raft.IndexFuture) (uint64, error) {
	if change.At != 0 && change.At != c.index {
		return 0, metasrv.ErrConfigurationChanged.With("the members have changed: their configuration has index %d, the request is for %d; look at them again",
			c.index, change.At)
	}
	future := make(c.index)
	if err := c.n.awaitFuture(ctx, future); err != nil {
		if ctx.Err() != nil {
			return 0, metasrv.ErrOutcomeUnknown.With("the request ended while the change was written: %v", context.Cause(ctx))
		}
		if now := c.n.ConfigurationIndex(); now != c.index && c.n.raft.State() == raft.Leader {
			return 0, metasrv.ErrConfigurationChanged.With("the members changed meanwhile (index %d, now %d): %v", c.index, now, err)
		}
		return 0, proposeError(fmt.Errorf("change the members: %w", err))
	}
	return future.Index(), nil
}
