package heartbeat

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// dropEverything wants every reported replica dropped.
func dropEverything(_ state.View, _ metasrv.NodeID, report []ReportedReplica) (drop []*metasrvpb.DropRegion, _ []*storagepb.DroppedReplica) {
	for _, r := range report {
		drop = append(drop, &metasrvpb.DropRegion{
			RegionId: uint64(r.Region), ReplicaId: uint64(r.Replica), LeaderEpoch: r.LeaderEpoch, ConfVersion: r.ConfVersion,
		})
	}
	return drop, nil
}

// confirmOne finds one replica gone as long as no confirmation was applied.
func confirmOne(v state.View, _ metasrv.NodeID, _ []ReportedReplica) ([]*metasrvpb.DropRegion, []*storagepb.DroppedReplica) {
	if _, done := v.Get("table/confirmed"); done {
		return nil, nil
	}
	return nil, []*storagepb.DroppedReplica{{RegionId: 3, ReplicaId: 4}}
}

func report(sequence uint64, stats []*metasrvpb.RegionStat) *metasrvpb.HeartbeatRequest {
	req := firstBeat(1, 1)
	req.Sequence, req.RegionStats = sequence, stats
	return req
}

func decodeDrops(t *testing.T, resp *metasrvpb.HeartbeatResponse) []*metasrvpb.DropRegion {
	t.Helper()
	var drops []*metasrvpb.DropRegion
	for _, payload := range resp.Payload {
		instruction := &metasrvpb.Instruction{}
		if err := proto.Unmarshal(payload, instruction); err != nil {
			t.Fatal(err)
		}
		drops = append(drops, instruction.GetDropRegion())
	}
	return drops
}

// TestDropsAreRepeated: an instruction comes with every beat until the report no longer shows the replica.
func TestDropsAreRepeated(t *testing.T) {
	c := newCluster(t)
	c.plan = dropEverything
	s := c.session(t)
	stats := regionStats(2)
	want, _ := dropEverything(nil, 1, []ReportedReplica{
		{Region: metasrv.RegionID(stats[0].RegionId), Replica: 1, LeaderEpoch: 1, ConfVersion: 1},
		{Region: metasrv.RegionID(stats[1].RegionId), Replica: 2, LeaderEpoch: 1, ConfVersion: 1},
	})
	for sequence := range uint64(3) {
		resp := mustBeat(t, s, report(sequence+1, stats))
		if diff := cmp.Diff(want, decodeDrops(t, resp), protocmp.Transform()); diff != "" {
			t.Fatalf("beat %d:\n%s", sequence+1, diff)
		}
	}
	if c.barriers != 3 {
		t.Errorf("%d barriers for 3 decisions", c.barriers)
	}
	if resp := mustBeat(t, s, report(4, nil)); len(resp.Payload) != 0 {
		t.Errorf("instructions go on: %v", resp.Payload)
	}
}

// TestBarrierDecides: what the local state says is only a reason to ask.
func TestBarrierDecides(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	mustBeat(t, s, firstBeat(1, 1))
	// A state that this member has not reached, with the create that names the replica.
	ahead := memory.New(NewApplier())
	for id := range uint64(5) {
		if _, err := registerCommand(t, ahead, &storagepb.RegisterNode{Peer: peer(id + 1), Info: info(id)}); err != nil {
			t.Fatal(err)
		}
	}
	c.barrier = ahead.Barrier
	local := c.View().Revision()
	c.plan = func(v state.View, id metasrv.NodeID, r []ReportedReplica) ([]*metasrvpb.DropRegion, []*storagepb.DroppedReplica) {
		if v.Revision() > local {
			return nil, nil
		}
		drop, _ := dropEverything(v, id, r)
		return drop, []*storagepb.DroppedReplica{{RegionId: 3, ReplicaId: 4}}
	}
	resp := mustBeat(t, s, report(2, regionStats(2)))
	if len(resp.Payload) != 0 || len(c.proposed) != 1 || c.barriers != 1 {
		t.Errorf("decided by the local state: %v, proposed %v, %d barriers", resp, c.proposed, c.barriers)
	}
}

func TestConfirmation(t *testing.T) {
	c := newCluster(t)
	c.plan = confirmOne
	s := c.session(t)
	mustBeat(t, s, report(1, nil))
	want := &storagepb.ConfirmDropped{NodeId: 1, Incarnation: 1, Replicas: []*storagepb.DroppedReplica{{RegionId: 3, ReplicaId: 4}}}
	if len(c.confirmer.applied) != 1 || !proto.Equal(c.confirmer.applied[0], want) {
		t.Fatalf("applied %v, want %v", c.confirmer.applied, want)
	}
	if got := c.proposed[1].PlannedTerm; got != 1 {
		t.Errorf("planned in term %d", got)
	}
	mustBeat(t, s, report(2, nil))
	if len(c.confirmer.applied) != 1 {
		t.Error("confirmed twice")
	}
}

