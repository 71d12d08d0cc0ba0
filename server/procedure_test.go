package server

import (
	"context"
	"slices"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func migrate(region, from, to uint64) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_MigrateRegion{
		MigrateRegion: &metasrvpb.MigrateRegion{RegionId: region, FromNodeId: from, ToNodeId: to},
	}}
}

func transfer(region, to uint64) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_TransferRegionLeader{
		TransferRegionLeader: &metasrvpb.TransferRegionLeader{RegionId: region, ToNodeId: to},
	}}
}

func add(region, node uint64) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_AddRegionReplica{
		AddRegionReplica: &metasrvpb.AddRegionReplica{RegionId: region, NodeId: node},
	}}
}

func remove(region, node uint64) *metasrvpb.StartProcedureRequest {
	return &metasrvpb.StartProcedureRequest{Procedure: &metasrvpb.StartProcedureRequest_RemoveRegionReplica{
		RemoveRegionReplica: &metasrvpb.RemoveRegionReplica{RegionId: region, NodeId: node},
	}}
}

const done = metasrvpb.ProcedureState_PROCEDURE_STATE_DONE

// others returns the nodes but some, of n.
func others(n uint64, but ...uint64) []uint64 {
	var list []uint64
	for id := uint64(1); id <= n; id++ {
		if !slices.Contains(but, id) {
			list = append(list, id)
		}
	}
	return list
}

func TestProcedureKinds(t *testing.T) {
	c := newSimCluster(t, startLeader(t, simulated), 4)
	region := c.createTable("t", 1, 2)[0]
	settle := func(what string, leader uint64, nodes ...uint64) {
		t.Helper()
		slices.Sort(nodes)
		var got simRegion
		for range 3 { // the first looks may come before the nodes know
			eventually(t, what, func() bool {
				got = c.look(region)
				return got.holding
			})
		}
		if got.leader != leader || !slices.Equal(got.inSync, nodes) || len(got.others) != 0 {
			t.Fatalf("%s: region is %+v, want leader %d, in sync %v", what, got, leader, nodes)
		}
	}
	was := c.look(region)
	a, b := was.leader, others(4, was.leader, others(4, was.inSync...)[0], others(4, was.inSync...)[1])[0]
	free := others(4, a, b)

	if p := c.ended(c.mustRun(transfer(region, b)).GetProcedureId()); p.GetState() != done {
		t.Fatalf("transfer: %v", p)
	}
	settle("transferred", b, a, b)
	if p := c.ended(c.mustRun(migrate(region, b, free[0])).GetProcedureId()); p.GetState() != done {
		t.Fatalf("migration of the leader: %v", p)
	}
	settle("the leader migrated", free[0], a, free[0])
	if p := c.ended(c.mustRun(migrate(region, a, 0)).GetProcedureId()); p.GetState() != done {
		t.Fatalf("migration of a follower: %v", p)
	}
	got := c.look(region)
	if got.leader != free[0] || slices.Contains(got.inSync, a) || len(got.inSync) != 2 {
		t.Fatalf("the follower migrated: %+v", got)
	}
	third := others(4, got.inSync...)[0]
	if p := c.ended(c.mustRun(add(region, third)).GetProcedureId()); p.GetState() != done {
		t.Fatalf("addition: %v", p)
	}
	settle("added", free[0], append(got.inSync, third)...)
	if p := c.ended(c.mustRun(remove(region, free[0])).GetProcedureId()); p.GetState() != done {
		t.Fatalf("removal of the leader: %v", p)
	}
	if got := c.look(region); slices.Contains(got.inSync, free[0]) || len(got.inSync) != 2 {
		t.Fatalf("removed: %+v", got)
	}
}

