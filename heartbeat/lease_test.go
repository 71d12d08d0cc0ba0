package heartbeat

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat/digest"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// held is how long metasrv holds a lease of 3 s for valid.
const held = 3150 * time.Millisecond

// leaseBeat is a full report of a node that keeps leases.
func leaseBeat(sequence uint64, stats ...*metasrvpb.RegionStat) *metasrvpb.HeartbeatRequest {
	req := firstBeat(1, 1)
	req.Node.KeepsLeases, req.Node.StorageUuid = true, "disk"
	req.Sequence, req.RegionStats = sequence, stats
	req.Digest = proto.Uint64(digest.Of(stats))
	return req
}

var region0, region1 = metasrv.NewRegionID(1024, 0), metasrv.NewRegionID(1024, 1)

// led are two regions that replicas 1 and 2 lead in epoch 1.
func led() []*metasrvpb.RegionStat { return regionStats(2) }

// leased is a cluster in which node 1 leads the regions of led.
func leased(t testing.TB) (*cluster, *Session) {
	c := newCluster(t)
	c.rules.agree = byState
	c.set(t, elect(region0, 1, 1, 1), elect(region1, 2, 1, 1))
	return c, c.session(t)
}

func wantLease(t testing.TB, resp *metasrvpb.HeartbeatResponse, ungranted ...uint64) {
	t.Helper()
	if resp.GetLeaseMs() != 3000 || len(resp.GetUngranted()) != len(ungranted) {
		t.Fatalf("a lease of %d ms without %v, want 3000 without replicas %v", resp.GetLeaseMs(), resp.GetUngranted(), ungranted)
	}
	for i, u := range resp.GetUngranted() {
		if u.GetReplicaId() != ungranted[i] {
			t.Fatalf("ungranted are %v, want replicas %v", resp.GetUngranted(), ungranted)
		}
	}
}

func TestGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := leased(t)
		time.Sleep(time.Second)
		resp := mustBeat(t, s, leaseBeat(1, led()...))
		wantLease(t, resp)
		if resp.GetSequence() != 1 || resp.GetDigest() != digest.Of(led()) || resp.GetFullReportWanted() {
			t.Errorf("answered %v", resp)
		}
		if got := c.tracker.LeaseEnd(1); !got.Equal(time.Now().Add(held)) {
			t.Errorf("the lease ends in %s", time.Until(got))
		}
		// What changed since is enough.
		time.Sleep(time.Second)
		wantLease(t, mustBeat(t, s, &metasrvpb.HeartbeatRequest{Sequence: 2, Digest: proto.Uint64(digest.Of(led()))}))
		if got := c.tracker.LeaseEnd(1); !got.Equal(time.Now().Add(held)) {
			t.Errorf("the lease ends in %s", time.Until(got))
		}
	})
}

func TestNoGrant(t *testing.T) {
	for name, change := range map[string]func(*metasrvpb.HeartbeatRequest){
		"keeps no leases":     func(req *metasrvpb.HeartbeatRequest) { req.Node.KeepsLeases = false },
		"storage has no name": func(req *metasrvpb.HeartbeatRequest) { req.Node.StorageUuid = "" },
		"frontend":            func(req *metasrvpb.HeartbeatRequest) { req.Node.Role = metasrvpb.NodeRole_NODE_ROLE_FRONTEND },
		"no digest":           func(req *metasrvpb.HeartbeatRequest) { req.Digest = nil },
		"another digest":      func(req *metasrvpb.HeartbeatRequest) { *req.Digest++ },
	} {
		t.Run(name, func(t *testing.T) {
			c, s := leased(t)
			before := c.tracker.LeaseEnd(1)
			req := leaseBeat(1, led()...)
			change(req)
			resp := mustBeat(t, s, req)
			if resp.GetLeaseMs() != 0 || !c.tracker.LeaseEnd(1).Equal(before) {
				t.Errorf("granted %d ms", resp.GetLeaseMs())
			}
			if wanted := name == "another digest"; resp.GetFullReportWanted() != wanted {
				t.Errorf("full report wanted: %t", resp.GetFullReportWanted())
			}
		})
	}
}

// TestDigestMismatch: a node whose changes metasrv has not all heard gets nothing before it has reported in full.
func TestDigestMismatch(t *testing.T) {
	_, s := leased(t)
	wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
	changed := led()
	changed[1].LeaderEpoch = 2
	// The line of the change got lost.
	partial := &metasrvpb.HeartbeatRequest{Sequence: 2, Digest: proto.Uint64(digest.Of(changed))}
	if resp := mustBeat(t, s, partial); resp.GetLeaseMs() != 0 || !resp.GetFullReportWanted() || resp.GetDigest() != digest.Of(led()) {
		t.Errorf("answered %v", resp)
	}
	wantLease(t, mustBeat(t, s, leaseBeat(3, changed...)), 2)
}

