package heartbeat

import (
	"cmp"
	"math"
	"slices"
	"sync"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// RegionReport is what a node last said of one replica. It is kept in 80 bytes, without the table's name and
// the attrs, because a metasrv leader holds a million of them.
type RegionReport struct {
	Region      metasrv.RegionID
	Replica     metasrv.ReplicaID
	LeaderEpoch uint64
	ConfVersion uint64
	// LogEpoch and LogSequence are the end of its log, 0 where the node doesn't say.
	LogEpoch, LogSequence uint64
	// Size is in bytes, approximately; Rows approximately.
	Size, Rows uint64
	// RCUs and WCUs count capacity units in the node's last report interval; they end at 2^32-1.
	RCUs, WCUs uint32
	Role       metasrvpb.ReplicaRole
	// Demoted: the replica led its region and has been told to stop.
	Demoted bool
	// agreed: this process has reported the replica, in its present role and epoch, just as the state had it, in this term.
	agreed bool
}

// Stat returns the report as it is shown to clients.
func (r RegionReport) Stat() *metasrvpb.RegionStat {
	return &metasrvpb.RegionStat{
		RegionId:        uint64(r.Region),
		Rcus:            uint64(r.RCUs),
		Wcus:            uint64(r.WCUs),
		ApproximateSize: r.Size,
		ApproximateRows: r.Rows,
		ReplicaId:       uint64(r.Replica),
		Role:            r.Role,
		LeaderEpoch:     r.LeaderEpoch,
		ConfVersion:     r.ConfVersion,
		Demoted:         r.Demoted,
	}
}

// Leads says whether the node holds the replica for the region leader.
func (r RegionReport) Leads() bool {
	return r.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER && !r.Demoted
}

// sum returns what the replica adds to the digest of its node.
func (r RegionReport) sum() uint64 {
	return digest.Replica{
		RegionID: uint64(r.Region), ReplicaID: uint64(r.Replica), LeaderEpoch: r.LeaderEpoch, ConfVersion: r.ConfVersion,
		Role: r.Role, Demoted: r.Demoted,
	}.Sum()
}

// agreesWith says whether a lease rests on the same in both.
func (r RegionReport) agreesWith(o RegionReport) bool {
	return r.LeaderEpoch == o.LeaderEpoch && r.ConfVersion == o.ConfVersion && r.Role == o.Role && r.Demoted == o.Demoted
}

func (r RegionReport) compare(o RegionReport) int {
	return cmp.Or(cmp.Compare(r.Region, o.Region), cmp.Compare(r.Replica, o.Replica))
}

func reportOf(s *metasrvpb.RegionStat) RegionReport {
	return RegionReport{
		Region:      metasrv.RegionID(s.GetRegionId()),
		Replica:     metasrv.ReplicaID(s.GetReplicaId()),
		LeaderEpoch: s.GetLeaderEpoch(),
		ConfVersion: s.GetConfVersion(),
		LogEpoch:    s.GetLogEpoch(),
		LogSequence: s.GetLogSequence(),
		Size:        s.GetApproximateSize(),
		Rows:        s.GetApproximateRows(),
		RCUs:        uint32(min(s.GetRcus(), math.MaxUint32)), //nolint:gosec // bounded
		WCUs:        uint32(min(s.GetWcus(), math.MaxUint32)), //nolint:gosec // bounded
		Role:        s.GetRole(),
		Demoted:     s.GetDemoted(),
	}
}

// reports are the last reports of one node, sorted by region, then replica.
type reports []RegionReport

// delta is what a beat changed in the reports of its node.
type delta struct {
	// digest is the difference of the digests.
	digest uint64
	// tables have a replica that came, went, or changed in what a lease rests on. Some may be named twice.
	tables []metasrv.TableID
}

func (d *delta) came(r RegionReport) {
	d.digest += r.sum()
	d.touch(r.Region)
}

func (d *delta) went(r RegionReport) {
	d.digest -= r.sum()
	d.touch(r.Region)
}

// changed notes that a replica is reported anew, and returns the line to keep.
func (d *delta) changed(was, now RegionReport) RegionReport {
	if !was.agreesWith(now) {
		d.went(was)
		d.came(now)
	}
	now.agreed = was.agreed && was.Leads() && now.Leads() && was.LeaderEpoch == now.LeaderEpoch
	return now
}

func (d *delta) touch(region metasrv.RegionID) {
	table := region.Table()
	if n := len(d.tables); n == 0 || d.tables[n-1] != table {
		d.tables = append(d.tables, table)
	}
}

// scratch holds lists that are sorted before they are taken.
var scratch = sync.Pool{New: func() any { return new(reports) }}

// replace takes a full list. It works in place, because there may be many beats a second with a thousand replicas each.
func (r reports) replace(stats []*metasrvpb.RegionStat) (reports, delta) {
	list := scratch.Get().(*reports)
	defer scratch.Put(list)
	next := (*list)[:0]
	for _, s := range stats {
		next = append(next, reportOf(s))
	}
	next = next.sorted()
	*list = next
	var d delta
	i := 0
	for j := range next {
		for i < len(r) && r[i].compare(next[j]) < 0 {
			d.went(r[i])
			i++
		}
		if i < len(r) && r[i].compare(next[j]) == 0 {
			next[j] = d.changed(r[i], next[j])
			i++
			continue
		}
		d.came(next[j])
	}
	for ; i < len(r); i++ {
		d.went(r[i])
	}
	if cap(r) > 64 && cap(r) > 4*len(next) {
		r = make(reports, 0, len(next))
	}
	return append(r[:0], next...), d
}

// update takes the replicas of which something changed, and those that are gone.
func (r reports) update(stats []*metasrvpb.RegionStat, removed []*metasrvpb.ReplicaRef) (reports, delta) {
	var d delta
	known := len(r)
	for _, s := range stats {
		report := reportOf(s)
		if i, ok := r[:known].search(report.Region, report.Replica); ok {
			r[i] = d.changed(r[i], report)
			continue
		}
		r = append(r, report)
	}
	if len(r) > known {
		r = r.take(known, &d)
	}
	for _, ref := range removed {
		if i, ok := r.search(metasrv.RegionID(ref.GetRegionId()), metasrv.ReplicaID(ref.GetReplicaId())); ok {
			d.went(r[i])
			r = slices.Delete(r, i, i+1)
		}
	}
	return r, d
}

// take brings the lines behind the known ones into their places.
func (r reports) take(known int, d *delta) reports {
	fresh := r[known:].sorted()
	for _, report := range fresh {
		d.came(report)
	}
	return r[:known+len(fresh)].sorted()
}

// sorted sorts the lines, and keeps the first of those that name the same replica.
func (r reports) sorted() reports {
	if !slices.IsSortedFunc(r, RegionReport.compare) {
		slices.SortStableFunc(r, RegionReport.compare)
	}
	return slices.CompactFunc(r, func(a, b RegionReport) bool { return a.compare(b) == 0 })
}

// table returns the lines of one table.
func (r reports) table(id metasrv.TableID) reports {
	from, _ := r.search(metasrv.NewRegionID(id, 0), 0)
	to, _ := r.search(metasrv.NewRegionID(id+1, 0), 0)
	return r[from:to]
}

func (r reports) search(region metasrv.RegionID, replica metasrv.ReplicaID) (int, bool) {
	return slices.BinarySearchFunc(r, RegionReport{Region: region, Replica: replica}, RegionReport.compare)
}

// region returns the lines of one region.
func (r reports) region(id metasrv.RegionID) reports {
	from, _ := r.search(id, 0)
	to, _ := r.search(id+1, 0)
	return r[from:to]
}

// find returns the report of a replica. Nodes that speak only the early public protocol know no replica ids:
// what they say of the region is it then.
func (r reports) find(region metasrv.RegionID, replica metasrv.ReplicaID) (RegionReport, bool) {
	if i, ok := r.search(region, replica); ok {
		return r[i], true
	}
	if i, ok := r.search(region, 0); ok {
		return r[i], true
	}
	return RegionReport{}, false
}