// stopAfter stops the driver where a procedure has just come to a step, until the metasrv leader's term ends or resume is
// called. reached tells that it is there.
func (m *testMemberServer) stopAfter(step metasrvpb.ProcedureStep) (reached <-chan struct{}, resume func()) {
	at, going := make(chan struct{}), make(chan struct{})
	var once sync.Once
	m.node.hook(func(ctx context.Context, p state.Proposal) {
		cmd, is := p.Payload.(*storagepb.StepProcedure)
		if !is || cmd.Step != step || cmd.Version == 0 {
			return
		}
		once.Do(func() {
			close(at)
			select {
			case <-ctx.Done():
			case <-going:
			}
		})
	})
	return at, sync.OnceFunc(func() { close(going) })
}

// handedOver are the steps that a migration of a region leader comes to, but for the first one.
var handedOver = []metasrvpb.ProcedureStep{
	metasrvpb.ProcedureStep_PROCEDURE_STEP_CATCH_UP,
	metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE,
	metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_DEMOTION,
	metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION,
	metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE,
}

func wait(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-timeout(t).Done():
		t.Fatal(what)
	}
}

// Whatever step the metasrv leader has just done when its term ends, the next one goes on behind it.
func TestProcedureGoesOnUnderAnotherLeader(t *testing.T) {
	for _, step := range handedOver {
		t.Run(stepName(step), func(t *testing.T) {
			m := startLeader(t, simulated)
			c := newSimCluster(t, m, 3)
			region := c.createTable("t", 1, 2)[0]
			was := c.look(region)
			to := others(3, was.inSync...)[0]
			reached, _ := m.stopAfter(step)
			p := c.mustRun(migrate(region, was.leader, to))
			wait(t, "the step", reached)
			m.node.follow(otherMember())
			m.lead(t)
			if got := c.ended(p.GetProcedureId()); got.GetState() != done || got.GetAttempts() != 0 {
				t.Errorf("the procedure ended as %v", got)
			}
			if got := c.look(region); got.leader != to || slices.Contains(got.inSync, was.leader) || len(got.inSync) != 2 || len(got.others) > 0 {
				t.Errorf("the region is %+v, was %+v", got, was)
			}
			eventually(t, "the new leader has a lease", func() bool { return c.look(region).holding })
			eventually(t, "the old replica is dropped", func() bool { return !c.has(was.leader, region) })
		})
	}
}

func (c *simCluster) has(node, region uint64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes[node].replicas[region] != nil
}

func (c *simCluster) cancel(id uint64) error {
	c.t.Helper()
	_, err := c.m.cluster().CancelProcedure(timeout(c.t), &metasrvpb.CancelProcedureRequest{ProcedureId: id, Reason: "never mind"})
	return err
}

// Whatever step a procedure is at, it takes back what it did, also under another metasrv leader; when the region has its new
// leader, it can't be cancelled any more.
func TestProcedureIsCancelled(t *testing.T) {
	for _, step := range handedOver {
		t.Run(stepName(step), func(t *testing.T) {
			m := startLeader(t, simulated)
			c := newSimCluster(t, m, 3)
			region := c.createTable("t", 1, 2)[0]
			was := c.look(region)
			to := others(3, was.inSync...)[0]
			reached, resume := m.stopAfter(step)
			defer resume()
			p := c.mustRun(migrate(region, was.leader, to))
			wait(t, "the step", reached)
			err := c.cancel(p.GetProcedureId())
			if step == metasrvpb.ProcedureStep_PROCEDURE_STEP_AWAIT_PROMOTION || step == metasrvpb.ProcedureStep_PROCEDURE_STEP_REMOVE {
				wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "PROCEDURE_ENDED"})
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			m.node.follow(otherMember())
			m.lead(t)
			got := c.ended(p.GetProcedureId())
			if got.GetState() != metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED || got.GetError() != "never mind" {
				t.Errorf("the procedure ended as %v", got)
			}
			if got := c.look(region); got.leader != was.leader || !slices.Equal(got.inSync, was.inSync) || len(got.others) > 0 {
				t.Errorf("the region is %+v, was %+v", got, was)
			}
			eventually(t, "the region leader has a lease", func() bool { return c.look(region).holding })
			eventually(t, "the new replica is dropped", func() bool { return !c.has(to, region) })
		})
	}
}

