package heartbeat

import (
	"cmp"
	"math"
	"math/bits"
	"slices"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// RegionReport is what a node last said of one replica. It is kept in 64 bytes, without the table's name and
// the attrs, because a metasrv leader holds a million of them.
type RegionReport struct {
	Region      metasrv.RegionID
	Replica     metasrv.ReplicaID
	LeaderEpoch uint64
	ConfVersion uint64
	// Size is in bytes, approximately; Rows approximately.
	Size, Rows uint64
	// RCUs and WCUs count capacity units in the node's last report interval; they end at 2^32-1.
	RCUs, WCUs uint32
	Role       metasrvpb.ReplicaRole
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
	}
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
		Size:        s.GetApproximateSize(),
		Rows:        s.GetApproximateRows(),
		RCUs:        uint32(min(s.GetRcus(), math.MaxUint32)), //nolint:gosec // bounded
		WCUs:        uint32(min(s.GetWcus(), math.MaxUint32)), //nolint:gosec // bounded
		Role:        s.GetRole(),
	}
}

// reports are the last reports of one node, sorted by region, then replica.
type reports []RegionReport

// update takes a beat's list: in full, or for the replicas that it names. It works in place, because there
// may be a thousand beats a second with a thousand replicas each.
func (r reports) update(stats []*metasrvpb.RegionStat, full bool) reports {
	if full {
		r = r[:0]
		if cap(r) > 64 && cap(r) > 4*len(stats) {
			r = make(reports, 0, len(stats))
		}
	}
	known := len(r)
	for _, s := range stats {
		report := reportOf(s)
		if i, ok := r[:known].search(report.Region, report.Replica); ok {
			r[i] = report
			continue
		}
		r = append(r, report)
	}
	if !slices.IsSortedFunc(r, RegionReport.compare) {
		slices.SortStableFunc(r, RegionReport.compare)
	}
	return slices.CompactFunc(r, func(a, b RegionReport) bool { return a.compare(b) == 0 })
}

func (r reports) search(region metasrv.RegionID, replica metasrv.ReplicaID) (int, bool) {
	return slices.BinarySearchFunc(r, RegionReport{Region: region, Replica: replica}, RegionReport.compare)
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

// identity sums up which replicas a list names, with their epochs, in any order.
func identity(stats []*metasrvpb.RegionStat) uint64 {
	sum := uint64(len(stats))
	for _, s := range stats {
		h := mix(s.GetRegionId())
		h = mix(h ^ s.GetReplicaId())
		h = mix(h ^ bits.RotateLeft64(s.GetLeaderEpoch(), 32) ^ s.GetConfVersion())
		sum += h
	}
	return sum
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
