package client

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Whatever streams break: what metasrv confirmed is one span of time without gap or overlap, and holds each
// count once.
func TestLedger(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		now := rapid.Uint64Range(1, 1<<40).Draw(t, "begin")
		begin := now
		var l ledger
		l.reset(now)
		var collected, reported counts
		var onStream []*metasrvpb.HeartbeatRequest
		confirmed := 0
		end, sequence := begin, uint64(0)

		deliver := func(upTo int) {
			for ; confirmed < upTo; confirmed++ {
				r := onStream[confirmed]
				i := r.GetReportInterval()
				if i.GetStartTimestampMillis() != end {
					t.Fatalf("interval [%d, %d) was delivered after one that ended at %d", i.GetStartTimestampMillis(), i.GetEndTimestampMillis(), end)
				}
				end = i.GetEndTimestampMillis()
				reported.add(countsOf(HeartbeatReport{NodeStat: r.GetNodeStat(), RegionStats: r.GetRegionStats()}))
				l.delivered(r.GetSequence())
			}
		}
		beat := func() {
			report := HeartbeatReport{NodeStat: &metasrvpb.NodeStat{
				Rcus: rapid.Uint64Range(0, 9).Draw(t, "rcus"), Wcus: 1, CpuUsage: 0.5,
			}}
			for region := range uint64(3) {
				report.RegionStats = append(report.RegionStats, &metasrvpb.RegionStat{
					RegionId: region, ReplicaId: region + 10, Wcus: rapid.Uint64Range(0, 9).Draw(t, "wcus"), ApproximateRows: 5,
				})
			}
			before := proto.CloneOf(report.RegionStats[0])
			collected.add(countsOf(report))
			sequence++
			r := &metasrvpb.HeartbeatRequest{Sequence: sequence}
			(&deltas{}).fill(r, report.RegionStats, l.report(r, report, now), true)
			l.sent(r)
			onStream = append(onStream, r)
			if !proto.Equal(before, report.RegionStats[0]) {
				t.Fatal("the collected report was changed")
			}
			if i := r.GetReportInterval(); i.GetStartTimestampMillis() == i.GetEndTimestampMillis() && r.GetNodeStat().GetWcus() != 0 {
				t.Fatal("counts over no time")
			}
			if r.GetNodeStat().GetCpuUsage() != 0.5 || r.GetRegionStats()[1].GetApproximateRows() != 5 {
				t.Fatal("a gauge changed")
			}
		}
		breakStream := func() {
			l.broken()
			onStream, confirmed, sequence = nil, 0, 0
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += rapid.Uint64Range(0, 3).Draw(t, "pass")
			switch rapid.IntRange(0, 5).Draw(t, "step") {
			case 0, 1, 2:
				beat()
			case 3, 4:
				deliver(rapid.IntRange(confirmed, len(onStream)).Draw(t, "deliver"))
			case 5:
				breakStream()
			}
		}
		now++
		beat()
		deliver(len(onStream))
		if end != now {
			t.Fatalf("reported up to %d of %d", end, now)
		}
		if reported.node != collected.node {
			t.Fatalf("node: reported %+v of %+v", reported.node, collected.node)
		}
		for key, want := range collected.regions {
			if got := reported.regions[key]; got != want {
				t.Fatalf("replica %+v: reported %+v of %+v", key, got, want)
			}
		}
	})
}

func TestLedgerKeepsReplies(t *testing.T) {
	var l ledger
	l.replies = []*metasrvpb.InstructionReply{{RegionId: 1}}
	first := &metasrvpb.HeartbeatRequest{Sequence: 1}
	l.sent(first)
	l.replies = append(l.replies, &metasrvpb.InstructionReply{RegionId: 2})
	l.broken()
	second := &metasrvpb.HeartbeatRequest{Sequence: 1}
	l.sent(second)
	if len(first.InstructionReplies) != 1 || len(second.InstructionReplies) != 2 || second.InstructionReplies[0].RegionId != 1 {
		t.Errorf("replies: %v, then %v", first.InstructionReplies, second.InstructionReplies)
	}
	l.delivered(1)
	l.broken()
	if len(l.replies) != 0 {
		t.Errorf("delivered replies are sent again: %v", l.replies)
	}
}
