package heartbeat

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// GroupMember is what the metasrv leader knows of a node of a group.
type GroupMember struct {
	ID     metasrv.NodeID
	InSync bool
	// Registered: the fields below are known.
	Registered  bool
	Incarnation metasrv.Incarnation
	// CanWrite: the node writes only under a lease, so it can be elected.
	CanWrite bool
	State    metasrvpb.NodeState
	// Draining: the node is to be emptied, so it is elected only where nobody else can be.
	Draining bool
	// Silence is the time since the last beat, or, where none has come in this term, since the metasrv leader took over.
	Silence time.Duration
	Report  GroupReport
}

func (m GroupMember) live() bool {
	return m.Registered && m.CanWrite && m.State == metasrvpb.NodeState_NODE_STATE_LIVE
}

// GroupPlan is what a group lacks: somebody to be elected, or nothing.
type GroupPlan struct {
	// Elect is to be made the writer, 0 for nobody.
	Elect       metasrv.NodeID
	Incarnation metasrv.Incarnation
	// Failed: the present writer has failed.
	Failed bool
	// Reason says why, for people.
	Reason string
	// Problem says why nobody can be elected who should, for people.
	Problem string
}

// GroupView is a group as the metasrv leader sees it at a moment.
type GroupView struct {
	Group *storagepb.GroupRecord
	// Members are those of the record, in its order.
	Members []GroupMember
	// Leased: the last lease that the writer may have has not ended.
	Leased bool
	// Known is for how long this metasrv leader has known the group: a new one waits for nodes to say who they are.
	Known time.Duration
	// Paused says why nobody is to be elected in place of a writer that has failed, for people; empty where nothing keeps it.
	Paused string
}

// Plan says who is to be elected the writer of a group.
func (v GroupView) Plan(c Config) GroupPlan {
	g := v.Group
	p := groupPlanner{Config: c, group: g, members: v.Members, leased: v.Leased, paused: v.Paused}
	switch {
	case g.Epoch == 0:
		return p.first(v.Known)
	case g.SuccessorNodeId != 0:
		return p.handOver()
	}
	return p.replace()
}

type groupPlanner struct {
	Config
	group   *storagepb.GroupRecord
	members []GroupMember
	leased  bool
	paused  string
}

// member returns a member, the zero one where the node has left the group.
func (p groupPlanner) member(id uint64) GroupMember {
	if i := slices.IndexFunc(p.members, func(m GroupMember) bool { return uint64(m.ID) == id }); i >= 0 {
		return p.members[i]
	}
	return GroupMember{}
}

// first elects the first writer of a group. Nobody knows who is in sync yet: a node that says it is the writer has come to
// be so before the group knew metasrv; without one the most advanced is taken, when all have had the time to say so.
func (p groupPlanner) first(known time.Duration) GroupPlan {
	chosen, ok := p.choose(func(m GroupMember) bool { return true })
	switch {
	case !ok:
		return GroupPlan{Problem: p.nobody("has no writer yet")}
	case !chosen.Report.Leads && known < firstElectionBeats*p.Interval:
		return GroupPlan{}
	}
	return GroupPlan{Elect: chosen.ID, Incarnation: chosen.Incarnation, Reason: "the group had no writer"}
}

// firstElectionBeats is for how many beats the first election waits.
const firstElectionBeats = 3

// handOver ends what was planned: the successor takes over once the writer has stopped or its lease has ended. Where the
// successor can't, the writer goes on under another epoch.
func (p groupPlanner) handOver() GroupPlan {
	writer, successor := p.member(p.group.WriterNodeId), p.member(p.group.SuccessorNodeId)
	if !successor.live() || !successor.InSync || successor.ID == writer.ID {
		if successor.InSync && successor.Registered && successor.CanWrite && !p.silent(successor) && successor.ID != writer.ID {
			return GroupPlan{} // a new metasrv leader has not heard it yet
		}
		if writer.live() && writer.InSync {
			return GroupPlan{
				Elect: writer.ID, Incarnation: writer.Incarnation,
				Reason: fmt.Sprintf("node %d can't take over, node %d goes on", p.group.SuccessorNodeId, writer.ID),
			}
		}
		return p.replace()
	}
	if p.leased && !p.stopped(writer) {
		return GroupPlan{}
	}
	return GroupPlan{
		Elect: successor.ID, Incarnation: successor.Incarnation, Failed: !p.stopped(writer) && p.silent(writer),
		Reason: fmt.Sprintf("node %d hands over", p.group.WriterNodeId),
	}
}

// stopped says whether the writer has said, knowing that it is to hand over, that it writes no more.
func (p groupPlanner) stopped(writer GroupMember) bool {
	r := writer.Report
	return writer.Registered && !r.Leads && r.Epoch == p.group.Epoch && r.Version >= p.group.Version
}

