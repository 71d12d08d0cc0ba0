package procedure_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	running     = metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING
	rollingBack = metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK
	done        = metasrvpb.ProcedureState_PROCEDURE_STATE_DONE
	failed      = metasrvpb.ProcedureState_PROCEDURE_STATE_FAILED
	cancelled   = metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED

	migrate  = metasrvpb.ProcedureKind_PROCEDURE_KIND_MIGRATE_REGION
	transfer = metasrvpb.ProcedureKind_PROCEDURE_KIND_TRANSFER_LEADER
	add      = metasrvpb.ProcedureKind_PROCEDURE_KIND_ADD_REPLICA
	remove   = metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_REPLICA

	atAdd       = metasrvpb.ProcedureStep_PROCEDURE_STEP_ADD
	atCatchUp   = metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP
	atDemote    = metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE
	atDemotion  = metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_DEMOTION
	atPromotion = metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION
	atRemove    = metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE
	atUndo      = metasrvpb.ProcedureStep_PROCEDURE_STEP_UNDO
)

// seen is a view that tests change. Its region has replica 1 on node 1, which leads, replica 2 on node 2, in sync, and
// replica 3 on node 3, which the procedure has added and is in sync. Nodes 1 to 4 are live.
type seen struct {
	region    *storagepb.RegionRecord
	nodes     map[metasrv.NodeID]procedure.Node
	reports   map[uint64]procedure.Report
	lost      map[uint64]bool
	leaseOver bool
	now       state.LeaderTime
}

func view() *seen {
	s := &seen{
		region: &storagepb.RegionRecord{
			RegionId: 1024 << 32, LeaderEpoch: 5, ConfVersion: 9, LeaderReplicaId: 1,
			Replicas: []*storagepb.ReplicaRecord{
				{ReplicaId: 1, NodeId: 1, InSync: true}, {ReplicaId: 2, NodeId: 2, InSync: true}, {ReplicaId: 3, NodeId: 3, InSync: true},
			},
		},
		nodes: map[metasrv.NodeID]procedure.Node{}, reports: map[uint64]procedure.Report{}, lost: map[uint64]bool{},
	}
	for id := metasrv.NodeID(1); id <= 4; id++ {
		s.nodes[id] = procedure.Node{Registered: true, Live: true, Incarnation: metasrv.Incarnation(id)}
	}
	return s
}

func (s *seen) view() procedure.View {
	return procedure.View{
		Region: s.region, Now: s.now, LeaseOver: s.leaseOver, Limits: procedure.DefaultLimits(3 * time.Second),
		Node:   func(id metasrv.NodeID) procedure.Node { return s.nodes[id] },
		Report: func(r *storagepb.ReplicaRecord) procedure.Report { return s.reports[r.ReplicaId] },
		Lost:   func(r *storagepb.ReplicaRecord) bool { return s.lost[r.ReplicaId] },
	}
}

func (s *seen) down(id metasrv.NodeID)   { s.nodes[id] = procedure.Node{Registered: true, Down: true} }
func (s *seen) silent(id metasrv.NodeID) { s.nodes[id] = procedure.Node{Registered: true} }
func (s *seen) unheard(id metasrv.NodeID) {
	s.nodes[id] = procedure.Node{Registered: true, Unheard: true}
}
func (s *seen) leads(replica uint64) { s.region.LeaderReplicaId = replica }
func (s *seen) learner()             { s.region.Replicas[2].InSync, s.region.Replicas[2].Learner = false, true }
func (s *seen) gone(i int) {
	s.region.Replicas = append(s.region.Replicas[:i:i], s.region.Replicas[i+1:]...)
}
func (s *seen) demoted() {
	s.region.Demoting = true
	s.reports[s.region.LeaderReplicaId] = procedure.Report{Reported: true, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, LeaderEpoch: 5, Demoted: true}
}