// TestConfirmationOfAnotherTerm: what was planned before the leadership was lost and won again is refused.
func TestConfirmationOfAnotherTerm(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	mustBeat(t, s, report(1, nil))
	c.plan = confirmOne
	c.SetTerm(3)
	if _, err := s.HandleBeat(t.Context(), report(2, regionStats(1))); !errors.Is(err, metasrv.ErrStaleTerm) {
		t.Errorf("got %v", err)
	}
	if len(c.confirmer.applied) != 0 {
		t.Errorf("applied %v", c.confirmer.applied)
	}
}

func TestOnlyFullReportsOfDatanodesCount(t *testing.T) {
	for name, change := range map[string]func(*metasrvpb.HeartbeatRequest){
		"partial":  func(req *metasrvpb.HeartbeatRequest) { req.FullReport = false },
		"frontend": func(req *metasrvpb.HeartbeatRequest) { req.Node.Role = metasrvpb.NodeRole_NODE_ROLE_FRONTEND },
	} {
		c := newCluster(t)
		c.plan = dropEverything
		req := report(1, regionStats(2))
		change(req)
		if resp := mustBeat(t, c.session(t), req); len(resp.Payload) != 0 || len(c.planned) != 0 {
			t.Errorf("%s: %v", name, resp)
		}
	}
}

// TestUnchangedReportIsNotComparedAgain, unless it or the state changes.
func TestUnchangedReportIsNotComparedAgain(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	other := c.session(t)
	for i, step := range []struct {
		stats   []*metasrvpb.RegionStat
		change  bool
		planned int
	}{
		{regionStats(3), false, 1},
		{regionStats(3), false, 1},
		{regionStats(4), false, 2},
		{regionStats(4), true, 3},
		{regionStats(4), false, 3},
	} {
		if step.change {
			req := firstBeat(2, 1)
			req.FullReport = false
			mustBeat(t, other, req)
		}
		mustBeat(t, s, report(uint64(i+1), step.stats))
		if len(c.planned) != step.planned {
			t.Errorf("step %d: compared %d times, want %d", i, len(c.planned), step.planned)
		}
	}
	if c.barriers != 0 {
		t.Errorf("%d barriers for nothing", c.barriers)
	}
}

// TestPlanVersion: with it, writes that the planner doesn't read cost no comparison.
func TestPlanVersion(t *testing.T) {
	c := newCluster(t)
	version := uint64(1)
	c.version = func() uint64 { return version }
	s := c.session(t)
	mustBeat(t, s, report(1, regionStats(3)))
	mustBeat(t, c.session(t), &metasrvpb.HeartbeatRequest{Peer: peer(2), Node: info(2), Sequence: 1})
	mustBeat(t, s, report(2, regionStats(3)))
	if len(c.planned) != 1 {
		t.Errorf("compared %d times", len(c.planned))
	}
	version++
	c.plan = dropEverything
	if resp := mustBeat(t, s, report(3, regionStats(3))); len(resp.Payload) != 3 {
		t.Errorf("%v", resp)
	}
}

func TestFailingBarrier(t *testing.T) {
	c := newCluster(t)
	c.plan = dropEverything
	s := c.session(t)
	c.barrier = func(context.Context) (state.View, error) { return nil, metasrv.ErrNotReady }
	if resp := mustBeat(t, s, report(1, regionStats(2))); len(resp.Payload) != 0 {
		t.Errorf("instructions without a barrier: %v", resp)
	}
	c.barrier = nil
	if resp := mustBeat(t, s, report(2, regionStats(2))); len(resp.Payload) != 2 {
		t.Errorf("not decided later: %v", resp)
	}
	c.barrier = func(context.Context) (state.View, error) { return nil, metasrv.ErrNotLeader }
	if _, err := s.HandleBeat(t.Context(), report(3, regionStats(2))); !errors.Is(err, metasrv.ErrNotLeader) {
		t.Errorf("the stream goes on without leadership: %v", err)
	}
}

// TestHangingBarrier: the node is answered nevertheless, and counts as heard.
func TestHangingBarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.plan = dropEverything
		c.barrier = func(ctx context.Context) (state.View, error) {
			<-ctx.Done()
			return nil, metasrv.ErrNotReady.With("%v", ctx.Err())
		}
		began := time.Now()
		resp := mustBeat(t, c.session(t), report(1, regionStats(2)))
		if took := time.Since(began); took != time.Second || len(resp.Payload) != 0 {
			t.Errorf("answered after %v: %v", took, resp)
		}
		if nodes, err := c.tracker.Nodes(c.View(), time.Now()); err != nil || nodes[0].State != live {
			t.Errorf("%v, %v", nodes, err)
		}
	})
}

func TestInstructionsAreBounded(t *testing.T) {
	c := newCluster(t)
	c.plan = dropEverything
	if resp := mustBeat(t, c.session(t), report(1, regionStats(maxInstructions+10))); len(resp.Payload) != maxInstructions {
		t.Errorf("%d instructions", len(resp.Payload))
	}
}
