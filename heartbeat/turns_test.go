package heartbeat

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// crowd is a metasrv leader with many nodes, each of which leads a region of a table of its own.
type crowd struct {
	*cluster
	nodes int
	// lines is how many replicas a node reports.
	lines uint32
}

func newCrowd(t testing.TB, nodes int, lines uint32) *crowd {
	c := &crowd{cluster: newCluster(t), nodes: nodes, lines: lines}
	c.begin(t, 1)
	return c
}

// begin begins a term.
func (c *crowd) begin(t testing.TB, term uint64) {
	c.lead(t, term)
	c.dispatcher = NewDispatcher(c.tracker, crowdRules{c.rules, c}, c, c)
}

func (c *crowd) stats(node int) []*metasrvpb.RegionStat {
	var stats []*metasrvpb.RegionStat
	for i := range c.lines {
		stats = append(stats, &metasrvpb.RegionStat{
			RegionId: uint64(metasrv.NewRegionID(metasrv.TableID(1024+node), i)), ReplicaId: uint64(node)<<32 + uint64(i) + 1,
			LeaderEpoch: 1, ConfVersion: 1, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER,
		})
	}
	return stats
}

// beat is a full list of a node, from 1 on.
func (c *crowd) beat(node int, sequence, nonce uint64) *metasrvpb.HeartbeatRequest {
	req := leaseBeat(sequence, c.stats(node)...)
	req.Peer, req.Node.RegistrationNonce = peer(uint64(node)), nonce //nolint:gosec // not negative
	return req
}

func (c *crowd) session(t testing.TB, turns *Turns) *Session {
	s := NewSession(SessionConfig{
		Tracker: c.tracker, Proposer: c, Viewer: c, Barrier: c.Node, Dispatcher: c.dispatcher, Logger: c.logger, Turns: turns,
	})
	t.Cleanup(s.Close)
	return s
}

// crowdRules place on each node what it reports.
type crowdRules struct {
	*fakeRules
	crowd *crowd
}

func (r crowdRules) Placements(_ state.View, f func(Placement)) error {
	for node := 1; node <= r.crowd.nodes; node++ {
		for _, s := range r.crowd.stats(node) {
			f(Placement{
				Table: metasrv.RegionID(s.RegionId).Table(), Node: metasrv.NodeID(node), Exact: true, Sum: digest.Stat(s).Sum(), //nolint:gosec // not negative
			})
		}
	}
	return nil
}

// However many beats there are at once, no more are judged at a time than there are turns, and each is answered.
func TestTurnsBoundJudging(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const nodes, turns = 50, 2
		c := newCrowd(t, nodes, 1)
		var judging, most atomic.Int32
		c.rules.agree = func(_ state.View, _ Reporter, _ metasrv.TableID, report []RegionReport) (Agreement, error) {
			now := judging.Add(1)
			for m := most.Load(); now > m && !most.CompareAndSwap(m, now); m = most.Load() {
			}
			time.Sleep(time.Millisecond) // until all others wait
			judging.Add(-1)
			return leadingAll(report), nil
		}
		rules := countless{crowdRules{c.rules, c}}
		c.dispatcher = NewDispatcher(c.tracker, rules, c, c)
		shared := NewTurns(turns)
		var beating sync.WaitGroup
		for node := 1; node <= nodes; node++ {
			s := c.session(t, shared)
			beating.Go(func() {
				resp, err := s.HandleBeat(t.Context(), c.beat(node, 1, 1))
				if err != nil || resp.GetLeaseMs() == 0 {
					t.Errorf("node %d: %v, %v", node, resp, err)
				}
			})
		}
		beating.Wait()
		if most.Load() != turns {
			t.Errorf("%d beats were judged at once, there are %d turns", most.Load(), turns)
		}
	})
}

// countless doesn't note what is judged, and knows nothing of what to expect.
type countless struct{ crowdRules }

func (countless) Placements(state.View, func(Placement)) error { return nil }