// describe says in one line what a decision is.
func describe(d procedure.Decision) string {
	if d.Step == nil {
		return "wait: " + d.Waiting
	}
	var s []string
	if c := d.Step.Change; c != nil {
		switch c := c.Change.(type) {
		case *storagepb.RegionChange_AddReplica:
			s = append(s, fmt.Sprintf("add on %d", c.AddReplica.NodeId))
		case *storagepb.RegionChange_BeginDemotion:
			s = append(s, "demote")
		case *storagepb.RegionChange_Elect:
			s = append(s, fmt.Sprintf("elect %d", c.Elect.ReplicaId))
		case *storagepb.RegionChange_RemoveReplica:
			s = append(s, fmt.Sprintf("remove %d", c.RemoveReplica.ReplicaId))
		}
	}
	switch name := strings.TrimPrefix(d.Step.State.String(), "PROCEDURE_STATE_"); d.Step.State {
	case running:
		s = append(s, strings.TrimPrefix(d.Step.Step.String(), "PROCEDURE_STEP_"))
	default:
		s = append(s, name)
	}
	if d.Step.TargetReplicaId != 0 {
		s = append(s, fmt.Sprintf("with %d", d.Step.TargetReplicaId))
	}
	if d.Step.Error != "" {
		s = append(s, "("+d.Step.Error+")")
	}
	return strings.Join(s, ", ")
}

