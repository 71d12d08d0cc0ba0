// Package digest sums up what a lease rests on: which replicas a node has, in which role, epoch and configuration.
// Node and metasrv leader compute it each from what they hold, so that neither acts on a report that the other doesn't have.
package digest

import (
	"math/bits"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Replica is what a lease rests on of one replica.
type Replica struct {
	RegionID, ReplicaID      uint64
	LeaderEpoch, ConfVersion uint64
	Role                     metasrvpb.ReplicaRole
	Demoted                  bool
}

// Sum returns the number that a replica adds to the digest of its node. The digest of a node is the sum over all its
// replicas, in any order, modulo 2^64; that of a node without replicas is 0.
func (r Replica) Sum() uint64 {
	role := uint64(r.Role) << 1
	if r.Demoted {
		role |= 1
	}
	h := mix(r.RegionID)
	h = mix(h ^ r.ReplicaID)
	h = mix(h ^ bits.RotateLeft64(r.LeaderEpoch, 32) ^ r.ConfVersion)
	return mix(h ^ role)
}

// Of returns the digest of a node that has the replicas that a full report names.
func Of(stats []*metasrvpb.RegionStat) uint64 {
	sum := uint64(0)
	for _, s := range stats {
		sum += Stat(s).Sum()
	}
	return sum
}

// Stat returns what a lease rests on of a reported replica.
func Stat(s *metasrvpb.RegionStat) Replica {
	return Replica{
		RegionID: s.GetRegionId(), ReplicaID: s.GetReplicaId(),
		LeaderEpoch: s.GetLeaderEpoch(), ConfVersion: s.GetConfVersion(),
		Role: s.GetRole(), Demoted: s.GetDemoted(),
	}
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
