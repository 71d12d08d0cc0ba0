package heartbeat

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	nodeLive = metasrvpb.NodeState_NODE_STATE_LIVE
	nodeDown = metasrvpb.NodeState_NODE_STATE_DOWN
)

// three are nodes 1, 2 and 3, live and in sync, with logs of the same length.
func three(change ...func(m []GroupMember)) []GroupMember {
	var members []GroupMember
	for id := range metasrv.NodeID(3) {
		members = append(members, GroupMember{
			ID: id + 1, InSync: true, Registered: true, Incarnation: metasrv.Incarnation(10 + id + 1), CanWrite: true, State: nodeLive,
			Report: GroupReport{Epoch: 4, Version: 9, LogEpoch: 4, LogSequence: 50},
		})
	}
	members[0].Report.Leads = true
	for _, c := range change {
		c(members)
	}
	return members
}

func silent(at int) func([]GroupMember) {
	return func(m []GroupMember) { m[at].Silence, m[at].State = held+time.Millisecond, nodeDown }
}

func TestGroupPlan(t *testing.T) {
	for name, test := range map[string]struct {
		group   *storagepb.GroupRecord // its epoch is 4, its writer node 1 unless it says otherwise
		members []GroupMember
		leased  bool
		paused  string
		known   time.Duration
		elect   metasrv.NodeID
		failed  bool
		problem string
	}{
		"all is well":                  {members: three()},
		"silent, still leads":          {members: three(silent(0)), leased: true},
		"silent for less":              {members: three(func(m []GroupMember) { m[0].Silence = held })},
		"failed":                       {members: three(silent(0)), elect: 2, failed: true},
		"failed, in maintenance":       {members: three(silent(0)), paused: "disks", problem: "disks"},
		"handing over, in maintenance": {group: &storagepb.GroupRecord{SuccessorNodeId: 3}, members: three(), paused: "disks", elect: 3},
		"most advanced":                {members: three(silent(0), func(m []GroupMember) { m[2].Report.LogSequence++ }), elect: 3, failed: true},
		"later epoch, shorter log": {members: three(silent(0), func(m []GroupMember) {
			m[1].Report.LogSequence, m[2].Report.LogEpoch, m[2].Report.LogSequence = 99, 5, 1
		}), elect: 3, failed: true},
		"not in sync": {members: three(silent(0), func(m []GroupMember) { m[1].InSync = false }), elect: 3, failed: true},
		"not live":    {members: three(silent(0), silent(1)), elect: 3, failed: true},
		"keeps no leases": {
			members: three(silent(0), func(m []GroupMember) { m[1].CanWrite = false }), elect: 3, failed: true,
		},
		"claims don't count": {members: three(silent(0), func(m []GroupMember) { m[2].Report.Leads = true }), elect: 2, failed: true},
		"nobody is left": {
			members: three(silent(0), silent(1), func(m []GroupMember) { m[2].InSync = false }), problem: "none of the others that are in sync",
		},
		"writer keeps no leases any more": {
			members: three(silent(0), func(m []GroupMember) { m[0].CanWrite = false }), problem: "nobody can take over",
		},
		"writer lost its storage":                   {members: three(func(m []GroupMember) { m[0].InSync = false }), elect: 2, failed: true},
		"writer lost its storage, leased":           {members: three(func(m []GroupMember) { m[0].InSync = false }), leased: true},
		"writer was removed":                        {members: three(func(m []GroupMember) { m[0] = GroupMember{ID: 1, InSync: true} }), elect: 2, failed: true},
		"writer has left":                           {members: three()[1:], elect: 2},
		"writer has left, leased":                   {members: three()[1:], leased: true},
		"handing over":                              {group: &storagepb.GroupRecord{SuccessorNodeId: 3}, members: three(), leased: true},
		"handing over, lease ended":                 {group: &storagepb.GroupRecord{SuccessorNodeId: 3}, members: three(), elect: 3},
		"handing over, writer failed":               {group: &storagepb.GroupRecord{SuccessorNodeId: 3}, members: three(silent(0)), elect: 3, failed: true},
		"handing over, successor is down":           {group: &storagepb.GroupRecord{SuccessorNodeId: 3}, members: three(silent(2)), leased: true, elect: 1},
		"handing over, successor was not heard yet": {group: &storagepb.GroupRecord{SuccessorNodeId: 3}, members: three(func(m []GroupMember) { m[2].State = metasrvpb.NodeState_NODE_STATE_UNKNOWN }), leased: true},
		"handing over, both are down":               {group: &storagepb.GroupRecord{SuccessorNodeId: 3}, members: three(silent(0), silent(2)), elect: 2, failed: true},
		"handing over, successor has left":          {group: &storagepb.GroupRecord{SuccessorNodeId: 1}, members: three()[:2], leased: true, elect: 1},
		"handing over, successor lost data":         {group: &storagepb.GroupRecord{SuccessorNodeId: 3}, members: three(func(m []GroupMember) { m[2].InSync = false }), leased: true, elect: 1},
		"handing over, writer has stopped": {
			group: &storagepb.GroupRecord{SuccessorNodeId: 3}, members: three(func(m []GroupMember) { m[0].Report.Leads = false }), leased: true, elect: 3,
		},
		"handing over, writer had stopped before it knew": {
			group: &storagepb.GroupRecord{SuccessorNodeId: 3}, leased: true,
			members: three(func(m []GroupMember) { m[0].Report.Leads, m[0].Report.Version = false, 8 }),
		},
		"first, one says it is the writer": {
			group: &storagepb.GroupRecord{Epoch: 0}, members: three(func(m []GroupMember) { m[0].Report.Leads, m[2].Report.Leads = false, true }), elect: 3,
		},
		"first, too early": {group: &storagepb.GroupRecord{Epoch: 0}, members: three(func(m []GroupMember) { m[0].Report.Leads = false }), known: 2 * time.Second},
		"first": {
			group: &storagepb.GroupRecord{Epoch: 0}, known: 3 * time.Second, elect: 2,
			members: three(func(m []GroupMember) { m[0].Report.Leads, m[1].Report.LogSequence, m[1].InSync = false, 51, false }),
		},
		"first, nobody can": {
			group: &storagepb.GroupRecord{Epoch: 0}, members: three(silent(0), silent(1), silent(2)), known: time.Minute, problem: "no writer yet",
		},
	} {
		t.Run(name, func(t *testing.T) {
			g := test.group
			if g == nil {
				g = &storagepb.GroupRecord{}
			}
			if !strings.HasPrefix(name, "first") {
				g.Epoch, g.WriterNodeId = 4, 1
			}
			g.Version = 9
			plan := GroupView{Group: g, Members: test.members, Leased: test.leased, Known: test.known, Paused: test.paused}.Plan(DefaultConfig())
			if plan.Elect != test.elect || plan.Failed != test.failed || test.problem == "" && plan.Problem != "" || !strings.Contains(plan.Problem, test.problem) {
				t.Fatalf("planned %+v", plan)
			}
			if plan.Elect != 0 && (plan.Incarnation != metasrv.Incarnation(10+plan.Elect) || plan.Reason == "") {
				t.Errorf("planned %+v", plan)
			}
		})
	}
}

