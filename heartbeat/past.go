package heartbeat

import (
	"cmp"

	"github.com/metasrv/metasrv"
)

// past is how far the log of a region leader was when an earlier process of its node last reported it, in this term.
//
// A leader's log only grows, in one epoch, over all of its node's processes: a new process that reports less has a disk that was
// set back, and lacks rows that were acknowledged (rule 21). A follower's doesn't: it takes back what its region's next leader
// doesn't have; and its region leader brings it up again, be it set back or not.
type past struct {
	epoch                 uint64
	logEpoch, logSequence uint64
}

func pastOf(r RegionReport) past { return past{r.LeaderEpoch, r.LogEpoch, r.LogSequence} }

// compare compares how far two logs are.
func (p past) compare(o past) int {
	return cmp.Or(cmp.Compare(p.logEpoch, o.logEpoch), cmp.Compare(p.logSequence, o.logSequence))
}

// says reports whether a node says how far the log is.
func (p past) says() bool { return p.logEpoch > 0 || p.logSequence > 0 }

// remember keeps how far the logs of region leaders were, for the next process. h.mu is held.
func (h *heard) remember() {
	for _, r := range h.reports {
		now := pastOf(r)
		if !r.Leads() || !now.says() {
			continue
		}
		if was, known := h.past[r.Replica]; known && was.epoch == now.epoch && was.compare(now) > 0 {
			continue
		}
		if h.past == nil {
			h.past = make(map[metasrv.ReplicaID]past)
		}
		h.past[r.Replica] = now
	}
}

// compareWithPast refuses the region leaders of one table whose logs end before where an earlier process of the node had them: they
// are to be replaced. What is settled is forgotten. h.mu is held.
func (h *heard) compareWithPast(lines reports, a *Agreement) {
	if len(h.past) == 0 {
		return
	}
	for i, line := range lines {
		now := pastOf(line)
		was, known := h.past[line.Replica]
		switch {
		case !known, !now.says(), now.epoch < was.epoch:
			// Nothing is known yet: a process that has not heard of its epoch leads nothing.
		case now.epoch > was.epoch, line.Leads() && now.compare(was) >= 0:
			delete(h.past, line.Replica)
		case a.Standings[i] == Leading || a.Standings[i] == Outdated:
			a.Standings[i] = Refused
			a.Absent = append(a.Absent, Absence{Region: line.Region, Replica: line.Replica, SetBack: true})
		}
	}
}