// Rule 17: who has been deposed and can't know it grants nothing: the barrier of each beat fails.
func TestDeposedLeaderGrantsNothing(t *testing.T) {
	c, s := leased(t)
	wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
	end := c.tracker.LeaseEnd(1)
	c.barrier = func(context.Context) (state.View, error) { return nil, metasrv.ErrNotReady }
	if resp := mustBeat(t, s, leaseBeat(2, led()...)); resp.GetLeaseMs() != 0 {
		t.Errorf("granted %d ms without a barrier", resp.GetLeaseMs())
	}
	c.barrier = func(context.Context) (state.View, error) { return nil, metasrv.ErrNotLeader }
	if _, err := s.HandleBeat(t.Context(), leaseBeat(3, led()...)); !errors.Is(err, metasrv.ErrNotLeader) {
		t.Errorf("the stream goes on: %v", err)
	}
	if !c.tracker.LeaseEnd(1).Equal(end) {
		t.Error("a lease was recorded without a barrier")
	}
}

// Rule 17: the barrier begins after the request has arrived, and the grant rests on a state that has what it brought.
func TestGrantRestsOnBarrier(t *testing.T) {
	c, s := leased(t)
	wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
	c.barrier = func(ctx context.Context) (state.View, error) {
		c.set(t, elect(region1, 99, 2, 2))
		return c.Node.Barrier(ctx)
	}
	wantLease(t, mustBeat(t, s, leaseBeat(2, led()...)), 2)
}

// Rule 17: a leadership that is being taken away is in no grant, from Withhold until Release.
func TestWithhold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := leased(t)
		time.Sleep(time.Second)
		wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
		granted := time.Now()
		time.Sleep(time.Second)
		var end time.Time
		c.barrier = func(ctx context.Context) (state.View, error) {
			end = c.tracker.Withhold(1, region1)
			return c.Node.Barrier(ctx)
		}
		wantLease(t, mustBeat(t, s, leaseBeat(2, led()...)), 2)
		if !end.Equal(granted.Add(held)) {
			t.Errorf("the last grant ends in %s", time.Until(end))
		}
		c.barrier = nil
		// Marks add up.
		c.tracker.Withhold(1, region1)
		c.tracker.Release(1, region1)
		wantLease(t, mustBeat(t, s, leaseBeat(3, led()...)), 2)
		c.tracker.Release(1, region1)
		wantLease(t, mustBeat(t, s, leaseBeat(4, led()...)))
	})
}

// Rule 17: a grant and a take-away of the same moment have an order: the grant leaves the region out, or the take-away is
// told how long the grant lasts.
func TestGrantAndWithholdAreOrdered(t *testing.T) {
	c, s := leased(t)
	mustBeat(t, s, leaseBeat(1, led()...))
	for i := range uint64(200) {
		told := make(chan time.Time, 1)
		c.rules.agree = func(v state.View, by Reporter, id metasrv.TableID, r []RegionReport) (Agreement, error) {
			go func() { told <- c.tracker.Withhold(1, region1) }()
			time.Sleep(50 * time.Microsecond) // so that it stands before the mutex
			return byState(v, by, id, r)
		}
		c.set(t, elect(region0, 1, 1, 1)) // has the table judged
		sent := time.Now()
		resp := mustBeat(t, s, leaseBeat(i+2, led()...))
		end := <-told
		if covered := len(resp.GetUngranted()) == 0; covered && end.Before(sent.Add(held)) {
			t.Fatal("a grant covers a region whose taker was told of an earlier end")
		}
		c.rules.agree = byState
		c.tracker.Release(1, region1)
		mustBeat(t, s, &metasrvpb.HeartbeatRequest{Digest: proto.Uint64(digest.Of(led()))})
	}
}

// Rule 17: after Release the outcome counts for beats, too, whose barrier began before it was committed.
func TestReleaseHasTheOutcomeJudged(t *testing.T) {
	c, s := leased(t)
	wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
	c.barrier = func(ctx context.Context) (state.View, error) {
		before, err := c.Node.Barrier(ctx)
		c.tracker.Withhold(1, region1)
		c.set(t, elect(region1, 99, 2, 2))
		c.tracker.Release(1, region1)
		return before, err
	}
	wantLease(t, mustBeat(t, s, leaseBeat(2, led()...)), 2)
}

