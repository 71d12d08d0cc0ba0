package router

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router/partition"
)

// Numbers of further fields of the answer to a creation.
const (
	tableField           = 1  // of TableRoute
	routeVersionField    = 20 // of TableRoute
	creationTokenField   = 21 // of TableRoute
	creationTimeField    = 22 // of TableRoute
	regionField          = 1  // of RegionRoute
	leaderEpochField     = 20 // of RegionRoute
	confVersionField     = 21 // of RegionRoute
	leaderReplicaField   = 22 // of RegionRoute
	followerIDsField     = 23 // of RegionRoute
	regionIDField        = 1  // of Region
	regionNameField      = 2  // of Region
	regionPartitionField = 3  // of Region
	regionNumberField    = 20 // of Region
)

// EncodeCreation returns the fields peers and table_routes of the answer to a creation, as a Builder with AddCreation has
// them. Nobody asks for it a second time, so it is not kept; it is written without messages for its regions, which were
// an eighth of the price of a creation.
func (e *Encoder) EncodeCreation(v state.View, r Record, now state.LeaderTime) []byte {
	w := creationWriter{compat: compatOf(r)}
	for _, region := range r.Route.Regions {
		for _, replica := range region.Replicas {
			if !replica.Learner { // as Builder.Add
				w.nodes.index(metasrv.NodeID(replica.NodeId))
			}
		}
	}
	w.b = make([]byte, 0, 256+64*len(w.nodes.ids)+96*len(r.Route.Regions))
	for _, id := range w.nodes.ids {
		w.b = append(w.b, e.peer(v, id)...)
	}
	route := w.open(tableRoutesField)
	w.message(tableField, catalog.ToTable(r.Table))
	for _, region := range r.Route.Regions {
		w.region(region)
	}
	w.varint(routeVersionField, r.Route.RouteVersion)
	w.varint(creationTokenField, r.Table.CreationToken)
	if left := r.Table.CreationDeadlineMs; left > uint64(now) {
		w.varint(creationTimeField, left-uint64(now))
	}
	w.close(route)
	return w.b
}

// compatOf returns the partitions of a table in the form of the early public protocol, nil where its rule has none there.
func compatOf(r Record) *partition.Partitioner {
	if r.Table.PartitionRule.GetRange() == nil {
		return nil
	}
	rule, err := partition.New(r.Table.PartitionRule, r.Table.Schema)
	if err != nil {
		return nil // as Builder.Add
	}
	return rule
}

// creationWriter writes messages, each with the length of its parts before them.
type creationWriter struct {
	b      []byte
	nodes  dictionary
	compat *partition.Partitioner
}

func (w *creationWriter) varint(field protowire.Number, v uint64) {
	if v != 0 {
		w.b = protowire.AppendVarint(protowire.AppendTag(w.b, field, protowire.VarintType), v)
	}
}

func (w *creationWriter) message(field protowire.Number, m proto.Message) {
	start := w.open(field)
	w.b = append(w.b, state.Encode(m)...)
	w.close(start)
}

// open begins a part of unknown length, close ends it.
func (w *creationWriter) open(field protowire.Number) (start int) {
	w.b = append(protowire.AppendTag(w.b, field, protowire.BytesType), 0)
	return len(w.b)
}

func (w *creationWriter) close(start int) {
	n := len(w.b) - start
	if more := protowire.SizeVarint(uint64(n)) - 1; more > 0 { //nolint:gosec // never negative
		w.b = append(w.b, make([]byte, more)...)
		copy(w.b[start+more:], w.b[start:start+n])
	}
	protowire.AppendVarint(w.b[:start-1], uint64(n)) //nolint:gosec // never negative
}

func (w *creationWriter) region(r *storagepb.RegionRecord) {
	start := w.open(regionRoutesField)
	region := w.open(regionField)
	w.varint(regionIDField, r.RegionId)
	w.b = protowire.AppendString(protowire.AppendTag(w.b, regionNameField, protowire.BytesType), metasrv.RegionID(r.RegionId).String())
	if r.Partition != nil {
		w.message(regionPartitionField, r.Partition)
	} else if w.compat != nil {
		if p := w.compat.Compat(int(r.PartitionNumber)); p != nil {
			w.message(regionPartitionField, p)
		}
	}
	w.varint(regionNumberField, uint64(r.PartitionNumber))
	w.close(region)
	w.peers(r)
	w.varint(leaderEpochField, r.LeaderEpoch)
	w.varint(confVersionField, r.ConfVersion)
	w.varint(leaderReplicaField, r.LeaderReplicaId)
	w.followers(followerIDsField, r, func(replica *storagepb.ReplicaRecord) uint64 { return replica.ReplicaId })
	w.close(start)
}

func (w *creationWriter) peers(r *storagepb.RegionRecord) {
	leader := uint64(NoLeader)
	for _, replica := range r.Replicas {
		if replica.ReplicaId == r.LeaderReplicaId && !replica.Learner {
			leader = w.nodes.index(metasrv.NodeID(replica.NodeId))
		}
	}
	w.varint(leaderPeerField, leader)
	w.followers(followerPeersField, r, func(replica *storagepb.ReplicaRecord) uint64 {
		return w.nodes.index(metasrv.NodeID(replica.NodeId))
	})
}

// followers writes a number of each replica that doesn't lead and can be read.
func (w *creationWriter) followers(field protowire.Number, r *storagepb.RegionRecord, number func(*storagepb.ReplicaRecord) uint64) {
	before := len(w.b)
	start := w.open(field)
	for _, replica := range r.Replicas {
		if replica.ReplicaId != r.LeaderReplicaId && !replica.Learner {
			w.b = protowire.AppendVarint(w.b, number(replica))
		}
	}
	if len(w.b) == start {
		w.b = w.b[:before]
		return
	}
	w.close(start)
}