// replace elects another writer where the present one has failed and its lease has ended (rule 17).
func (p groupPlanner) replace() GroupPlan {
	writer := p.member(p.group.WriterNodeId)
	why := ""
	switch {
	case writer.ID == 0:
		why = fmt.Sprintf("its writer, node %d, has left it", p.group.WriterNodeId)
	case writer.Registered && !writer.CanWrite:
		return GroupPlan{Problem: fmt.Sprintf("its writer, node %d, keeps no leases any more: nobody can take over from it", writer.ID)}
	case !writer.InSync:
		why = fmt.Sprintf("its writer, node %d, came back with other storage", writer.ID)
	case !writer.Registered:
		why = fmt.Sprintf("its writer, node %d, is not registered any more", writer.ID)
	case p.silent(writer):
		why = fmt.Sprintf("its writer, node %d, sends no heartbeats", writer.ID)
	default:
		return GroupPlan{}
	}
	switch {
	case p.leased:
		return GroupPlan{}
	case p.paused != "":
		return GroupPlan{Problem: why + ", and nobody is elected by metasrv itself: " + p.paused}
	}
	chosen, ok := p.choose(func(m GroupMember) bool { return m.InSync && m.ID != writer.ID })
	if !ok {
		return GroupPlan{Problem: p.nobody(why)}
	}
	return GroupPlan{Elect: chosen.ID, Incarnation: chosen.Incarnation, Failed: writer.ID != 0, Reason: why}
}

// silent says whether a node has not been heard for a lease. Under a new metasrv leader it has had its chance to connect.
func (p groupPlanner) silent(m GroupMember) bool {
	return m.Silence > max(p.heldFor(), firstElectionBeats*p.Interval)
}

// choose returns the live member to elect among those that may be: the most advanced, then the one with the lowest id. In the
// first election one that says it is the writer already goes before all others.
func (p groupPlanner) choose(may func(GroupMember) bool) (GroupMember, bool) {
	var candidates []GroupMember
	for _, m := range p.members {
		if m.live() && may(m) {
			candidates = append(candidates, m)
		}
	}
	if len(candidates) == 0 {
		return GroupMember{}, false
	}
	return slices.MinFunc(candidates, func(a, b GroupMember) int {
		return cmp.Or(
			-compareBools(p.group.Epoch == 0 && a.Report.Leads, p.group.Epoch == 0 && b.Report.Leads),
			compareBools(a.Draining, b.Draining),
			-cmp.Compare(a.Report.LogEpoch, b.Report.LogEpoch), -cmp.Compare(a.Report.LogSequence, b.Report.LogSequence),
			cmp.Compare(a.ID, b.ID),
		)
	}), true
}

func compareBools(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	}
	return -1
}

// nobody returns the problem that nobody can be elected.
func (p groupPlanner) nobody(why string) string {
	if p.group.Epoch == 0 {
		return why + ", and none of its nodes is live and keeps leases"
	}
	return why + ", and none of the others that are in sync is live and keeps leases"
}

// GroupView returns a group as it is at now, but for Known.
func (t *Tracker) GroupView(v state.View, g *storagepb.GroupRecord, now time.Time) (GroupView, error) {
	view := GroupView{Group: g, Leased: g.WriterNodeId != 0 && now.Before(t.LeaseEnd(metasrv.NodeID(g.WriterNodeId)))}
	for _, m := range g.Members {
		member := GroupMember{ID: metasrv.NodeID(m.NodeId), InSync: m.InSync, Silence: now.Sub(t.started)}
		status, err := t.Node(v, member.ID, now)
		switch {
		case errors.Is(err, metasrv.ErrNodeNotFound):
		case err != nil:
			return GroupView{}, err
		default:
			member.Registered, member.CanWrite = true, canWrite(status.Record)
			member.Incarnation = metasrv.Incarnation(status.Record.GetIncarnation())
			member.State, member.Report = status.State, status.Group
			member.Draining = status.Record.GetDrain() != metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED
			if status.Heard {
				member.Silence = status.Age
			}
		}
		view.Members = append(view.Members, member)
	}
	return view, nil
}

// Status returns the group as it is shown, without lease_ms.
func (v GroupView) Status(view state.View) *metasrvpb.GroupStatus { return groupStatus(view, v.Group) }

// Writing says whether the writer has said that it writes under the present epoch.
func (v GroupView) Writing() bool {
	for _, m := range v.Members {
		if uint64(m.ID) == v.Group.WriterNodeId {
			return m.Report.Leads && m.Report.Epoch == v.Group.Epoch
		}
	}
	return false
}
