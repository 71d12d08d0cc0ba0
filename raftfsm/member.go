package raftfsm

import (
	"context"
	"fmt"
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
func (n *Node) ClusterID() uint64 { return machine.ClusterID(&n.fsm.current) }

func (n *Node) publishedMember(id string) (*storagepb.MemberRecord, bool) {
	return machine.Member(&n.fsm.current, id)
}

// catchUpInterval is how often a member that has started looks whether it has caught up.
const catchUpInterval = 100 * time.Millisecond

// catchUp returns when this member's state has reached that which the metasrv leader had after the start.
func (n *Node) catchUp(ctx context.Context) {
	ticker := time.NewTicker(catchUpInterval)
	defer ticker.Stop()
	for goal := uint64(0); ; {
		if _, leads := n.Leadership(); leads || goal > 0 && n.fsm.current.index() >= goal {
			n.caughtUp.Store(true)
			return
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
		addr, leader := n.raft.LeaderWithID()
		if goal > 0 || leader == "" || string(leader) == n.cfg.MemberID {
			continue
		}
		if response, err := n.peers.ask(ctx, string(addr), n.termRequest(string(leader))); err == nil {
			goal = response.GetTerm().GetAppliedIndex()
		}
	}
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
		if record, ok := n.publishedMember(n.cfg.MemberID); ok && proto.Equal(record, n.cfg.Member) {
			continue
		}
		addr, leader := n.raft.LeaderWithID()
		if leader == "" || string(leader) == n.cfg.MemberID {
			continue // LeaderEstablished publishes the record of a leader
		}
		request := &peerpb.Request{Request: &peerpb.Request_Publish{Publish: &peerpb.PublishRequest{Member: n.cfg.Member}}}
		if _, err := n.peers.ask(ctx, string(addr), n.addressed(string(leader), request)); err != nil && ctx.Err() == nil {
			n.log.Debug("the metasrv leader did not take this member's addresses", "error", err)
		}
	}
}

func (n *Node) servePeer(conn net.Conn) { servePeer(n.ctx, conn, n.answerPeer) }

// answerPeer answers another member.
func (n *Node) answerPeer(ctx context.Context, request *peerpb.Request) *peerpb.Response {
	if r := request.GetHistory(); r != nil {
		// Also while raft doesn't run yet: members that start together ask each other.
		return &peerpb.Response{History: n.answerHistory(r)}
	}
	select {
	case <-n.started:
	case <-ctx.Done():
		return &peerpb.Response{Error: "this member is stopping"}
	}
	if err := n.isAddressed(request); err != nil {
		return &peerpb.Response{Error: err.Error()}
	}
	switch r := request.Request.(type) {
	case *peerpb.Request_Term:
		return &peerpb.Response{Term: &peerpb.TermResponse{
			Term: n.raft.CurrentTerm(), AppliedIndex: n.fsm.current.index(),
			HasSpace: n.disk.ample(), DiskLow: n.disk.space() != spaceEnough, DiskOut: n.disk.out(),
		}}
	case *peerpb.Request_Barrier:
		return n.answerBarrier(ctx)
	case *peerpb.Request_Hashes:
		return n.answerHashes()
	case *peerpb.Request_Join:
		ctx, cancel := context.WithTimeout(ctx, n.cfg.Timing.PeerTimeout)
		defer cancel()
		return &peerpb.Response{Join: n.answerJoin(ctx, r.Join)}
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

// acceptMember stores what another member says of itself. What a newer one says beyond this version is left out.
func (n *Node) acceptMember(ctx context.Context, member *storagepb.MemberRecord) error {
	known := &storagepb.MemberRecord{
		Id: member.GetId(), RaftAddr: member.GetRaftAddr(), GrpcAddr: member.GetGrpcAddr(),
		HttpAddr: member.GetHttpAddr(), Version: member.GetVersion(), CommandVersion: member.GetCommandVersion(),
	}
	if err := n.checkMember(known); err != nil {
		return err
	}
	isMember := func(s raft.Server) bool { return string(s.ID) == known.Id && string(s.Address) == known.RaftAddr }
	if !slices.ContainsFunc(n.configuration().Servers, isMember) {
		return fmt.Errorf("%q at %s is no member of this cluster", known.Id, known.RaftAddr)
	}
	_, err := n.Propose(ctx, state.Proposal{
		Kind:    storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER,
		Payload: &storagepb.PublishMember{Member: known},
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
	// ClusterVersion is the command version that every member knows, CommandVersion the highest that this one does.
	ClusterVersion, CommandVersion uint32
	// ComparedIndex is the latest index at which the state was found to be the same as another member's, 0 for none.
	ComparedIndex uint64
	// Split says how the members' states differ where no majority agrees on one and writes are refused.
	Split string
	// CaughtUp: since its start the state has reached that of the metasrv leader once.
	CaughtUp bool
	// Incarnation is the life of the cluster, 0 for its first.
	Incarnation uint64
	// Generation counts the lives of the cluster before this one.
	Generation uint64
	// Quarantined: the state was restored or recovered, and nobody has confirmed it yet.
	Quarantined bool
	// Waiting says what a member without data waits for, empty where it doesn't.
	Waiting string
	// ConfigurationIndex changes with every change of the members.
	ConfigurationIndex uint64
	// DiskFreeBytes are free on the disk of the data folder. DiskFull says why writes are refused for want of them,
	// nil where they aren't.
	DiskFreeBytes uint64
	DiskFull      error
	// DiskOut: nothing is written any more. A member that follows falls behind.
	DiskOut bool
	// FeedBytes are those of the changes that are remembered for watches, LogCacheBytes those of the LogCacheEntries that
	// are kept in memory beside the log.
	FeedBytes, LogCacheBytes, LogCacheEntries int
	// LastContact is the time of the last message of the metasrv leader, zero on the leader itself.
	LastContact time.Time
}

// Status returns the present status of this member.
func (n *Node) Status() Status {
	pos := n.fsm.current.position()
	s := Status{
		Term:           n.raft.CurrentTerm(),
		AppliedIndex:   pos.Index,
		FlushedIndex:   n.flusher.flushed.Load(),
		Revision:       pos.Revision,
		ImageBytes:     n.flusher.size.Load(),
		State:          n.raft.State().String(),
		ClusterID:      n.ClusterID(),
		ClusterVersion: pos.Version, CommandVersion: n.cfg.CommandVersion,
		ComparedIndex: n.compared.Load(), Split: n.Split(),
		CaughtUp: n.caughtUp.Load(),

		DiskFreeBytes: n.disk.bytes.Load(),
		DiskFull:      n.disk.full(spaceLow),
		DiskOut:       n.disk.out(),
	}
	_, s.FeedBytes = n.fsm.feed.Remembered()
	s.LogCacheEntries, s.LogCacheBytes = n.logCache.size()
	cluster := machine.Cluster(&n.fsm.current)
	s.Incarnation, s.Generation, s.Quarantined = cluster.GetIncarnation(), cluster.GetGeneration(), cluster.GetQuarantine() != nil
	s.ConfigurationIndex = n.ConfigurationIndex()
	if waiting := n.waiting.Load(); waiting != nil {
		s.Waiting = *waiting
	}
	if s.State != raft.Leader.String() {
		s.LastContact = n.raft.LastContact()
	}
	return s
}