// Rule 5: a new metasrv leader doesn't know what its predecessor granted.
func TestNewLeaderWaitsOneLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := leased(t)
		wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
		time.Sleep(10 * time.Second)
		c.lead(t, 2)
		takeover := time.Now()
		time.Sleep(time.Second)
		for name, end := range map[string]time.Time{
			"LeaseEnd": c.tracker.LeaseEnd(1), "Withhold": c.tracker.Withhold(1, region0), "LeaseEnd of a node withheld": c.tracker.LeaseEnd(1),
		} {
			if !end.Equal(takeover.Add(held)) {
				t.Errorf("%s: the leases of the term before end %s after the takeover, want %s", name, end.Sub(takeover), held)
			}
		}
	})
}

// Rule 5: leases are granted as long as they are set to be; who is silent is judged by the longest that may run.
func TestLeaseIsChanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := leased(t)
		time.Sleep(4 * time.Second)
		wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
		long := time.Now().Add(held)
		c.tracker.SetLease(time.Second, 3*time.Second)
		time.Sleep(time.Second)
		again := &metasrvpb.HeartbeatRequest{Sequence: 2, Digest: proto.Uint64(digest.Of(led()))}
		if resp := mustBeat(t, s, again); resp.GetLeaseMs() != 1000 {
			t.Errorf("granted %d ms", resp.GetLeaseMs())
		}
		if got := c.tracker.LeaseEnd(1); !got.Equal(long) {
			t.Errorf("the long lease ends %s later than it did", got.Sub(long))
		}
		beat := time.Now()
		if at := beat.Add(held); c.tracker.HasFailed(1, at.Add(-time.Millisecond)) || !c.tracker.HasFailed(1, at) {
			t.Error("a silent node has not failed after the longest lease")
		}
		c.tracker.SetLease(time.Second, 0)
		if at := long; c.tracker.HasFailed(1, at.Add(-time.Millisecond)) || !c.tracker.HasFailed(1, at) {
			t.Error("a silent node has not failed after the last lease that it was granted")
		}
		if d := c.tracker.Config().Doubtful(); d != 50*time.Millisecond {
			t.Errorf("a node is doubtful after %s", d)
		}
	})
}

// Rule 5: a deposed metasrv leader may apply what its successor has set before it answers. The length of what it grants is that from
// before the barrier, which its successor knows.
func TestLengthOfLeaseIsFromBeforeTheBarrier(t *testing.T) {
	c, s := leased(t)
	c.barrier = func(ctx context.Context) (state.View, error) {
		view, err := c.Node.Barrier(ctx)
		c.tracker.SetLease(time.Hour, 0)
		return view, err
	}
	wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
	if left := time.Until(c.tracker.LeaseEnd(1)); left > held {
		t.Errorf("a lease is recorded that ends in %s", left)
	}
}

// Rule 5: a new metasrv leader waits for the longest lease that may have been granted before it, whatever is set later.
func TestNewLeaderWaitsForTheLongestLease(t *testing.T) {
	cfg := DefaultConfig()
	cfg.Lease, cfg.Interval, cfg.Longest = time.Second, 100*time.Millisecond, 3*time.Second
	tracker, err := NewTracker(cfg, 2, start)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if end := tracker.LeaseEnd(2); !end.Equal(start.Add(held)) {
			t.Errorf("the leases of the terms before end %s after the takeover, want %s", end.Sub(start), held)
		}
		if end := tracker.Withhold(1, region0); !end.Equal(start.Add(held)) {
			t.Errorf("the leases of the terms before end %s after the takeover, want %s", end.Sub(start), held)
		}
		tracker.SetLease(time.Second, 0)
	}
}

func TestDemotingIsRefused(t *testing.T) {
	c, s := leased(t)
	c.set(t, &storagepb.RegionChange{
		RegionId: uint64(region1), LeaderEpoch: 1, ConfVersion: 2, Change: &storagepb.RegionChange_BeginDemotion{BeginDemotion: &storagepb.BeginDemotion{}},
	})
	resp := mustBeat(t, s, leaseBeat(1, led()...))
	wantLease(t, resp, 2)
	demoted := led()
	demoted[1].Demoted = true
	wantLease(t, mustBeat(t, s, leaseBeat(2, demoted...)))
	if len(resp.GetPayload()) != 1 {
		t.Errorf("%d instructions", len(resp.GetPayload()))
	}
}

// A process that has once agreed knows which growth it asked for; its successor doesn't.
func TestOutdatedConfiguration(t *testing.T) {
	c, s := leased(t)
	wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
	c.set(t, elect(region1, 2, 1, 2))
	wantLease(t, mustBeat(t, s, leaseBeat(2, led()...)))
	idle := led()
	idle[1].Role = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	wantLease(t, mustBeat(t, s, leaseBeat(3, idle...)))
	wantLease(t, mustBeat(t, s, leaseBeat(4, led()...)), 2)

	known := led()
	known[1].ConfVersion = 2
	wantLease(t, mustBeat(t, s, leaseBeat(5, known...)))
	restarted := leaseBeat(1, led()...)
	restarted.Node.RegistrationNonce = 2
	wantLease(t, mustBeat(t, c.session(t), restarted), 2)
}

