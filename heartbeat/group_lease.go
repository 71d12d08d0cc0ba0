package heartbeat

import (
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// GroupReport is what a node last said of itself in its group.
type GroupReport struct {
	// Leads: the node says that it is the writer. Nodes of the early public protocol say it without being elected.
	Leads bool
	// Epoch and Version are those that the node has taken in, 0 where it has said nothing of them.
	Epoch, Version uint64
	// LogEpoch and LogSequence are the end of its log.
	LogEpoch, LogSequence uint64
	// Followers are those of a writer. Shared: they must not be modified.
	Followers []*metasrvpb.ReplicaStat
}

// groupSide is a node's part in its group. It belongs to the node's mutex.
type groupSide struct {
	GroupReport
	// agreedEpoch is the epoch in which this process has once known the present version of the group.
	agreedEpoch uint64
	// withheld counts who keeps the node from being granted the lease of a writer.
	withheld int
	// proposed counts the changes of the in-sync set that are being proposed, lost those whose outcome nobody knows, and
	// settled those of the latter that can't be carried out any more, if they weren't.
	proposed, lost, settled int
	// news: the group has changed since the node was told of it.
	news bool
}

// take takes in what a request says.
func (g *groupSide) take(req *metasrvpb.HeartbeatRequest) GroupReport {
	said := req.GetGroup()
	g.GroupReport = GroupReport{
		Leads: req.GetIsLeader(), Epoch: said.GetEpoch(), Version: said.GetVersion(),
		LogEpoch: said.GetLogEpoch(), LogSequence: said.GetLogSequence(), Followers: req.GetReplicaStats(),
	}
	return g.GroupReport
}

// forget forgets what another process said. Whoever withholds goes on to, and what is under way remains so.
func (g *groupSide) forget() { g.GroupReport, g.agreedEpoch = GroupReport{}, 0 }

// WithholdWriter keeps a node from being granted the lease of a writer from now on, until ReleaseWriter, as Withhold does
// for a region. It returns when the last lease ends that the node may have.
func (t *Tracker) WithholdWriter(node metasrv.NodeID) time.Time {
	h := t.getOrAdd(node)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.group.withheld++
	return t.leaseEnd(h)
}

// ReleaseWriter takes back a WithholdWriter. The outcome of what was proposed meanwhile must be applied on this member: each
// grant rests on its present state.
func (t *Tracker) ReleaseWriter(node metasrv.NodeID) {
	h := t.getOrAdd(node)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.group.withheld--
	h.markGroup()
}

// markGroup has the node told of its group.
func (h *heard) markGroup() {
	h.group.news = true
	h.wake()
}

// groupNews says whether the group of a node has changed since the node was told of it.
func (t *Tracker) groupNews(s *stream) bool {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return s.node.group.news
}

// unsettled says whether a change of the in-sync set may yet be carried out that nobody knows the outcome of.
func (g *groupSide) unsettled() bool { return g.proposed > 0 || g.lost > g.settled }

// beginChange notes that a change of the in-sync set is about to be proposed. The function that it returns is told whether its
// outcome is known: then no change whose outcome was unknown before can be carried out behind it.
// ErrStreamReplaced, ErrStaleIncarnation: a later stream has taken over, which must find the note.
func (t *Tracker) beginChange(s *stream) (end func(known bool), err error) {
	h := s.node
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.counts(s); err != nil {
		return nil, err
	}
	h.group.proposed++
	before := h.group.lost
	return func(known bool) {
		h.mu.Lock()
		defer h.mu.Unlock()
		h.group.proposed--
		if known {
			h.group.settled = max(h.group.settled, before)
		} else {
			h.group.lost++
		}
	}, nil
}

// unsettled says whether the outcome of a change of the in-sync set that the node asked for is unknown.
func (t *Tracker) unsettled(s *stream) bool {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return s.node.group.unsettled()
}

// group tells a node of its group, and grants its writer a lease of a length, in one hold of the node's mutex: who takes the office away
// either comes before, and nothing is granted, or after, and sees how long the lease lasts (rule 17). The state must be that
// behind a barrier that began after the request arrived; the member's own may be newer. nil: the node is in no group, or the
// outcome of what it asked for is unknown.
func (t *Tracker) group(s *stream, viewer state.Viewer, behind state.View, b beat, lease time.Duration) (*metasrvpb.GroupStatus, error) {
	h := s.node
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.counts(s); err != nil {
		return nil, err
	}
	view := viewer.View()
	if behind.Revision() > view.Revision() {
		view = behind
	}
	record, err := t.records.one(view, s.id)
	if err != nil {
		return nil, err
	}
	if present := metasrv.Incarnation(record.Incarnation); present > s.incarnation {
		return nil, errStale(s.id, s.incarnation, present)
	}
	if record.GetInfo().GetGroup() == "" || h.group.unsettled() {
		h.group.news = false
		return nil, nil
	}
	g, err := Group(view, record.Info.Group)
	if err != nil {
		return nil, err
	}
	status := groupStatus(view, g)
	if t.grantsWriter(h, record, g, b) {
		status.LeaseMs = uint64(lease / time.Millisecond) //nolint:gosec // validated
		h.hold(b.arrived, lease)
	}
	h.group.news = false
	return status, nil
}

// grantsWriter says whether a request is answered with the lease of a writer. h.mu is held.
//
// A process that has once known the group's version in this epoch knows what it has asked for since; all else that changes
// the in-sync set without it makes the set smaller. One that has not may follow on one that asked for a growth.
func (t *Tracker) grantsWriter(h *heard, record *storagepb.NodeRecord, g *storagepb.GroupRecord, b beat) bool {
	if !canWrite(record) || !isWriter(g, record.Peer.Id) || h.group.withheld > 0 || !b.group.Leads || b.group.Epoch != g.Epoch {
		return false
	}
	if b.group.Version == g.Version {
		h.group.agreedEpoch = g.Epoch
	}
	return h.group.agreedEpoch == g.Epoch
}

// isWriter says whether a node is the one that may write.
func isWriter(g *storagepb.GroupRecord, node uint64) bool {
	return g.WriterNodeId == node && g.SuccessorNodeId == 0 && memberOf(g, node).GetInSync()
}

// groupStatus returns a group as its nodes are told of it, without a lease.
func groupStatus(v state.View, g *storagepb.GroupRecord) *metasrvpb.GroupStatus {
	peer := func(id uint64) *metasrvpb.Peer {
		return &metasrvpb.Peer{Id: id, Addr: Address(Value(v, metasrv.NodeID(id)))}
	}
	status := &metasrvpb.GroupStatus{Name: g.Name, Epoch: g.Epoch, Version: g.Version, HandingOver: g.SuccessorNodeId != 0}
	if g.WriterNodeId != 0 {
		status.Writer = peer(g.WriterNodeId)
	}
	for _, m := range g.Members {
		status.Members = append(status.Members, &metasrvpb.GroupMember{Peer: peer(m.NodeId), InSync: m.InSync})
	}
	return status
}