func TestPlan(t *testing.T) {
	set := func(changes ...func(*seen)) []func(*seen) { return changes }
	for _, test := range []struct {
		name string
		kind metasrvpb.ProcedureKind
		step metasrvpb.ProcedureStep
		see  []func(*seen)
		want string
	}{
		{"a table that is gone", migrate, atCatchUp, set(func(s *seen) { s.region = nil }), "CANCELLED, (the table was dropped)"},
		{"added", migrate, atAdd, set(func(s *seen) { s.gone(2) }), "add on 3, CATCH_UP"},
		{"there already", migrate, atAdd, nil, "ROLLING_BACK, (node 3 has replica 3 of the region already)"},
		{"not on a node that is drained", migrate, atAdd, set(func(s *seen) { s.gone(2); s.nodes[3] = procedure.Node{Registered: true, Live: true, Draining: true} }),
			"ROLLING_BACK, (node 3 gets no replicas: it is being drained, or was)"},
		{"not before the node is there", add, atAdd, set(func(s *seen) { s.gone(2); s.silent(3) }), "wait: node 3 to send heartbeats"},
		{"not on a node that was removed", add, atAdd, set(func(s *seen) { s.gone(2); delete(s.nodes, 3) }), "ROLLING_BACK, (node 3 is not registered)"},
		{"not while the leadership moves", add, atAdd, set(func(s *seen) { s.gone(2); s.region.Demoting = true }),
			"wait: the region to have a leader, which feeds the new replica"},

		{"not made yet", add, atCatchUp, set((*seen).learner), "wait: node 3 to make the new replica"},
		{"not caught up yet", add, atCatchUp, set((*seen).learner, func(s *seen) { s.reports[3] = procedure.Report{Reported: true} }),
			"wait: the new replica on node 3 to catch up"},
		{"in sync", add, atCatchUp, nil, "DONE"},
		{"in sync, the old one leads", migrate, atCatchUp, nil, "DEMOTE"},
		{"in sync, the old one follows", migrate, atCatchUp, set(func(s *seen) { s.leads(2) }), "REMOVE"},
		{"its node is down", add, atCatchUp, set((*seen).learner, func(s *seen) { s.down(3) }), "ROLLING_BACK, (node 3 is down)"},
		{"its node is not heard yet", add, atCatchUp, set((*seen).learner, func(s *seen) { s.unheard(3) }), "wait: node 3 to make the new replica"},
		{"its node lost it", add, atCatchUp, set(func(s *seen) { s.lost[3] = true }), "ROLLING_BACK, (node 3 came back with other storage: the new replica is lost)"},
		{"somebody removed it", add, atCatchUp, set(func(s *seen) { s.gone(2) }), "ROLLING_BACK, (the new replica 3 was removed by someone else)"},

		{"demotes", migrate, atDemote, nil, "demote, AWAIT_DEMOTION"},
		{"failover elected the target", migrate, atDemote, set(func(s *seen) { s.leads(3) }), "AWAIT_PROMOTION"},
		{"failover elected another one", migrate, atDemote, set(func(s *seen) { s.leads(2) }), "REMOVE"},
		{"failover elected another one, of a transfer", transfer, atDemote, set(func(s *seen) { s.leads(2) }), "demote, AWAIT_DEMOTION"},
		{"the target fell out of the set", migrate, atDemote, set((*seen).learner),
			"CATCH_UP, (replica 3 on node 3 is not in sync: it fell out of the in-sync set again)"},
		{"the target of a transfer did", transfer, atDemote, set((*seen).learner), "ROLLING_BACK, (replica 3 on node 3 is not in sync)"},
		{"the target's node is silent", migrate, atDemote, set(func(s *seen) { s.silent(3) }), "wait: node 3 to send heartbeats"},
		{"the target's node is down", migrate, atDemote, set(func(s *seen) { s.down(3) }), "ROLLING_BACK, (node 3 sends no heartbeats)"},

		{"not before the leader stopped", migrate, atDemotion, set(func(s *seen) { s.region.Demoting = true }),
			"wait: the region leader to stop, at the latest when its lease ends"},
		{"a demotion of an earlier epoch says nothing", migrate, atDemotion, set((*seen).demoted, func(s *seen) { s.region.LeaderEpoch = 6 }),
			"wait: the region leader to stop, at the latest when its lease ends"},
		{"it stopped", migrate, atDemotion, set((*seen).demoted), "elect 3, AWAIT_PROMOTION"},
		{"its lease is over", transfer, atDemotion, set(func(s *seen) { s.region.Demoting, s.leaseOver = true, true }), "elect 3, AWAIT_PROMOTION"},
		{"the target is silent: the old one goes on", migrate, atDemotion, set((*seen).demoted, func(s *seen) { s.silent(3) }),
			"ROLLING_BACK, (node 3 sends no heartbeats)"},
		{"a new metasrv leader hasn't heard the target", migrate, atDemotion, set((*seen).demoted, func(s *seen) { s.unheard(3) }),
			"wait: the new metasrv leader to hear from node 3"},
		{"failover ended the demotion", migrate, atDemotion, set(func(s *seen) { s.leads(2) }), "DEMOTE, (replica 2 was elected meanwhile)"},

		{"not before it leads", migrate, atPromotion, set(func(s *seen) { s.leads(3) }), "wait: node 3 to lead the region"},
		{"it leads", migrate, atPromotion, set(func(s *seen) {
			s.leads(3)
			s.reports[3] = procedure.Report{Reported: true, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, LeaderEpoch: 5}
		}), "REMOVE"},
		{"failover took it away", migrate, atPromotion, nil, "DEMOTE, (replica 1 was elected meanwhile)"},

		{"the old one goes", migrate, atRemove, set(func(s *seen) { s.leads(3) }), "remove 1, DONE"},
		{"not while the leader is silent", migrate, atRemove, set(func(s *seen) { s.leads(2); s.silent(2) }),
			"wait: the region to have a leader that is there, which node 2 is not: an in-sync replica is removed only then"},
		{"a follower, while the leader is lost", remove, atRemove, set(func(s *seen) { s.leads(2); s.lost[2] = true }),
			"wait: the region to have a leader that is there, which node 2 is not: an in-sync replica is removed only then"},
		{"what is lost goes at once", remove, atRemove, set(func(s *seen) { s.leads(2); s.silent(2); s.lost[1] = true }), "remove 1, DONE"},
		{"what is not in sync, too", remove, atRemove, set(func(s *seen) { s.leads(2); s.silent(2); s.region.Replicas[0].InSync = false }), "remove 1, DONE"},
		{"it is gone", migrate, atRemove, set(func(s *seen) { s.leads(3); s.gone(0) }), "DONE"},
		{"not while the new one is not in sync", migrate, atRemove, set((*seen).learner, func(s *seen) { s.leads(2) }),
			"CATCH_UP, (the new replica is not in sync any more)"},
		{"not while it leads", migrate, atRemove, nil, "DEMOTE, with 3"},
		{"another one takes over", remove, atRemove, set(func(s *seen) { s.down(3) }), "DEMOTE, with 2"},
		{"rather one that stays", remove, atRemove, set(func(s *seen) {
			s.region.Replicas[2].InSync = true
			s.nodes[2] = procedure.Node{Registered: true, Live: true, Draining: true}
			s.down(3)
			s.region.Replicas = append(s.region.Replicas, &storagepb.ReplicaRecord{ReplicaId: 4, NodeId: 4, InSync: true})
		}), "DEMOTE, with 4"},
		{"nobody can take over", remove, atRemove, set(func(s *seen) { s.down(2); s.down(3) }),
			"ROLLING_BACK, (no other replica of the region can lead it: none is in sync on a live node)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := view()
			for _, f := range test.see {
				f(s)
			}
			d := procedure.Plan(record(test.kind, running, test.step), s.view())
			if got := describe(d); got != test.want {
				t.Errorf("decided %s\nwant    %s", got, test.want)
			}
			checkChange(t, s, d)
		})
	}
}

