package heartbeat

import (
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Rule 21: a region leader whose log ends before where an earlier process of its node had it gets no lease, and is to be replaced.
func TestLeaderThatWasSetBack(t *testing.T) {
	at := func(epoch, sequence uint64) []*metasrvpb.RegionStat {
		stats := led()
		stats[1].LogEpoch, stats[1].LogSequence = epoch, sequence
		return stats
	}
	process := func(nonce uint64, stats []*metasrvpb.RegionStat) *metasrvpb.HeartbeatRequest {
		req := leaseBeat(1, stats...)
		req.Node.RegistrationNonce = nonce
		return req
	}
	for name, test := range map[string]struct {
		now     []*metasrvpb.RegionStat
		setBack bool
	}{
		"further":       {at(2, 101), false},
		"the same":      {at(2, 100), false},
		"behind":        {at(2, 99), true},
		"older epoch":   {at(1, 200), true},
		"nothing known": {at(0, 0), false},
	} {
		t.Run(name, func(t *testing.T) {
			c, s := leased(t)
			wantLease(t, mustBeat(t, s, leaseBeat(1, at(2, 90)...)))
			wantLease(t, mustBeat(t, s, leaseBeat(2, at(2, 100)...)))
			again := c.session(t)
			resp := mustBeat(t, again, process(2, test.now))
			absent := c.tracker.Absent()
			if !test.setBack {
				wantLease(t, resp)
				if len(absent) > 0 {
					t.Errorf("%v", absent)
				}
				return
			}
			wantLease(t, resp, 2)
			if len(absent) != 1 || !absent[0].SetBack || absent[0].Region != region1 || absent[0].Replica != 2 {
				t.Errorf("to be replaced are %v", absent)
			}
			// Neither a further process nor the digest helps, another leadership does.
			third := c.session(t)
			wantLease(t, mustBeat(t, third, process(3, test.now)), 2)
			c.set(t, elect(region1, 2, 2, 2))
			next := test.now
			next[1].LeaderEpoch, next[1].ConfVersion = 2, 2
			req := leaseBeat(2, next...)
			req.Node.RegistrationNonce = 3
			wantLease(t, mustBeat(t, third, req))
		})
	}
}

// What the state expects of a node says nothing of its logs: a list that agrees with it as a whole is compared table by table all the
// same.
func TestPastIsComparedWithLists(t *testing.T) {
	c, s := leased(t)
	c.rules.exact = true
	stats := led()
	stats[1].LogEpoch, stats[1].LogSequence = 2, 100
	wantLease(t, mustBeat(t, s, leaseBeat(1, stats...)))
	stats[1].LogSequence = 99
	again := c.session(t)
	first := leaseBeat(1)
	first.Node.RegistrationNonce, first.FullReport, first.Digest = 2, false, proto.Uint64(digest.Of(stats))
	if resp := mustBeat(t, again, first); resp.GetLeaseMs() != 0 || !resp.GetFullReportWanted() {
		t.Errorf("without a list answered %v", resp)
	}
	for sequence := range uint64(2) {
		list := leaseBeat(sequence+2, stats...)
		list.Node.RegistrationNonce = 2
		wantLease(t, mustBeat(t, again, list), 2)
		if err := c.dispatcher.markEverything(); err != nil { // as when the feed was too short
			t.Fatal(err)
		}
	}
}
