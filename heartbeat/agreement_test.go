package heartbeat

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// dropEverything wants every reported replica dropped.
func dropEverything(_ state.View, _ Reporter, _ metasrv.TableID, report []RegionReport) (Agreement, error) {
	a := Agreement{Standings: make([]Standing, len(report))}
	for _, r := range report {
		a.Instructions = append(a.Instructions, &metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_DropRegion{DropRegion: &metasrvpb.DropRegion{
			RegionId: uint64(r.Region), ReplicaId: uint64(r.Replica), LeaderEpoch: r.LeaderEpoch, ConfVersion: r.ConfVersion,
		}}})
	}
	return a, nil
}

// confirmOne finds one replica gone as long as no confirmation was applied.
func confirmOne(v state.View, _ Reporter, _ metasrv.TableID, report []RegionReport) (Agreement, error) {
	a := Agreement{Standings: make([]Standing, len(report))}
	if _, done := v.Get("table/confirmed"); !done {
		a.Gone = []*storagepb.DroppedReplica{{RegionId: 3, ReplicaId: 4}}
	}
	return a, nil
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
	c.rules.agree = dropEverything
	s := c.session(t)
	stats := regionStats(2)
	want := []*metasrvpb.DropRegion{
		{RegionId: stats[0].RegionId, ReplicaId: 1, LeaderEpoch: 1, ConfVersion: 1},
		{RegionId: stats[1].RegionId, ReplicaId: 2, LeaderEpoch: 1, ConfVersion: 1},
	}
	for sequence := range uint64(3) {
		resp := mustBeat(t, s, report(sequence+1, stats))
		if diff := cmp.Diff(want, decodeDrops(t, resp), protocmp.Transform()); diff != "" {
			t.Fatalf("beat %d:\n%s", sequence+1, diff)
		}
	}
	if len(c.rules.judged) != 1 {
		t.Errorf("what didn't change was judged %d times", len(c.rules.judged))
	}
	if resp := mustBeat(t, s, report(4, nil)); len(resp.Payload) != 0 {
		t.Errorf("instructions go on: %v", resp.Payload)
	}
}

// TestBarrierDecides: what the local state says before the barrier counts for nothing.
func TestBarrierDecides(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	mustBeat(t, s, firstBeat(1, 1))
	local := c.View().Revision()
	// The barrier finds that the member is behind: the create that names the replicas comes with it.
	c.barrier = func(ctx context.Context) (state.View, error) {
		c.set(t, elect(metasrv.NewRegionID(1024, 0), 1, 1, 1))
		return c.Node.Barrier(ctx)
	}
	c.rules.agree = func(v state.View, by Reporter, id metasrv.TableID, r []RegionReport) (Agreement, error) {
		if v.Revision() > local {
			return leadingAll(r), nil
		}
		return dropEverything(v, by, id, r)
	}
	resp := mustBeat(t, s, report(2, regionStats(2)))
	if len(resp.Payload) != 0 {
		t.Errorf("decided by the state before the barrier: %v", resp)
	}
}

