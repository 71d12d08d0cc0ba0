package client

import (
	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// ledger keeps account of what reached metasrv: report intervals follow each other without gap or overlap,
// and every count is in exactly one delivered beat. What a broken stream lost is in the next beat.
//
// A beat whose response was lost can't be told from one that never arrived; its time is reported again.
type ledger struct {
	// start is where the next report interval begins: the end of the last one that was sent on this stream.
	// Milliseconds, as all times here.
	start uint64
	// deliveredEnd is the end of the last interval that metasrv confirmed.
	deliveredEnd uint64
	// carried has the counts that the next report adds to its own.
	carried counts
	// replies wait for the next beat.
	replies []*metasrvpb.InstructionReply
	// inFlight has the beats without a response, in the order in which they were sent.
	inFlight []sentBeat
}

type sentBeat struct {
	sequence uint64
	// end is that of the report interval, 0 for a beat without a report.
	end     uint64
	counts  counts
	replies []*metasrvpb.InstructionReply
}

// counts are the counters of a report.
type counts struct {
	node    capacityUnits
	regions map[replicaKey]capacityUnits
}

type capacityUnits struct{ rcus, wcus uint64 }

func (c capacityUnits) plus(d capacityUnits) capacityUnits {
	return capacityUnits{c.rcus + d.rcus, c.wcus + d.wcus}
}

type replicaKey struct{ region, replica uint64 }

func keyOf(s *metasrvpb.RegionStat) replicaKey {
	return replicaKey{s.GetRegionId(), s.GetReplicaId()}
}

// add adds the counts of d to c.
func (c *counts) add(d counts) {
	c.node = c.node.plus(d.node)
	for key, units := range d.regions {
		if c.regions == nil {
			c.regions = map[replicaKey]capacityUnits{}
		}
		c.regions[key] = c.regions[key].plus(units)
	}
}

// reset begins the account at a time.
func (l *ledger) reset(now uint64) {
	*l = ledger{start: now, deliveredEnd: now}
}

// report puts a report without its replicas into request: the time since the last one with its counts, and those carried
// over. It returns the counts, with those of the replicas.
func (l *ledger) report(request *metasrvpb.HeartbeatRequest, report HeartbeatReport, now uint64) counts {
	now = max(now, l.start)
	total := countsOf(report)
	total.add(l.carried)
	l.carried = counts{}
	if now == l.start {
		// No rate can be made of counts over no time: the next report has them.
		l.carried, total = total, counts{}
	}
	request.ReportInterval = &metasrvpb.TimeInterval{StartTimestampMillis: l.start, EndTimestampMillis: now}
	request.NodeStat = &metasrvpb.NodeStat{}
	if report.NodeStat != nil {
		request.NodeStat = proto.CloneOf(report.NodeStat)
	}
	request.NodeStat.Rcus, request.NodeStat.Wcus = total.node.rcus, total.node.wcus
	l.start = now
	return total
}

// postpone leaves the counts of a report, and its time, to the next one.
func (l *ledger) postpone(report HeartbeatReport) { l.carried.add(countsOf(report)) }

// sent notes that request is on its way, and gives it the replies that wait.
func (l *ledger) sent(request *metasrvpb.HeartbeatRequest) {
	request.InstructionReplies, l.replies = l.replies, nil
	l.inFlight = append(l.inFlight, sentBeat{
		sequence: request.GetSequence(),
		end:      request.GetReportInterval().GetEndTimestampMillis(),
		counts: countsOf(HeartbeatReport{
			NodeStat: request.GetNodeStat(), RegionStats: request.GetRegionStats(),
		}),
		replies: request.GetInstructionReplies(),
	})
}

// delivered notes that metasrv responded to the beat with that sequence: it has that one and all before it.
func (l *ledger) delivered(sequence uint64) {
	for len(l.inFlight) > 0 && l.inFlight[0].sequence <= sequence {
		l.deliveredEnd = max(l.deliveredEnd, l.inFlight[0].end)
		l.inFlight = l.inFlight[1:]
	}
}

// broken notes that the stream is gone: what is in flight counts as lost.
func (l *ledger) broken() {
	var replies []*metasrvpb.InstructionReply
	for _, b := range l.inFlight {
		l.carried.add(b.counts)
		replies = append(replies, b.replies...)
	}
	l.replies = append(replies, l.replies...)
	l.inFlight = nil
	l.start = l.deliveredEnd
}

// countsOf returns the counts of a report. Replicas without any are left out.
func countsOf(report HeartbeatReport) counts {
	c := counts{node: capacityUnits{report.NodeStat.GetRcus(), report.NodeStat.GetWcus()}}
	for _, s := range report.RegionStats {
		units := capacityUnits{s.GetRcus(), s.GetWcus()}
		if units == (capacityUnits{}) {
			continue
		}
		if c.regions == nil {
			c.regions = make(map[replicaKey]capacityUnits)
		}
		c.regions[keyOf(s)] = c.regions[keyOf(s)].plus(units)
	}
	return c
}
