package heartbeat

import (
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

var regionOfOther = metasrv.NewRegionID(1025, 0)

// tables are regions of two tables that replicas 1, 2 and 3 lead in epoch 1.
func tables() []*metasrvpb.RegionStat {
	third := proto.CloneOf(led()[0])
	third.RegionId, third.ReplicaId = uint64(regionOfOther), 3
	return append(led(), third)
}

// takenOver is a cluster with a new metasrv leader, which node 1 was registered with before. It leads the regions of tables.
func takenOver(t *testing.T) (*cluster, *Session) {
	c := newCluster(t)
	c.rules.agree, c.rules.exact = byState, true
	c.set(t, elect(region0, 1, 1, 1), elect(region1, 2, 1, 1), elect(regionOfOther, 3, 1, 1))
	mustBeat(t, c.session(t), leaseBeat(1, tables()...))
	c.lead(t, 2)
	c.rules.judged = nil
	return c, c.session(t)
}

// unlisted is a beat that has only the digest of the node's replicas.
func unlisted(sequence uint64, stats ...*metasrvpb.RegionStat) *metasrvpb.HeartbeatRequest {
	req := leaseBeat(sequence, stats...)
	req.FullReport, req.RegionStats = false, nil
	return req
}

func wantJudged(t *testing.T, c *cluster, want ...metasrv.TableID) {
	t.Helper()
	if len(c.rules.judged) != len(want) {
		t.Fatalf("judged tables %v, want %v", c.rules.judged, want)
	}
	for i, table := range want {
		if c.rules.judged[i] != table {
			t.Fatalf("judged tables %v, want %v", c.rules.judged, want)
		}
	}
}

func wantAsked(t *testing.T, resp *metasrvpb.HeartbeatResponse) {
	t.Helper()
	if resp.GetLeaseMs() != 0 || !resp.GetFullReportWanted() || resp.GetDigest() != 0 {
		t.Fatalf("answered %v, want to be asked for a full report, and no lease", resp)
	}
}

// A new metasrv leader goes on with the leases of a node that has just what the state says, without a look at its replicas.
func TestDigestIsEnough(t *testing.T) {
	c, s := takenOver(t)
	resp := mustBeat(t, s, unlisted(1, tables()...))
	wantLease(t, resp)
	if resp.GetDigest() != digest.Of(tables()) || !resp.GetFullReportWanted() {
		t.Errorf("answered %v", resp)
	}
	if end := c.tracker.LeaseEnd(1); time.Until(end) < held-time.Second {
		t.Errorf("the lease ends in %s", time.Until(end))
	}
	// The list is the same as a whole, and known from then on.
	wantLease(t, mustBeat(t, s, leaseBeat(2, tables()...)))
	wantJudged(t, c)
	c.set(t, elect(region0, 9, 2, 2))
	wantLease(t, mustBeat(t, s, unlisted(3, tables()...)), 1)
	wantJudged(t, c, 1024)
	// What was agreed on as a whole counts as agreed by this process.
	c.set(t, elect(region0, 1, 1, 2))
	wantLease(t, mustBeat(t, s, unlisted(4, tables()...)))
}

// What a node has is known by its digest until a table changes, and by its list; of another process nothing is known.
func TestHas(t *testing.T) {
	c, s := takenOver(t)
	want := func(of string, region metasrv.RegionID, replica metasrv.ReplicaID, has bool) {
		t.Helper()
		if got := c.tracker.Has(1, region, replica); got != has {
			t.Errorf("%s: has replica %d: %t", of, replica, got)
		}
	}
	want("nothing", region0, 1, false)
	mustBeat(t, s, unlisted(1, tables()...))
	want("the digest", region0, 1, true)
	c.set(t, elect(regionOfOther, 4, 2, 2))
	mustReach(t, c)
	want("the digest, and another table has changed", region0, 1, true)
	want("the digest, and the table has changed", regionOfOther, 3, false)
	mustBeat(t, s, leaseBeat(2, led()[0]))
	want("the list", region0, 1, true)
	want("the list without it", region1, 2, false)
	mustBeat(t, s, leaseBeat(3))
	want("an empty list", region0, 1, false)
	mustBeat(t, s, leaseBeat(4, led()...))
	next := leaseBeat(1)
	next.Node.RegistrationNonce, next.Digest, next.FullReport = 2, nil, false
	mustBeat(t, c.session(t), next)
	want("another process", region0, 1, false)
	want("the early public protocol", region0, 0, false)
}

// How long a process lacks a replica counts from its own first beat, whatever the one before it lacked.
func TestAbsenceIsThatOfOneProcess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		c.rules.agree = func(_ state.View, _ Reporter, _ metasrv.TableID, report []RegionReport) (Agreement, error) {
			a := leadingAll(report)
			if len(report) == 1 {
				a.Absent = []Absence{{Region: region1, Replica: 2}}
			}
			return a, nil
		}
		beats := func(nonce uint64) {
			t.Helper()
			s := c.session(t)
			for i := range uint64(3) {
				req := leaseBeat(i+1, led()[0])
				req.Node.RegistrationNonce = nonce
				mustBeat(t, s, req)
				if found := c.tracker.Absent(); len(found) != 0 {
					t.Errorf("process %d, after %d beats: %v", nonce, i+1, found)
				}
				time.Sleep(time.Second)
			}
			s.Close()
		}
		beats(1)
		time.Sleep(10 * time.Second)
		beats(2)
		s := c.session(t)
		req := leaseBeat(1, led()[0])
		req.Node.RegistrationNonce = 2
		mustBeat(t, s, req)
		if found := c.tracker.Absent(); len(found) != 1 || found[0].Replica != 2 {
			t.Errorf("after a lease: %v", found)
		}
	})
}

