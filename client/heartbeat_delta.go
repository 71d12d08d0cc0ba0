package client

import (
	"math/rand/v2"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// fullEvery is the number of beats of which one reports every replica, changed or not.
const fullEvery = 60

// maxUnlisted is how many beats at the beginning of a stream have the digest of the replicas only.
const maxUnlisted = 10

// ReplicaDigest returns the digest of a node that has the replicas named: what a lease rests on, in any order.
func ReplicaDigest(stats []*metasrvpb.RegionStat) uint64 { return digest.Of(stats) }

// deltas makes of the full lists that a node collects what has changed since the request before on one stream.
type deltas struct {
	// sent has what metasrv has of each replica.
	sent map[replicaKey]*sentReplica
	// round counts the lists, beats those since the last full one, of which there are every at most.
	round        uint64
	beats, every int
	// unlisted counts the requests that had a digest only.
	unlisted int
}

// unlist puts only the digest of the first lists of a stream into a request, if metasrv knows digests: a new metasrv leader
// may find by it that all is as the state has it, and asks for the lists of all nodes in turn. False: it is to be listed.
func (d *deltas) unlist(request *metasrvpb.HeartbeatRequest, stats []*metasrvpb.RegionStat) bool {
	if d.sent != nil || len(stats) == 0 || d.unlisted == maxUnlisted {
		return false
	}
	d.unlisted++
	sum := digest.Of(stats)
	request.Digest = &sum
	return true
}

type sentReplica struct {
	stat *metasrvpb.RegionStat
	// round is that of the last list that had the replica.
	round uint64
}

// fill puts a list into a request: in full, or what changed. Counters are those of total instead of the list's own. A
// replica with counters that aren't 0 has always changed.
func (d *deltas) fill(request *metasrvpb.HeartbeatRequest, stats []*metasrvpb.RegionStat, total counts, full bool) {
	if full || d.beats >= d.every {
		d.every = fullEvery
		if d.sent == nil {
			// Nodes that were asked at the same time don't go on at the same time.
			d.every -= rand.N(fullEvery / 2) //nolint:gosec // spreads load, guards nothing
		}
		d.sent, d.beats, full = make(map[replicaKey]*sentReplica, len(stats)), 0, true
		request.RegionStats = make([]*metasrvpb.RegionStat, 0, len(stats))
	}
	d.beats++
	d.round++
	for _, s := range stats {
		key := keyOf(s)
		units := total.regions[key]
		known := d.sent[key]
		if known == nil {
			known = &sentReplica{}
			d.sent[key] = known
		}
		known.round = d.round
		if known.stat != nil && !full && units == (capacityUnits{}) && same(known.stat, s) {
			continue
		}
		stat := proto.CloneOf(s)
		stat.Rcus, stat.Wcus = units.rcus, units.wcus
		known.stat = stat
		request.RegionStats = append(request.RegionStats, stat)
	}
	request.FullReport = full
	sum := digest.Of(stats)
	request.Digest = &sum
	if len(d.sent) > len(stats) {
		d.remove(request)
	}
}

// remove puts the replicas that the last list lacks into a request.
func (d *deltas) remove(request *metasrvpb.HeartbeatRequest) {
	for key, known := range d.sent {
		if known.round != d.round {
			request.RemovedReplicas = append(request.RemovedReplicas, &metasrvpb.ReplicaRef{RegionId: key.region, ReplicaId: key.replica})
			delete(d.sent, key)
		}
	}
}

// same reports whether metasrv need not hear of a replica again that has no counts: what was sent has none either, and all
// else is as it was.
func same(sent, now *metasrvpb.RegionStat) bool {
	switch {
	case sent.GetRcus() != 0 || sent.GetWcus() != 0:
		return false
	case len(sent.GetAttrs())+len(now.GetAttrs())+len(sent.GetReplicaStates())+len(now.GetReplicaStates()) > 0:
		now = proto.CloneOf(now)
		now.Rcus, now.Wcus = 0, 0
		return proto.Equal(sent, now)
	}
	return digest.Stat(sent) == digest.Stat(now) &&
		sent.GetApproximateSize() == now.GetApproximateSize() && sent.GetApproximateRows() == now.GetApproximateRows() &&
		sent.GetLogEpoch() == now.GetLogEpoch() && sent.GetLogSequence() == now.GetLogSequence() &&
		sameTable(sent.GetTableName(), now.GetTableName())
}

func sameTable(a, b *metasrvpb.TableName) bool {
	return a.GetCatalogName() == b.GetCatalogName() && a.GetSchemaName() == b.GetSchemaName() && a.GetTableName() == b.GetTableName()
}