// Rule 23: a process that another one has replaced gets nothing, even if only the state knows of it.
func TestReplacedProcessGetsNothing(t *testing.T) {
	c, s := leased(t)
	wantLease(t, mustBeat(t, s, leaseBeat(1, led()...)))
	c.barrier = func(ctx context.Context) (state.View, error) {
		if _, err := registerCommand(t, c.Node, &storagepb.RegisterNode{Peer: peer(1), Info: info(2)}); err != nil {
			t.Fatal(err)
		}
		return c.Node.Barrier(ctx)
	}
	if resp, err := s.HandleBeat(t.Context(), leaseBeat(2, led()...)); !errors.Is(err, metasrv.ErrStaleIncarnation) {
		t.Errorf("answered %v, %v", resp, err)
	}
}

// What changes in the state is told before the next beat, and the lease that comes with it counts from the same request.
func TestPush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := leased(t)
		created := append(led(), regionStats(9)[8])
		resp := mustBeat(t, s, leaseBeat(1, created...))
		wantLease(t, resp, 9)
		end := c.tracker.LeaseEnd(1)
		ctx, cancel := context.WithCancel(t.Context())
		ran := make(chan error, 1)
		go func() { ran <- c.dispatcher.Run(ctx) }()
		synctest.Wait()
		for len(s.Wake()) > 0 {
			<-s.Wake()
		}
		time.Sleep(time.Second)
		c.set(t, elect(metasrv.NewRegionID(1025, 0), 9, 1, 1))
		<-s.Wake()
		pushed, err := s.Push(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		wantLease(t, pushed)
		if pushed.GetSequence() != 1 || pushed.GetDigest() != digest.Of(created) || !c.tracker.LeaseEnd(1).Equal(end) {
			t.Errorf("pushed %v, lease ends %s later than before", pushed, c.tracker.LeaseEnd(1).Sub(end))
		}
		if again, err := s.Push(t.Context()); again != nil || err != nil {
			t.Errorf("pushed again: %v, %v", again, err)
		}
		c.set(t, elect(region0, 99, 2, 2))
		<-s.Wake()
		pushed, err = s.Push(t.Context())
		if err != nil || len(pushed.GetPayload()) != 1 {
			t.Errorf("pushed %v, %v, want an instruction", pushed, err)
		}
		wantLease(t, pushed, 1)
		cancel()
		if err := <-ran; err != nil {
			t.Error(err)
		}
	})
}

func TestInSyncChange(t *testing.T) {
	c, s := leased(t)
	req := leaseBeat(1, led()...)
	req.InSyncChanges = []*metasrvpb.InSyncChange{{RegionId: uint64(region1), ReplicaId: 2, LeaderEpoch: 1, ConfVersion: 1, InSyncReplicaIds: []uint64{2, 3}}}
	resp := mustBeat(t, s, req)
	want := &metasrvpb.InSyncResult{RegionId: uint64(region1), ReplicaId: 2, LeaderEpoch: 1, ConfVersion: 2, InSyncReplicaIds: []uint64{2, 3}}
	if len(resp.InSyncResults) != 1 || !proto.Equal(resp.InSyncResults[0], want) {
		t.Errorf("answered %v, want %v", resp.InSyncResults, want)
	}
	last := c.proposed[len(c.proposed)-1]
	if asked := c.regions.asked; len(asked) != 1 || asked[0].GetSetInSync().GetIncarnation() != 1 || last.PlannedTerm != 1 {
		t.Errorf("asked for %v in term %d", asked, last.PlannedTerm)
	}
	c.SetTerm(3)
	again := leaseBeat(2, led()...)
	again.InSyncChanges = req.InSyncChanges
	if _, err := s.HandleBeat(t.Context(), again); !errors.Is(err, metasrv.ErrStaleTerm) {
		t.Errorf("in another term: %v", err)
	}
}

// A node with very many replicas receives little when nothing changed.
func TestUnchangedAnswerIsSmall(t *testing.T) {
	const limit = 100
	c := newCluster(t)
	s := c.session(t)
	stats := regionStats(10_000)
	wantLease(t, mustBeat(t, s, leaseBeat(1, stats...)))
	c.rules.judged = nil
	resp := mustBeat(t, s, &metasrvpb.HeartbeatRequest{Sequence: 2, Digest: proto.Uint64(digest.Of(stats))})
	wantLease(t, resp)
	if size := proto.Size(resp); size > limit || len(c.rules.judged) > 0 {
		t.Errorf("an answer of %d bytes, at most %d are meant; %d tables were judged", size, limit, len(c.rules.judged))
	}
}