func TestDigestIsNotEnough(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *cluster, []*metasrvpb.RegionStat){
		"another epoch": func(_ *testing.T, _ *cluster, stats []*metasrvpb.RegionStat) { stats[0].LeaderEpoch = 2 },
		"demoted":       func(_ *testing.T, _ *cluster, stats []*metasrvpb.RegionStat) { stats[0].Demoted = true },
		"elected since": func(t *testing.T, c *cluster, _ []*metasrvpb.RegionStat) {
			mustReach(t, c)
			c.set(t, elect(region0, 9, 2, 2))
		},
		"withheld": func(_ *testing.T, c *cluster, _ []*metasrvpb.RegionStat) { c.tracker.Withhold(1, region0) },
		"released": func(t *testing.T, c *cluster, _ []*metasrvpb.RegionStat) {
			mustReach(t, c)
			c.tracker.Withhold(1, region0)
			c.tracker.Release(1, region0)
		},
		"inexact": func(_ *testing.T, c *cluster, _ []*metasrvpb.RegionStat) { c.rules.exact = false },
	} {
		t.Run(name, func(t *testing.T) {
			c, s := takenOver(t)
			stats := tables()
			change(t, c, stats)
			wantAsked(t, mustBeat(t, s, unlisted(1, stats...)))
		})
	}
}

// mustReach has the dispatcher begin.
func mustReach(t *testing.T, c *cluster) {
	t.Helper()
	if err := c.dispatcher.reach(t.Context(), c.View()); err != nil {
		t.Fatal(err)
	}
}

// Where something changed since the beginning of the term, only that is judged; where that can't be told apart, everything.
func TestSettleButForChanges(t *testing.T) {
	c, s := takenOver(t)
	mustReach(t, c)
	c.set(t, elect(region0, 1, 2, 2))
	stats := tables()
	stats[0].LeaderEpoch, stats[0].ConfVersion = 2, 2
	wantLease(t, mustBeat(t, s, leaseBeat(1, stats...)))
	wantJudged(t, c, 1024)

	c, s = takenOver(t)
	mustReach(t, c)
	c.dispatcher.expire(time.Now().Add(time.Hour))
	c.set(t, elect(region0, 9, 2, 2))
	wantLease(t, mustBeat(t, s, leaseBeat(1, tables()...)), 1)
	if len(c.rules.judged) != 2 {
		t.Errorf("judged tables %v", c.rules.judged)
	}
}

// A replica that is reported other than the state has it is found among those that are.
func TestSettleFindsTheDifference(t *testing.T) {
	c, s := takenOver(t)
	stats := tables()
	stats[2].LeaderEpoch = 7
	resp := mustBeat(t, s, leaseBeat(1, stats...))
	wantLease(t, resp, 3)
	if len(c.rules.judged) != 2 || len(resp.GetPayload()) != 1 {
		t.Errorf("judged tables %v, answered %v", c.rules.judged, resp)
	}
}

// Something comes up for a node that has not been asked for its list yet.
func TestPushAsksForTheList(t *testing.T) {
	c, s := takenOver(t)
	c.tracker.mayAsk(time.Now(), 10*linesASecond)
	if resp := mustBeat(t, s, unlisted(1, tables()...)); resp.GetLeaseMs() == 0 || resp.GetFullReportWanted() {
		t.Fatalf("answered %v, want a lease, and not to be asked before its turn", resp)
	}
	if resp, err := s.Push(t.Context()); resp != nil || err != nil {
		t.Fatalf("pushed %v, %v", resp, err)
	}
	c.set(t, elect(region0, 9, 2, 2))
	mustReach(t, c)
	resp, err := s.Push(t.Context())
	if err != nil || !resp.GetFullReportWanted() || resp.GetLeaseMs() != 0 {
		t.Fatalf("pushed %v, %v", resp, err)
	}
}

// The storage was replaced: what was put on the one before is lost, whatever is reported of it.
func TestLostReplicasAreNotExpected(t *testing.T) {
	c, _ := takenOver(t)
	other := c.session(t)
	req := leaseBeat(1, tables()...)
	req.Node.StorageUuid, req.Node.RegistrationNonce = "other disk", 2
	mustBeat(t, other, req)
	c.lead(t, 3)
	again := unlisted(1, tables()...)
	again.Node.StorageUuid, again.Node.RegistrationNonce = "other disk", 2
	wantAsked(t, mustBeat(t, c.session(t), again))
}

// Full reports that nobody waits for are asked for in turn.
func TestFullReportsInTurn(t *testing.T) {
	tracker, err := NewTracker(DefaultConfig(), 1, start)
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	for i := range 1000 { // in a second, a thousand nodes of a thousand replicas
		if tracker.mayAsk(start.Add(time.Duration(i)*time.Millisecond), 1000) {
			asked++
		}
	}
	if asked != linesASecond/1000 {
		t.Errorf("%d nodes were asked in a second", asked)
	}
}