// A region leader that doesn't hear of its demotion stops when its lease has ended, and not before is another one elected:
// the simulated nodes fail the test where two have leases at the same time.
func TestProcedureWaitsForTheLease(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 2)
	region := c.createTable("t", 1, 2)[0]
	was := c.look(region)
	eventually(t, "a lease", func() bool { return c.look(region).holding })
	c.nodes[was.leader].change(func(n *simNode) { n.stubborn = true })
	to := others(2, was.leader)[0]
	if p := c.ended(c.mustRun(transfer(region, to)).GetProcedureId()); p.GetState() != done {
		t.Fatalf("the procedure ended as %v", p)
	}
	eventually(t, "the new leader has a lease", func() bool {
		r := c.look(region)
		return r.leader == to && r.holding
	})
}

// Where failover is faster, a migration goes on from what it finds.
func TestProcedureLosesToFailover(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 3)
	region := c.createTable("t", 1, 2)[0]
	was := c.look(region)
	from, other := was.leader, others(3, append(others(3, was.inSync...), was.leader)...)[0]
	to := others(3, was.inSync...)[0]
	reached, resume := m.stopAfter(metasrvpb.ProcedureStep_PROCEDURE_STEP_DEMOTE)
	defer resume()
	p := c.mustRun(migrate(region, from, to))
	wait(t, "the step", reached)
	c.elect(region, other)
	resume()
	if got := c.ended(p.GetProcedureId()); got.GetState() != done {
		t.Errorf("the procedure ended as %v", got)
	}
	want := []uint64{other, to}
	slices.Sort(want)
	if got := c.look(region); got.leader != other || !slices.Equal(got.inSync, want) {
		t.Errorf("the region is %+v, want leader %d and %v", got, other, want)
	}
}

// elect has a replica elected as failover would, without asking anybody.
func (c *simCluster) elect(region, node uint64) {
	c.t.Helper()
	info := c.region(region)
	change := &storagepb.RegionChange{RegionId: region, LeaderEpoch: info.GetLeaderEpoch(), ConfVersion: info.GetConfVersion()}
	for _, r := range info.GetReplicas() {
		if r.GetPeer().GetId() == node {
			change.Change = &storagepb.RegionChange_Elect{Elect: &storagepb.ElectReplica{ReplicaId: r.GetReplicaId()}}
		}
	}
	c.mu.Lock()
	delete(c.leases, region) // who led is taken to have failed
	c.mu.Unlock()
	if _, err := c.m.node.Node.Propose(c.t.Context(), state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS, Payload: &storagepb.ChangeRegions{Changes: []*storagepb.RegionChange{change}},
	}); err != nil {
		c.t.Fatal(err)
	}
}

// Two procedures never work on one region; the one that comes later is told of the other.
func TestProceduresConflict(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 3)
	region := c.createTable("t", 1, 2)[0]
	was := c.look(region)
	to := others(3, was.inSync...)[0]
	c.nodes[to].change(func(n *simNode) { n.slow = true })
	p := c.mustRun(migrate(region, was.leader, to))
	_, err := c.run(transfer(region, 0))
	wantRefusal(t, err, refusal{Code: codes.FailedPrecondition, Reason: "PROCEDURE_CONFLICT"})
	if s := status.Convert(err).Message(); !strings.Contains(s, "procedure 1 (migrate region 1024/0") || !strings.Contains(s, "metactl procedure cancel 1") {
		t.Errorf("the message is %q", s)
	}
	eventually(t, "what it waits for is shown", func() bool {
		got := c.procedure(p.GetProcedureId())
		return strings.Contains(got.GetWaitingFor(), "to catch up") && got.GetStepTimeoutMs() > 0 && got.GetExpectedEndMs() > 0
	})
	info, err := m.cluster().GetRegion(timeout(t), &metasrvpb.GetRegionRequest{RegionId: region})
	if err != nil || info.GetProcedure().GetProcedureId() != p.GetProcedureId() {
		t.Errorf("the region shows %v, %v", info.GetProcedure(), err)
	}
	if err := c.cancel(p.GetProcedureId()); err != nil {
		t.Fatal(err)
	}
	c.ended(p.GetProcedureId())
	if p := c.ended(c.mustRun(transfer(region, 0)).GetProcedureId()); p.GetState() != done {
		t.Errorf("when the other has ended: %v", p)
	}
}

