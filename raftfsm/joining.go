package raftfsm

import (
	"context"
	"fmt"
	"slices"

	"github.com/hashicorp/raft"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
)

// maxKnocks bounds the addresses that a member without data remembers of those that spoke to it.
const maxKnocks = 8

// knocked notes that a member of a cluster speaks raft to this one, which is the first that a new member hears of it.
func (n *Node) knocked(addr string) {
	n.knocksMu.Lock()
	if addr != "" && !slices.Contains(n.knocks, addr) {
		n.knocks = append(n.knocks, addr)
		n.knocks = n.knocks[max(0, len(n.knocks)-maxKnocks):]
	}
	n.knocksMu.Unlock()
	select {
	case n.knock <- struct{}{}:
	default:
	}
}

// acquaintances returns the addresses at which a member that was not fed yet may find others: of those that spoke to it,
// and of the cluster that it was started with.
func (n *Node) acquaintances() []string {
	n.knocksMu.Lock()
	addrs := slices.Clone(n.knocks)
	n.knocksMu.Unlock()
	for _, s := range n.cfg.InitialCluster {
		if s.ID != n.cfg.MemberID && !slices.Contains(addrs, s.RaftAddr) {
			addrs = append(addrs, s.RaftAddr)
		}
	}
	return addrs
}

// tryJoin asks whom this member knows whether the cluster has added it. waiting says what is missing.
func (n *Node) tryJoin(ctx context.Context) (waiting string, err error) {
	ask := n.acquaintances()
	waiting = fmt.Sprintf("a cluster to take it in as member %s; run: metactl member add %s --raft-addr %s",
		n.cfg.MemberID, n.cfg.MemberID, n.cfg.Member.RaftAddr)
	for i := 0; i < len(ask); i++ {
		response, err := n.peers.ask(ctx, ask[i], &peerpb.Request{Request: &peerpb.Request_Join{
			Join: &peerpb.JoinRequest{MemberId: n.cfg.MemberID, RaftAddr: n.cfg.Member.RaftAddr},
		}})
		if err != nil {
			continue
		}
		join := response.GetJoin()
		switch join.GetStanding() {
		case peerpb.Standing_STANDING_ASK_LEADER:
			if leader := join.GetLeaderRaftAddr(); leader != "" && !slices.Contains(ask, leader) {
				ask = append(ask, leader)
			}
		case peerpb.Standing_STANDING_STRANGER:
			waiting = fmt.Sprintf("cluster %d to take it in as member %s; run: metactl member add %s --raft-addr %s",
				join.GetClusterId(), n.cfg.MemberID, n.cfg.MemberID, n.cfg.Member.RaftAddr)
			if addr := join.GetRaftAddr(); addr != "" {
				waiting = fmt.Sprintf("its address in cluster %d, which dials member %s at %s; run: metactl member update %s --raft-addr %s",
					join.GetClusterId(), n.cfg.MemberID, addr, n.cfg.MemberID, n.cfg.Member.RaftAddr)
			}
		case peerpb.Standing_STANDING_ADDED:
			return "", n.join(identity{join.GetClusterId(), join.GetIncarnation()})
		case peerpb.Standing_STANDING_DATA_LOST:
			return "", n.errDataLost("at " + ask[i])
		case peerpb.Standing_STANDING_REMOVED:
			return "", n.errRemoved("at " + ask[i])
		}
	}
	return waiting, nil
}

// join lets the cluster's members speak raft to this one.
func (n *Node) join(cluster identity) error {
	if err := n.editFile(func(f *memberFile) { f.ClusterID, f.Incarnation = cluster.cluster, cluster.incarnation }); err != nil {
		return err
	}
	n.log.Info("joining the cluster", "cluster_id", cluster.cluster)
	n.admitted.Store(true)
	return nil
}

// answerJoin says whether a member without data may take part. Only the metasrv leader may say yes, from a state behind
// a barrier: what another member knows may be from before the asking one was promoted, and lost its data.
func (n *Node) answerJoin(ctx context.Context, r *peerpb.JoinRequest) *peerpb.JoinResponse {
	own := n.identity()
	response := &peerpb.JoinResponse{
		Standing: peerpb.Standing_STANDING_ASK_LEADER, ClusterId: own.cluster, Incarnation: own.incarnation,
	}
	if _, gone := machine.Removed(&n.fsm.current, r.GetMemberId()); gone {
		response.Standing = peerpb.Standing_STANDING_REMOVED
		return response
	}
	view, err := n.Barrier(ctx)
	if err != nil {
		if addr, id := n.raft.LeaderWithID(); string(id) != n.cfg.MemberID {
			response.LeaderRaftAddr = string(addr)
		}
		return response
	}
	server, found := findServer(n.configuration(), r.GetMemberId())
	_, published := machine.Member(view, r.GetMemberId())
	_, gone := machine.Removed(view, r.GetMemberId())
	response.RaftAddr = string(server.Address)
	switch {
	case gone:
		response.Standing = peerpb.Standing_STANDING_REMOVED
	case published, found && server.Suffrage != raft.Nonvoter:
		response.Standing = peerpb.Standing_STANDING_DATA_LOST
	case !found, response.RaftAddr != r.GetRaftAddr():
		response.Standing = peerpb.Standing_STANDING_STRANGER
	default:
		response.Standing = peerpb.Standing_STANDING_ADDED
	}
	return response
}

func findServer(c raft.Configuration, id string) (raft.Server, bool) {
	for _, s := range c.Servers {
		if string(s.ID) == id {
			return s, true
		}
	}
	return raft.Server{}, false
}
