package raftfsm

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// A history is what a member is part of, and what it knows of the one that asks: members are founded, added, promoted and
// removed by what the others tell. It can be asked of a member that is part of nothing yet.

// askHistories asks members at once; nil stands for one that didn't answer.
func (n *Node) askHistories(ctx context.Context, servers []Server) []*peerpb.HistoryResponse {
	answers := make([]*peerpb.HistoryResponse, len(servers))
	var asked sync.WaitGroup
	for i, s := range servers {
		asked.Go(func() { answers[i] = n.askHistory(ctx, s.RaftAddr) })
	}
	asked.Wait()
	return answers
}

// askHistory asks the member at an address what it is part of; nil where it doesn't answer.
func (n *Node) askHistory(ctx context.Context, addr string) *peerpb.HistoryResponse {
	n.fileMu.Lock()
	nonce := n.file.Nonce
	n.fileMu.Unlock()
	response, err := n.peers.ask(ctx, addr, &peerpb.Request{
		Request: &peerpb.Request_History{History: &peerpb.HistoryRequest{MemberId: n.cfg.MemberID, Nonce: nonce}},
	})
	if err != nil {
		return nil
	}
	return response.GetHistory()
}

// answerHistory tells another member what this one is part of, and what it knows of the asking one.
func (n *Node) answerHistory(r *peerpb.HistoryRequest) *peerpb.HistoryResponse {
	own := n.identity()
	response := &peerpb.HistoryResponse{MemberId: n.cfg.MemberID, ClusterId: own.cluster, Incarnation: own.incarnation}
	var configuration raft.Configuration
	n.fsm.current.glance(func(v state.View) {
		_, response.Known = machine.Member(v, r.GetMemberId())
		_, response.Removed = machine.Removed(v, r.GetMemberId())
		response.Generation = machine.Cluster(v).GetGeneration()
		response.AppliedIndex = n.fsm.current.index()
		configuration = n.fsm.current.view.Load().configuration
	})
	select {
	case <-n.started:
		configuration = n.configuration()
	default:
	}
	if s, found := findServer(configuration, r.GetMemberId()); found {
		response.RaftAddr = string(s.Address)
	}
	n.fileMu.Lock()
	defer n.fileMu.Unlock()
	switch founded := len(n.file.Founders) > 0; {
	case founded:
		nonce, founder := n.file.Founders[r.GetMemberId()]
		response.Nonce = n.file.Nonce
		response.FoundedWith = founder && r.GetNonce() == nonce
		response.Known = response.Known || founder && r.GetNonce() != nonce
	case n.cfg.InitialClusterState == ClusterNew && !n.admitted.Load() && own.cluster == 0:
		response.Nonce, response.Founders = n.file.Nonce, n.founderList()
	}
	return response
}
