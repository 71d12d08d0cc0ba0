package router

import (
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// Condition is what is known of a replica besides the state: whether it can serve its region now.
type Condition uint8

const (
	// Reachable replicas are on a node that is heard, and can take part in their region.
	Reachable Condition = iota
	// Silent ones are on a node that is not heard, and may have a lease still.
	Silent
	// Failed ones are on a node that may serve nothing any more, until it is heard again.
	Failed
	// Down ones are on a node that has been silent for so long that it is not waited for.
	Down
	// Absent ones are on a node that is heard, and doesn't have them.
	Absent
	// SetBack ones lead, and are on a node whose disk was set back: they lack rows that were acknowledged.
	SetBack
	// OtherStorage replicas are lost: they were on other storage than their node has now.
	OtherStorage
	// Removed ones are on a node that was removed from the cluster, and whose id is never given again.
	Removed
	// Unleased ones are on a node that keeps no leases: what it serves is never taken from it, nor given to it.
	Unleased
	// UnleasedSilent ones are on such a node, which is not heard.
	UnleasedSilent
	// GroupSilent ones are on a node of a group, which is not heard: the group gets another writer.
	GroupSilent
)

// serves says whether a replica in a condition may acknowledge writes, or be needed for that.
func (c Condition) serves() bool { return c <= Silent || c >= Unleased }

// gone says whether a replica in a condition is not waited for, however long: it will not come back as it was.
func (c Condition) gone() bool {
	return c == Absent || c == SetBack || c == OtherStorage || c == Removed
}

// Succession says who can lead a region instead of the replica that does.
type Succession struct {
	// Candidates have every row that was acknowledged, but where Unclean is set; nobody is one who can't serve the region
	// now. Empty: nobody can.
	Candidates []*storagepb.ReplicaRecord
	// Failed leave the in-sync set with the election.
	Failed []uint64
	// Unclean: rows that were acknowledged may be lost, which the table allows.
	Unclean bool
}

// Succeed returns who can lead a region whose leader can't, given the conditions of its replicas. Only replicas of the
// committed in-sync set can; others only in a table that allows to lose rows, and only when nobody in the set is waited for.
func Succeed(route *storagepb.RouteRecord, region *storagepb.RegionRecord, condition func(*storagepb.ReplicaRecord) Condition) Succession {
	var s Succession
	var outside []*storagepb.ReplicaRecord
	waitedFor := false
	for _, replica := range region.GetReplicas() {
		c := condition(replica)
		leads := replica.GetReplicaId() == region.GetLeaderReplicaId()
		switch {
		case !replica.GetInSync():
			if c == Reachable && !replica.GetLearner() {
				outside = append(outside, replica)
			}
			continue
		case c == Reachable && !leads:
			s.Candidates = append(s.Candidates, replica)
		case leads || !c.serves():
			s.Failed = append(s.Failed, replica.GetReplicaId())
		}
		waitedFor = waitedFor || c != Down && !c.gone()
	}
	if len(s.Candidates) == 0 && !waitedFor && route.GetUncleanFailover() && len(outside) > 0 {
		s.Candidates, s.Unclean = outside, true
	}
	return s
}
