package raftfsm

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/raft"
)

// Where the process of the metasrv leader ends, its system closes the connections to it and refuses new ones. Followers
// that see both need not wait until heartbeats are missing, which takes up to three times Timing.Heartbeat, since those
// who had contact to a leader refuse their vote to others for that time. A machine that is gone refuses nothing: then
// raft's own timeouts find it out.
//
// raft has no call for it; the message with which a leader hands over to a follower does the same. It lets the others vote
// although they have heard of a leader. Followers take turns by their ids, for candidates of the same moment take the votes
// from each other. An election too many would do no harm but a pause.

// raftProtocol is the version of raft's messages that this build speaks.
const raftProtocol = raft.ProtocolVersionMax

// succeed stands for election whenever the process of the metasrv leader has ended, until ctx does.
func (n *Node) succeed(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.mux.lost:
		}
		if !n.leaderIsGone(ctx) {
			continue
		}
		addr, id := n.raft.LeaderWithID()
		n.log.Info("the process of the metasrv leader is gone; standing for election", "leader", string(id), "raft_addr", string(addr))
		err := n.trans.TimeoutNow(raft.ServerID(n.cfg.MemberID), raft.ServerAddress(n.cfg.Member.RaftAddr),
			&raft.TimeoutNowRequest{RPCHeader: raft.RPCHeader{ProtocolVersion: raftProtocol}}, &raft.TimeoutNowResponse{})
		if err != nil {
			n.log.Warn("could not stand for election at once", "error", err)
		}
	}
}

// leaderIsGone waits for this member's turn and returns whether the metasrv leader that was there when a connection ended
// is gone and nobody took its place.
func (n *Node) leaderIsGone(ctx context.Context) bool {
	addr, id := n.raft.LeaderWithID()
	turn := n.turnAfter(id)
	if id == "" || turn < 0 || !n.refuses(ctx, addr) {
		return false
	}
	quiet := n.cfg.Timing.Heartbeat / 4 // raft's heartbeats come at least twice as often
	select {
	case <-ctx.Done():
		return false
	case <-time.After(quiet + time.Duration(turn)*n.cfg.Timing.Heartbeat/2):
	}
	// A candidate before this one that lacked entries leaves no leader.
	_, now := n.raft.LeaderWithID()
	return (now == id || now == "") && n.raft.State() == raft.Follower && time.Since(n.raft.LastContact()) >= quiet &&
		n.disk.refusing() == nil && n.refuses(ctx, addr)
}

// turnAfter returns the place of this member among the voters without the metasrv leader, by id; -1 if it has none.
func (n *Node) turnAfter(leader raft.ServerID) int {
	var ids []string
	for _, v := range n.voters() {
		if v.ID != leader {
			ids = append(ids, string(v.ID))
		}
	}
	slices.Sort(ids)
	return slices.Index(ids, n.cfg.MemberID)
}

// refuses reports whether the system at an address says that nobody listens there. No answer is no such saying.
func (n *Node) refuses(ctx context.Context, addr raft.ServerAddress) bool {
	ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.Heartbeat/4)
	defer cancel()
	conn, err := n.cfg.Network.Dial(ctx, string(addr))
	if err == nil {
		_ = conn.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}
