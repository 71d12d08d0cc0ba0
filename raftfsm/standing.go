package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// standingInterval is how often a member asks the others whether it still is one of them: nobody speaks to a member that
// was removed, so it has to ask.
const standingInterval = 2 * time.Second

// watchStanding ends this member when the cluster goes on without it. As the metasrv leader it makes sure that ids of
// removed members are remembered.
func (n *Node) watchStanding(ctx context.Context) {
	ticker := time.NewTicker(standingInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if !n.admitted.Load() {
			continue
		}
		if l, leads := n.Leadership(); leads {
			n.rememberRemoved(ctx, l)
		}
		if err := n.checkStanding(ctx); err != nil {
			if failed := n.editFile(func(f *memberFile) { f.Ended = err.Error() }); failed != nil {
				err = errors.Join(err, failed)
			}
			n.fail(err)
			return
		}
	}
}

// checkStanding returns an error if another member says that this one is no member any more.
func (n *Node) checkStanding(ctx context.Context) error {
	for _, answer := range n.askHistories(ctx, n.witnesses()) {
		if err := n.judgeStanding(answer); err != nil {
			return err
		}
	}
	return nil
}

// witnesses returns whom to ask. A member that was taken in and not fed yet has no configuration, and may have been removed
// by now.
func (n *Node) witnesses() []Server {
	var others []Server
	servers := n.configuration().Servers
	for _, s := range servers {
		if string(s.ID) != n.cfg.MemberID {
			others = append(others, Server{ID: string(s.ID), RaftAddr: string(s.Address)})
		}
	}
	if len(servers) == 0 {
		for _, addr := range n.acquaintances() {
			others = append(others, Server{RaftAddr: addr})
		}
	}
	return others
}

func (n *Node) judgeStanding(answer *peerpb.HistoryResponse) error {
	own, witness := n.identity(), answer.GetMemberId()
	switch {
	case answer.GetClusterId() == 0 || answer.GetClusterId() != own.cluster:
		return nil
	case answer.GetIncarnation() != own.incarnation:
		if answer.GetGeneration() <= clusterOf(n).GetGeneration() {
			return nil
		}
		return fmt.Errorf("member %s says that cluster %d was restored or recovered without member %s, which has the state of before: it must not go on. "+
			"Keep its folder until you are sure that nothing is missing, then let it join anew: %s",
			witness, own.cluster, n.cfg.MemberID, n.howToJoin())
	case answer.GetRemoved():
		return n.errRemoved(witness)
	}
	return nil
}

// errRemoved says that this member was removed from the cluster.
func (n *Node) errRemoved(witness string) error {
	return fmt.Errorf("member %s was removed from the cluster (says member %s), and its id is never used again. "+
		"Its folder %s is of no more use. To run a member on this machine again: %s",
		n.cfg.MemberID, witness, n.cfg.DataDir, n.howToJoin())
}

// checkAddress returns an error if the other members dial this one at another address than it advertises.
func (n *Node) checkAddress() error {
	servers := n.configuration().Servers
	own, found := findServer(n.configuration(), n.cfg.MemberID)
	if !found || len(servers) < 2 || string(own.Address) == n.cfg.Member.RaftAddr {
		return nil
	}
	var others []Server
	for _, s := range servers {
		if s.ID != own.ID {
			others = append(others, Server{ID: string(s.ID), RaftAddr: string(s.Address)})
		}
	}
	for _, answer := range n.askHistories(n.ctx, others) {
		if answer.GetClusterId() == n.identity().cluster && answer.GetRaftAddr() == n.cfg.Member.RaftAddr {
			return nil // changed while this member was down
		}
	}
	return fmt.Errorf("the cluster knows member %s at %s, but it advertises %s to other members: start it under the address that the cluster knows, "+
		"or tell the cluster first: metactl member update %s --raft-addr %s",
		own.ID, own.Address, n.cfg.Member.RaftAddr, own.ID, n.cfg.Member.RaftAddr)
}

// rememberRemoved makes up for a metasrv leader that ended between the removal of a member and the record of it.
func (n *Node) rememberRemoved(ctx context.Context, l Leadership) {
	// The records first: a member publishes its own after it was added, so one that is missing later was removed.
	records := machine.Members(n.View())
	configuration := n.configuration()
	for _, record := range records {
		if _, member := findServer(configuration, record.GetId()); member {
			continue
		}
		if err := n.forget(ctx, record.GetId(), record.GetRaftAddr(), l.Term); err != nil {
			n.log.Warn("the removal of a member could not be recorded yet", "removed", record.GetId(), "error", err)
		}
	}
}

// forget records that a member was removed. term is the one in which that was decided, 0 for any.
func (n *Node) forget(ctx context.Context, id, raftAddr string, term uint64) error {
	_, err := n.Propose(ctx, state.Proposal{
		Kind:        storagepb.CommandKind_COMMAND_KIND_REMOVE_MEMBER,
		Payload:     &storagepb.RemoveMember{Id: id, RaftAddr: raftAddr, WallTimeMs: time.Now().UnixMilli()},
		PlannedTerm: term,
	})
	return err
}

func clusterOf(n *Node) *storagepb.ClusterRecord { return machine.Cluster(&n.fsm.current) }

func isVoter(s raft.Server) bool { return s.Suffrage == raft.Voter }