func TestConfirmation(t *testing.T) {
	c := newCluster(t)
	c.rules.agree = confirmOne
	c.set(t, elect(metasrv.NewRegionID(1024, 0), 1, 1, 1))
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

// TestConfirmationIsTriedAgain where the first one failed, although nothing has changed.
func TestConfirmationIsTriedAgain(t *testing.T) {
	c := newCluster(t)
	c.rules.agree = confirmOne
	c.set(t, elect(metasrv.NewRegionID(1024, 0), 1, 1, 1))
	s := c.session(t)
	mustBeat(t, s, firstBeat(1, 1))
	c.confirmer.applied = nil
	c.rules.agree = func(_ state.View, _ Reporter, _ metasrv.TableID, _ []RegionReport) (Agreement, error) {
		return Agreement{Gone: []*storagepb.DroppedReplica{{RegionId: 3, ReplicaId: 4}}}, nil
	}
	c.set(t, elect(metasrv.NewRegionID(1024, 0), 1, 1, 2))
	for sequence := range uint64(3) {
		mustBeat(t, s, report(sequence+2, nil))
	}
	if len(c.confirmer.applied) != 3 {
		t.Errorf("confirmed %d times in 3 beats that found it unconfirmed", len(c.confirmer.applied))
	}
}

// TestWhatWaitsIsJudgedAgain with each beat, although neither the report nor a table has changed.
func TestWhatWaitsIsJudgedAgain(t *testing.T) {
	c := newCluster(t)
	c.rules.agree = func(_ state.View, _ Reporter, _ metasrv.TableID, report []RegionReport) (Agreement, error) {
		return Agreement{Standings: make([]Standing, len(report)), Waits: true}, nil
	}
	s := c.session(t)
	stats := regionStats(1)
	for sequence := range uint64(2) {
		if drops := decodeDrops(t, mustBeat(t, s, report(sequence+1, stats))); len(drops) != 0 {
			t.Errorf("beat %d: told to drop %v", sequence+1, drops)
		}
	}
	c.rules.agree = dropEverything
	if drops := decodeDrops(t, mustBeat(t, s, report(3, stats))); len(drops) != 1 {
		t.Errorf("told to drop %v once nothing waits, want one replica", drops)
	}
}

// TestConfirmationOfAnotherTerm: what was planned before the leadership was lost and won again is refused.
func TestConfirmationOfAnotherTerm(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	mustBeat(t, s, report(1, nil))
	c.rules.agree = confirmOne
	c.SetTerm(3)
	if _, err := s.HandleBeat(t.Context(), report(2, regionStats(1))); !errors.Is(err, metasrv.ErrStaleTerm) {
		t.Errorf("got %v", err)
	}
	if len(c.confirmer.applied) != 0 {
		t.Errorf("applied %v", c.confirmer.applied)
	}
}

func TestOnlyCompleteReportsOfDatanodesCount(t *testing.T) {
	for name, change := range map[string]func(*metasrvpb.HeartbeatRequest){
		"partial":        func(req *metasrvpb.HeartbeatRequest) { req.FullReport = false },
		"another digest": func(req *metasrvpb.HeartbeatRequest) { req.Digest = proto.Uint64(1) },
		"frontend":       func(req *metasrvpb.HeartbeatRequest) { req.Node.Role = metasrvpb.NodeRole_NODE_ROLE_FRONTEND },
	} {
		c := newCluster(t)
		c.rules.agree = dropEverything
		req := report(1, regionStats(2))
		change(req)
		if resp := mustBeat(t, c.session(t), req); len(resp.Payload) != 0 || len(c.rules.judged) != 0 {
			t.Errorf("%s: %v", name, resp)
		}
	}
}

// TestUnchangedIsNotJudgedAgain: only the tables of which the report or the state has changed are.
func TestUnchangedIsNotJudgedAgain(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	grown, counted := regionStats(17), regionStats(17)
	counted[3].Rcus, counted[3].ApproximateRows = 99, 99
	risen := regionStats(17)
	risen[9].LeaderEpoch++
	for i, step := range []struct {
		name   string
		stats  []*metasrvpb.RegionStat
		change *storagepb.RegionChange
		judged []metasrv.TableID
	}{
		{"at first", regionStats(16), nil, []metasrv.TableID{1024, 1025}},
		{"nothing", regionStats(16), nil, nil},
		{"a replica more", grown, nil, []metasrv.TableID{1026}},
		{"counters", counted, nil, nil},
		{"another epoch", risen, nil, []metasrv.TableID{1025}},
		{"the state", risen, elect(metasrv.NewRegionID(1024, 1), 2, 1, 1), []metasrv.TableID{1024}},
		{"a replica less", risen[:16], nil, []metasrv.TableID{1026}},
	} {
		c.rules.judged = nil
		if step.change != nil {
			c.set(t, step.change)
			if err := c.dispatcher.reach(t.Context(), c.View()); err != nil {
				t.Fatal(err)
			}
		}
		before := c.barriers
		mustBeat(t, s, report(uint64(i+1), step.stats))
		slices.Sort(c.rules.judged)
		if !slices.Equal(c.rules.judged, step.judged) {
			t.Errorf("%s: judged %v, want %v", step.name, c.rules.judged, step.judged)
		}
		if step.name == "nothing" && c.barriers != before {
			t.Error("a barrier for nothing")
		}
	}
}

// TestMissedChanges: where the feed has forgotten changes, everything is judged again.
func TestMissedChanges(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	mustBeat(t, s, report(1, regionStats(16)))
	feed := &forgetful{Feed: c.Node}
	c.dispatcher.feed = feed
	feed.forgotten = true
	c.set(t, elect(metasrv.NewRegionID(1030, 0), 99, 1, 1))
	c.rules.judged = nil
	c.dispatcher.mu.Lock()
	err := c.dispatcher.take(feed.Read(t.Context(), 1))
	c.dispatcher.mu.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	mustBeat(t, s, report(2, regionStats(16)))
	slices.Sort(c.rules.judged)
	if want := []metasrv.TableID{1024, 1025, 1030}; !slices.Equal(c.rules.judged, want) {
		t.Errorf("judged %v, want %v", c.rules.judged, want)
	}
}

type forgetful struct {
	state.Feed
	forgotten bool
}

func (f *forgetful) Read(ctx context.Context, from uint64) ([]state.Revision, error) {
	if f.forgotten {
		return nil, metasrv.ErrCompacted.With("it is forgotten")
	}
	return f.Feed.Read(ctx, from)
}

func TestFailingBarrier(t *testing.T) {
	c := newCluster(t)
	c.rules.agree = dropEverything
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
		c.rules.agree = dropEverything
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
	c.rules.agree = dropEverything
	s := c.session(t)
	told := map[uint64]bool{}
	for sequence := range uint64(100) {
		resp := mustBeat(t, s, report(sequence+1, regionStats(2*maxInstructions)))
		if len(resp.Payload) != maxInstructions {
			t.Fatalf("%d instructions", len(resp.Payload))
		}
		for _, d := range decodeDrops(t, resp) {
			told[d.ReplicaId] = true
		}
	}
	if len(told) != 2*maxInstructions {
		t.Errorf("of %d instructions %d were never given", 2*maxInstructions, 2*maxInstructions-len(told))
	}
}