// Rules 5, 17: a dead writer is replaced when its lease has ended, not before, also under a new metasrv leader.
func TestDeadWriterIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, nodes := elected(t)
		wantGrant(t, nodes[0].beat(1, 4, true), true)
		wantGrant(t, nodes[0].beat(1, 4, true, 2), true)
		hold := func(e *Elections) string {
			if err := e.Hold(t.Context(), c.Node.View(), ""); err != nil {
				t.Fatal(err)
			}
			return shape(t, c.Node.View())
		}
		const before, after = "e1 v5 w1 s0: 1* 2* 3", "e2 v6 w2 s0: 1 2* 3"
		e := NewElections(c.tracker, c, slog.New(slog.DiscardHandler))
		time.Sleep(held)
		nodes[1].beat(1, 5, false)
		if got := hold(e); got != before {
			t.Fatalf("%s, before the lease has ended", got)
		}
		// Another metasrv leader doesn't know what was granted, nor who is there.
		c.lead(t, 2)
		c.SetTerm(2)
		e = NewElections(c.tracker, c, slog.New(slog.DiscardHandler))
		nodes[1] = c.groupNode(t, 2)
		for range 30 {
			if got := hold(e); got != before {
				t.Fatalf("%s, before its lease may have ended", got)
			}
			time.Sleep(held / 30)
		}
		nodes[1].beat(1, 5, false)
		time.Sleep(time.Millisecond)
		if got := hold(e); got != after {
			t.Fatalf("%s, want %s", got, after)
		}
		// The old one comes back, and learns that it is one no longer.
		nodes[0] = &groupNode{t: t, s: c.session(t), id: 1, nonce: 1}
		status := nodes[0].beat(1, 5, true, 2, 3)
		wantGrant(t, status, false)
		if status.GetWriter().GetId() != 2 || hold(e) != after {
			t.Errorf("told %v", status)
		}
	})
}

// Rule 17: a beat that arrives between the plan and the mark gives the writer a lease, which is seen then.
func TestElectionLooksAgainAtTheLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, nodes := elected(t)
		wantGrant(t, nodes[0].beat(1, 4, true), true)
		wantGrant(t, nodes[0].beat(1, 4, true, 2), true)
		time.Sleep(held + time.Millisecond)
		nodes[1].beat(1, 5, false)
		e := NewElections(c.tracker, c, slog.New(slog.DiscardHandler))
		stale := c.Node.View()
		// The plan is made of a state in which the writer is silent; its beat comes before it is marked.
		e.planned = func() { nodes[0].beat(1, 5, true, 2) }
		if err := e.Hold(t.Context(), stale, ""); err != nil {
			t.Fatal(err)
		}
		if got := shape(t, c.Node.View()); got != "e1 v5 w1 s0: 1* 2* 3" {
			t.Fatal(got)
		}
		wantGrant(t, nodes[0].beat(1, 5, true, 2), true) // the mark is gone
	})
}

// Rule 17: until the outcome of an election is known, the writer that it deposes gets no lease.
func TestNoLeaseDuringAnElection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, nodes := elected(t)
		wantGrant(t, nodes[0].beat(1, 4, true), true)
		wantGrant(t, nodes[0].beat(1, 4, true, 2), true)
		time.Sleep(held + time.Millisecond)
		nodes[1].beat(1, 5, false)
		e := NewElections(c.tracker, c, slog.New(slog.DiscardHandler))
		outcome := metasrv.ErrOutcomeUnknown
		c.propose = func(state.Proposal) error {
			wantGrant(t, nodes[0].beat(1, 5, true, 2), false)
			return outcome
		}
		if err := e.Hold(t.Context(), c.Node.View(), ""); err != nil {
			t.Fatal(err)
		}
		wantGrant(t, nodes[0].beat(1, 5, true, 2), false)
		// It was not carried out, and something else was, so that it can't be any more.
		c.propose = nil
		if _, err := change(t, c, handing(5, 2)); err != nil {
			t.Fatal(err)
		}
		if _, err := change(t, c, electing(6, 1)); err != nil {
			t.Fatal(err)
		}
		if err := e.Hold(t.Context(), c.Node.View(), ""); err != nil {
			t.Fatal(err)
		}
		wantGrant(t, nodes[0].beat(2, 7, true, 2), true)
	})
}