func TestDroppingTheTableCancels(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 3)
	region := c.createTable("t", 1, 2)[0]
	was := c.look(region)
	to := others(3, was.inSync...)[0]
	c.nodes[to].change(func(n *simNode) { n.slow = true })
	p := c.mustRun(migrate(region, was.leader, to))
	if _, err := m.router().Delete(timeout(t), &metasrvpb.DeleteRequest{TableName: tableName("t")}); err != nil {
		t.Fatal(err)
	}
	got := c.ended(p.GetProcedureId())
	if got.GetState() != metasrvpb.ProcedureState_PROCEDURE_STATE_CANCELLED || got.GetError() != "the table was dropped" {
		t.Errorf("the procedure ended as %v", got)
	}
	eventually(t, "all replicas are dropped", func() bool { return !c.has(to, region) && !c.has(was.leader, region) })
}

func TestProcedureRefusals(t *testing.T) {
	m := startLeader(t, simulated)
	c := newSimCluster(t, m, 2)
	c.createTable("t", 1, 2)
	m.addDatanode(t, 9) // keeps no leases
	const region = 1024 << 32
	was := c.look(region)
	follower := others(2, was.leader)[0]
	failed := codes.FailedPrecondition
	for _, test := range []struct {
		name string
		req  *metasrvpb.StartProcedureRequest
		want refusal
	}{
		{"nothing", &metasrvpb.StartProcedureRequest{}, invalid("procedure")},
		{"unknown region", migrate(region+5, 0, 0), refusal{Code: codes.NotFound, Reason: "REGION_NOT_FOUND"}},
		{"unknown node", migrate(region, 0, 77), refusal{Code: codes.NotFound, Reason: "NODE_NOT_FOUND"}},
		{"not from there", migrate(region, 9, 0), refusal{Code: codes.NotFound, Reason: "REPLICA_NOT_FOUND"}},
		{"a node that has one", migrate(region, was.leader, follower), refusal{Code: codes.AlreadyExists, Reason: "REPLICA_ALREADY_EXISTS"}},
		{"a node without leases", add(region, 9), refusal{Code: failed, Reason: "NODE_KEEPS_NO_LEASE"}},
		{"no node left", add(region, 0), refusal{Code: failed, Reason: "TOO_FEW_DATANODES"}},
		{"leads already", transfer(region, was.leader), refusal{Code: failed, Reason: "REPLICA_LEADS"}},
		{"no replica there", transfer(region, 9), refusal{Code: codes.NotFound, Reason: "REPLICA_NOT_FOUND"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, err := c.run(test.req)
			wantRefusal(t, err, test.want)
		})
	}
	if p := c.ended(c.mustRun(remove(region, follower)).GetProcedureId()); p.GetState() != done {
		t.Fatalf("removal: %v", p)
	}
	_, err := c.run(remove(region, was.leader))
	wantRefusal(t, err, refusal{Code: failed, Reason: "LAST_REPLICA"})
	_, err = c.run(transfer(region, 0))
	wantRefusal(t, err, refusal{Code: failed, Reason: "REPLICA_NOT_IN_SYNC"})
	wantRefusal(t, c.cancel(99), refusal{Code: codes.NotFound, Reason: "PROCEDURE_NOT_FOUND"})
	wantRefusal(t, c.cancel(1), refusal{Code: failed, Reason: "PROCEDURE_ENDED"})
}
