package state

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// decodeRoute is decodeHot for the messages of sizeRoute.
func decodeRoute(b []byte, m proto.Message) bool {
	switch m := m.(type) {
	case *storagepb.RouteRecord:
		return decodeRouteRecord(b, m)
	case *storagepb.CreateTable:
		return decodeCreateTable(b, m)
	case *storagepb.CommitTable:
		return decodeCommitTable(b, m)
	}
	return false
}

// slab hands out messages that are made many at once.
type slab[T any] struct {
	free     []T
	pointers []*T
}

// slabRoom bounds what is made at once beyond what is asked for.
const slabRoom = 256

// take returns n messages. It makes room for as many lists of that length as the caller says will follow.
func (s *slab[T]) take(n, lists int) []*T {
	if n == 0 {
		return nil
	}
	if len(s.free) < n {
		room := max(n, min(n*lists, slabRoom))
		s.free, s.pointers = make([]T, room), make([]*T, room)
	}
	list := s.pointers[:n:n]
	for i := range list {
		list[i] = &s.free[i]
	}
	s.free, s.pointers = s.free[n:], s.pointers[n:]
	return list
}

// nested decodes a message by protobuf where the field is there; nil where it isn't. Its last argument says which
// message.
func nested[M any, P interface {
	*M
	proto.Message
}](r *reader, field protowire.Number, _ P) P {
	b := r.bytes(field)
	if b == nil {
		return nil
	}
	m := P(new(M))
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil || proto.Size(m) != len(b) {
		r.broken = true
	}
	return m
}

func decodeRouteRecord(b []byte, m *storagepb.RouteRecord) bool {
	r := reader{b: b}
	m.TableId = r.varint(1)
	m.RouteVersion = r.varint(2)
	var regions slab[storagepb.RegionRecord]
	var replicas slab[storagepb.ReplicaRecord]
	m.Regions = regions.take(r.count(3), 1)
	for i, region := range m.Regions {
		if !decodeRegion(r.bytes(3), region, &replicas, len(m.Regions)-i) {
			return false
		}
	}
	return r.done()
}

func decodeRegion(b []byte, m *storagepb.RegionRecord, replicas *slab[storagepb.ReplicaRecord], lists int) bool {
	r := reader{b: b}
	m.RegionId = r.varint(1)
	m.PartitionNumber = uint32(r.varint(2)) //nolint:gosec // as protobuf does
	m.Partition = nested(&r, 3, m.Partition)
	m.LeaderEpoch = r.varint(4)
	m.ConfVersion = r.varint(5)
	m.LeaderReplicaId = r.varint(6)
	m.Replicas = replicas.take(r.count(7), lists)
	for _, replica := range m.Replicas {
		f := reader{b: r.bytes(7)}
		replica.ReplicaId = f.varint(1)
		replica.NodeId = f.varint(2)
		replica.PlannedIncarnation = f.varint(3)
		replica.InSync = f.bool(4)
		replica.Dropped = f.bool(5)
		if !f.done() {
			return false
		}
	}
	return r.done()
}

func decodeCreateTable(b []byte, m *storagepb.CreateTable) bool {
	r := reader{b: b}
	m.Name = nested(&r, 1, m.Name)
	m.Schema = nested(&r, 2, m.Schema)
	m.PartitionRule = nested(&r, 3, m.PartitionRule)
	m.TableInfo = r.bytes(4)
	var regions slab[storagepb.PlannedRegion]
	var replicas slab[storagepb.PlannedReplica]
	m.Regions = regions.take(r.count(5), 1)
	for i, region := range m.Regions {
		if !decodePlannedRegion(r.bytes(5), region, &replicas, len(m.Regions)-i) {
			return false
		}
	}
	m.CreationToken = r.varint(6)
	m.CreationTimeoutMs = r.varint(7)
	m.WallTimeMs = int64(r.varint(8)) //nolint:gosec // as protobuf does
	m.Commit = r.bool(9)
	return r.done()
}

func decodePlannedRegion(b []byte, m *storagepb.PlannedRegion, replicas *slab[storagepb.PlannedReplica], lists int) bool {
	r := reader{b: b}
	m.Partition = nested(&r, 1, m.Partition)
	m.Replicas = replicas.take(r.count(2), lists)
	for _, replica := range m.Replicas {
		f := reader{b: r.bytes(2)}
		replica.NodeId = f.varint(1)
		replica.Incarnation = f.varint(2)
		if !f.done() {
			return false
		}
	}
	return r.done()
}

func decodeCommitTable(b []byte, m *storagepb.CommitTable) bool {
	r := reader{b: b}
	m.TableId = r.varint(1)
	m.CreationToken = r.varint(2)
	m.Schema = nested(&r, 3, m.Schema)
	var replicas slab[storagepb.CommittedReplica]
	m.Replicas = replicas.take(r.count(4), 1)
	for _, replica := range m.Replicas {
		f := reader{b: r.bytes(4)}
		replica.RegionId = f.varint(1)
		replica.ReplicaId = f.varint(2)
		replica.NodeId = f.varint(3)
		replica.Incarnation = f.varint(4)
		if !f.done() {
			return false
		}
	}
	return r.done()
}
