package raftfsm

import (
	"context"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	peerpb "github.com/metasrv/metasrv/proto/metasrv/peer/v1"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// publishInterval is how often a member looks whether the cluster knows its addresses.
const publishInterval = 500 * time.Millisecond

// Member is a member of the cluster.
type Member struct {
	// Record is what it has published; before that only its id and raft address are known.
	Record *storagepb.MemberRecord
	Voter  bool
	Leader bool
}

// Members returns the members of the cluster as this one knows them, sorted by id.
func (n *Node) Members() []Member {
	_, leader := n.raft.LeaderWithID()
	var members []Member
	for _, s := range n.configuration().Servers {
		members = append(members, Member{
			Record: n.memberRecord(s),
			Voter:  s.Suffrage == raft.Voter,
			Leader: s.ID == leader,
		})
	}
	slices.SortFunc(members, func(a, b Member) int { return strings.Compare(a.Record.Id, b.Record.Id) })
	return members
}

// Leader returns the metasrv leader as this member knows it; false while there is none. Its record lacks the
// client address until this member has applied what the leader published when it took over.
func (n *Node) Leader() (*storagepb.MemberRecord, bool) {
	addr, id := n.raft.LeaderWithID()
	if id == "" {
		return nil, false
	}
	return n.memberRecord(raft.Server{ID: id, Address: addr}), true
}

// ClusterID returns the id of the cluster, 0 while this member doesn't know it.
func (n *Node) ClusterID() uint64 { return machine.ClusterID(n.View()) }

func publishedMember(v state.View, id string) (*storagepb.MemberRecord, bool) {
	return machine.Member(v, id)
}

// publishMember keeps the record of this member in the replicated state, so that every member can tell clients
// where the metasrv leader is.
func (n *Node) publishMember(ctx context.Context) {
	ticker := time.NewTicker(publishInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		if record, ok := publishedMember(n.View(), n.cfg.MemberID); ok && proto.Equal(record, n.cfg.Member) {
			continue
		}
		addr, leader := n.raft.LeaderWithID()
		if leader == "" || string(leader) == n.cfg.MemberID {
			continue // LeaderEstablished publishes the record of a leader
		}
		request := &peerpb.Request{Request: &peerpb.Request_Publish{Publish: &peerpb.PublishRequest{Member: n.cfg.Member}}}
		if _, err := n.peers.ask(ctx, string(addr), request); err != nil && ctx.Err() == nil {
			n.log.Debug("the metasrv leader did not take this member's addresses", "error", err)
		}
	}
}

func (n *Node) servePeer(conn net.Conn) { servePeer(n.ctx, conn, n.answerPeer) }

// answerPeer answers another member.
func (n *Node) answerPeer(ctx context.Context, request *peerpb.Request) *peerpb.Response {
	select {
	case <-n.started:
	case <-ctx.Done():
		return &peerpb.Response{Error: "this member is stopping"}
	}
	switch r := request.Request.(type) {
	case *peerpb.Request_Term:
		return &peerpb.Response{Term: &peerpb.TermResponse{Term: n.raft.CurrentTerm()}}
	case *peerpb.Request_Publish:
		ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.PeerTimeout)
		defer cancel()
		if err := n.acceptMember(ctx, r.Publish.GetMember()); err != nil {
			return &peerpb.Response{Error: err.Error()}
		}
		return &peerpb.Response{}
	}
	return &peerpb.Response{Error: "this version of metasrv doesn't know the request"}
}

func (n *Node) acceptMember(ctx context.Context, member *storagepb.MemberRecord) error {
	_, err := n.Propose(ctx, state.Proposal{
		Kind:    storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER,
		Payload: &storagepb.PublishMember{Member: member},
	})
	return err
}

// Status describes this member.
type Status struct {
	Term         uint64
	AppliedIndex uint64
	FlushedIndex uint64
	Revision     uint64
	ImageBytes   int64
	// State is raft's: Leader, Follower, Candidate, Shutdown.
	State     string
	ClusterID uint64
	// LastContact is the time of the last message of the metasrv leader, zero on the leader itself.
	LastContact time.Time
}

// Status returns the present status of this member.
func (n *Node) Status() Status {
	a := n.fsm.current.Load()
	s := Status{
		Term:         n.raft.CurrentTerm(),
		AppliedIndex: a.index(),
		FlushedIndex: n.flusher.flushed.Load(),
		Revision:     a.view.Revision(),
		ImageBytes:   n.flusher.size.Load(),
		State:        n.raft.State().String(),
		ClusterID:    n.ClusterID(),
	}
	if s.State != raft.Leader.String() {
		s.LastContact = n.raft.LastContact()
	}
	return s
}