// checkChange checks that a change names the region as it was seen.
func checkChange(t *testing.T, s *seen, d procedure.Decision) {
	t.Helper()
	c := d.Step.GetChange()
	if c != nil && (c.RegionId != s.region.RegionId || c.LeaderEpoch != s.region.LeaderEpoch || c.ConfVersion != s.region.ConfVersion) {
		t.Errorf("the change is of (%d, %d, %d), the region is %v", c.RegionId, c.LeaderEpoch, c.ConfVersion, s.region)
	}
	if d.Step != nil && (d.Step.Id != 7 || d.Step.Version != 4) {
		t.Errorf("the step is of procedure %d, version %d", d.Step.Id, d.Step.Version)
	}
}

func record(kind metasrvpb.ProcedureKind, s metasrvpb.ProcedureState, step metasrvpb.ProcedureStep) *storagepb.ProcedureRecord {
	return &storagepb.ProcedureRecord{
		Id: 7, Version: 4, State: s, Step: step, TargetReplicaId: 3, StepSinceMs: 1000, StepTimeoutMs: 5000,
		Spec: &storagepb.ProcedureSpec{Kind: kind, RegionId: 1024 << 32, NodeId: 1, ReplicaId: 1, TargetNodeId: 3},
	}
}

// What was done is taken back from wherever it is, step by step, until the region is as it was.
func TestUndo(t *testing.T) {
	for _, test := range []struct {
		name string
		kind metasrvpb.ProcedureKind
		see  func(*seen)
		want string
	}{
		{"nothing was added", migrate, func(s *seen) { s.gone(2) }, "FAILED"},
		{"a learner", migrate, (*seen).learner, "remove 3, FAILED"},
		{"an in-sync replica", add, func(*seen) {}, "remove 3, FAILED"},
		{"an in-sync replica, while the leader is silent", add, func(s *seen) { s.silent(1) },
			"wait: the region to have a leader that is there, which node 1 is not: an in-sync replica is removed only then"},
		{"a learner, while the leader is silent", migrate, func(s *seen) { s.learner(); s.silent(1) }, "remove 3, FAILED"},
		{"a demotion", migrate, func(s *seen) { s.region.Demoting = true }, "elect 1, ROLLING_BACK"},
		{"a demotion of a transfer", transfer, func(s *seen) { s.region.Demoting = true }, "elect 1, ROLLING_BACK"},
		{"a transfer leaves the replica", transfer, func(*seen) {}, "FAILED"},
		{"the new one leads", migrate, func(s *seen) { s.leads(3) }, "demote, ROLLING_BACK"},
		{"the new one is to stop", migrate, func(s *seen) { s.leads(3); s.region.Demoting = true }, "wait: node 3 to stop, at the latest when its lease ends"},
		{"the new one stopped", migrate, func(s *seen) { s.leads(3); s.demoted() }, "elect 1, ROLLING_BACK"},
		{"the new one leads and the old one is gone", migrate, func(s *seen) { s.leads(3); s.gone(0) }, "FAILED"},
		{"the old one is silent while the new one is to stop", migrate, func(s *seen) { s.leads(3); s.region.Demoting = true; s.silent(1) }, "elect 3, ROLLING_BACK"},
		{"the old one is not heard yet", migrate, func(s *seen) { s.leads(3); s.unheard(1) }, "wait: the new metasrv leader to hear from node 1"},
		{"the table is gone", migrate, func(s *seen) { s.region = nil }, "CANCELLED, (the table was dropped)"},
	} {
		t.Run(test.name, func(t *testing.T) {
			s := view()
			test.see(s)
			r := record(test.kind, rollingBack, atUndo)
			r.Attempts = 1000 // never given up
			s.now = 1 << 40
			d := procedure.Plan(r, s.view())
			if got := describe(d); got != test.want {
				t.Errorf("decided %s\nwant    %s", got, test.want)
			}
			checkChange(t, s, d)
			r.Cancelled = true
			if d := procedure.Plan(r, s.view()); d.Step.GetState() == failed {
				t.Error("a cancelled procedure ends as failed")
			}
		})
	}
}