func (r countless) Agree(v state.View, by Reporter, table metasrv.TableID, report []RegionReport) (Agreement, error) {
	return r.agree(v, by, table, report)
}

// Who gives up waits no longer, and takes no turn from others.
func TestTurnIsNotWaitedForForever(t *testing.T) {
	turns := NewTurns(1)
	if err := turns.Take(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	gone := errors.New("gone")
	cancel(gone)
	if err := turns.Take(ctx); !errors.Is(err, gone) {
		t.Errorf("got %v", err)
	}
	turns.Give()
	if err := turns.Take(t.Context()); err != nil {
		t.Error(err)
	}
}

// Of beats that have piled up only the newest is judged, but one is answered in each interval, and what asks for an outcome always.
func TestBacklogIsNotJudgedBeatByBeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := leased(t)
		newer := false
		s.cfg.Newer = func() bool { return newer }
		wantLease(t, mustBeat(t, s, leaseBeat(2, led()...)))
		grants := func() uint64 { return c.tracker.counters.Grants.Load() }
		granted, barriers := grants(), c.barriers

		newer = true
		changed := led()
		changed[0].LeaderEpoch = 7
		for sequence := range uint64(3) {
			if resp := mustBeat(t, s, leaseBeat(3+sequence, changed...)); resp != nil {
				t.Fatalf("answered %v", resp)
			}
		}
		if grants() != granted || c.barriers != barriers || c.tracker.counters.Superseded.Load() != 3 {
			t.Errorf("%d leases, %d barriers, %d superseded", grants()-granted, c.barriers-barriers, c.tracker.counters.Superseded.Load())
		}
		if r, ok := c.tracker.Region(1, region0, 1); !ok || r.LeaderEpoch != 7 {
			t.Errorf("what the last of them reported was not taken: %+v", r)
		}
		asking := leaseBeat(6, changed...)
		asking.InSyncChanges = []*metasrvpb.InSyncChange{{RegionId: uint64(region0), ReplicaId: 1, LeaderEpoch: 7, ConfVersion: 1}}
		if resp := mustBeat(t, s, asking); len(resp.GetInSyncResults()) != 1 {
			t.Errorf("what it asked for was answered %v", resp)
		}
		time.Sleep(c.tracker.cfg.Interval)
		if resp := mustBeat(t, s, leaseBeat(7, changed...)); resp.GetSequence() != 7 {
			t.Errorf("nothing was answered for an interval, then %v", resp)
		}
		newer = false
		if resp := mustBeat(t, s, leaseBeat(8, led()...)); resp.GetSequence() != 8 || resp.GetLeaseMs() == 0 {
			t.Errorf("the newest was answered %v", resp)
		}
	})
}

// Where many nodes register anew at once, they are judged by one pass over the state instead of table by table.
func TestManyNewProcessesAreJudgedTogether(t *testing.T) {
	const nodes = renewFrom
	c := newCrowd(t, nodes, renewLines)
	sessions := make([]*Session, nodes)
	for i := range sessions {
		mustBeat(t, c.session(t, nil), c.beat(i+1, 1, 1))
		sessions[i] = c.session(t, nil)
	}
	c.barrier = func(context.Context) (state.View, error) { return nil, errLate }
	for i, s := range sessions { // registered anew, and not judged yet
		s.cfg.Barrier = c
		mustBeat(t, s, c.beat(i+1, 1, 2))
	}
	c.rules.judged = nil
	for i, s := range sessions {
		s.cfg.Barrier = c.Node
		if err := c.dispatcher.reach(t.Context(), c.View()); err != nil {
			t.Fatal(err)
		}
		req := c.beat(i+1, 2, 2)
		req.FullReport, req.RegionStats = false, nil
		if resp := mustBeat(t, s, req); resp.GetLeaseMs() == 0 || len(resp.GetUngranted()) > 0 {
			t.Fatalf("node %d was answered %v", i+1, resp)
		}
	}
	if len(c.rules.judged) > 0 {
		t.Errorf("tables %v were judged one by one", c.rules.judged)
	}
	if d := c.tracker.counters.Mismatches.Load(); d != 0 {
		t.Errorf("%d digests were not as known", d)
	}
}