func TestLimits(t *testing.T) {
	s := view()
	s.region.Demoting = true
	r := record(migrate, running, atDemotion)
	s.now = state.LeaderTime(r.StepSinceMs + r.StepTimeoutMs)
	if d := procedure.Plan(r, s.view()); d.Step != nil {
		t.Errorf("at the end of its time: %s", describe(d))
	}
	s.now++
	want := "ROLLING_BACK, (gave up after 5s of waiting for the region leader to stop, at the latest when its lease ends)"
	if got := describe(procedure.Plan(r, s.view())); got != want {
		t.Errorf("after its time: %s", got)
	}
	s.leaseOver = true
	if got := describe(procedure.Plan(r, s.view())); got != "elect 3, AWAIT_PROMOTION" {
		t.Errorf("what can go on goes on: %s", got)
	}
	s = view()
	s.leads(2)
	r = record(migrate, running, atDemotion)
	r.Attempts = 10
	if d := procedure.Plan(r, s.view()); d.Step.State != rollingBack {
		t.Errorf("after 10 attempts: %s", describe(d))
	}
	r = record(migrate, running, atAdd)
	if d := procedure.Refused(r, s.view(), metasrv.ErrNodeKeepsNoLease.With("no")); d.Step.State != running || d.Step.Step != atAdd || d.Step.Error != "no" {
		t.Errorf("a refusal: %s", describe(d))
	}
	r.Attempts = 10
	if d := procedure.Refused(r, s.view(), metasrv.ErrNodeKeepsNoLease.With("no")); d.Step.State != rollingBack {
		t.Errorf("the last refusal: %s", describe(d))
	}
	r = record(migrate, rollingBack, atUndo)
	r.Attempts = 10
	if d := procedure.Refused(r, s.view(), metasrv.ErrReplicaLost.With("no")); d.Step.State != rollingBack || d.Step.Step != atUndo {
		t.Errorf("a refusal while it rolls back: %s", describe(d))
	}
}

// Plan is pure: it changes nothing that it is given.
func TestPlanChangesNothing(t *testing.T) {
	for _, step := range []metasrvpb.ProcedureStep{atAdd, atCatchUp, atDemote, atDemotion, atPromotion, atRemove} {
		s, r := view(), record(migrate, running, step)
		region, before := proto.CloneOf(s.region), proto.CloneOf(r)
		procedure.Plan(r, s.view())
		if !proto.Equal(region, s.region) || !proto.Equal(before, r) {
			t.Errorf("planning at %s changed what it saw", step)
		}
	}
}