// A node with much to judge gives its turn away in between, and gets its lease when all is judged.
func TestLongJudgementsTakeSeveralTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const tables = 20
		c := newCluster(t)
		var judged, before atomic.Int32
		c.rules.agree = func(_ state.View, by Reporter, _ metasrv.TableID, report []RegionReport) (Agreement, error) {
			if by.Node == 1 {
				judged.Add(1)
				time.Sleep(judgeTime / 2)
			}
			return leadingAll(report), nil
		}
		shared := NewTurns(1)
		long, short := c.session(t), c.session(t)
		long.cfg.Turns, short.cfg.Turns = shared, shared
		long.cfg.Barrier, short.cfg.Barrier = c.Node, c.Node // that of c counts
		var beating sync.WaitGroup
		beating.Go(func() {
			wantLease(t, mustBeat(t, long, leaseBeat(1, regionStats(8*tables)...)))
		})
		synctest.Wait()
		beating.Go(func() {
			req := leaseBeat(1, led()...)
			req.Peer = peer(2)
			wantLease(t, mustBeat(t, short, req))
			before.Store(judged.Load())
		})
		beating.Wait()
		if n := before.Load(); judged.Load() != tables || n < 1 || n >= tables {
			t.Errorf("%d of %d tables of the one node were judged before the other had its lease", n, judged.Load())
		}
	})
}

// What is marked between two turns is judged before the grant, also a table that was judged already.
func TestMarksBetweenTurnsCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := leased(t)
		mustBeat(t, s, leaseBeat(2, tables()...))
		c.set(t, elect(regionOfOther, 3, 1, 1))
		mustReach(t, c)
		agree := c.rules.agree
		c.rules.agree = func(v state.View, by Reporter, table metasrv.TableID, report []RegionReport) (Agreement, error) {
			time.Sleep(judgeTime)
			return agree(v, by, table, report)
		}
		s.stream.node.mu.Lock()
		s.stream.node.dirtyAll()
		s.stream.node.mu.Unlock()
		c.tracker.Withhold(1, region0)
		decide := func(before decision) decision {
			d, err := c.tracker.decide(s.stream, c.rules, c, c.View(), s.last, before)
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		c.rules.judged = nil
		d := decide(decision{})
		if !d.unfinished || d.granted || len(c.rules.judged) != 1 {
			t.Fatalf("after tables %v: %+v", c.rules.judged, d)
		}
		// Whichever of the two tables it was: the leader of region 0 changes, and the mark ends.
		c.set(t, elect(region0, 9, 2, 2))
		c.tracker.Release(1, region0)
		for d.unfinished {
			d = decide(d)
		}
		if !d.granted || len(d.ungranted) != 1 || d.ungranted[0].GetReplicaId() != 1 {
			t.Errorf("decided %+v", d)
		}
	})
}

// A table that waits for something is judged once a beat, also where that takes several turns.
func TestTablesThatWaitAreJudgedOnceABeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, s := leased(t)
		c.rules.agree = func(_ state.View, _ Reporter, _ metasrv.TableID, report []RegionReport) (Agreement, error) {
			time.Sleep(judgeTime)
			a := leadingAll(report)
			a.Waits = true
			return a, nil
		}
		stats := regionStats(8 * 5)
		wantLease(t, mustBeat(t, s, leaseBeat(2, stats...)))
		for sequence := range uint64(3) {
			c.rules.judged = nil
			wantLease(t, mustBeat(t, s, leaseBeat(3+sequence, stats...)))
			if len(c.rules.judged) != 5 {
				t.Errorf("judged %v", c.rules.judged)
			}
		}
	})
}
