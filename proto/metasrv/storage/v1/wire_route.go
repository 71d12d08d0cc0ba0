package storagepb

import (
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/proto/metasrv/storage/wire"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// WireSize is part of state.Coded.
func (m *RouteRecord) WireSize() (int, bool) {
	s := wire.Sizer{}
	if !s.Look(m != nil) {
		return s.Size()
	}
	s.Unknown(m.unknownFields)
	s.Varint(m.TableId)
	s.Varint(m.RouteVersion)
	for _, region := range m.Regions {
		s.Part(region.size())
	}
	s.Varint(uint64(m.Replicas))
	s.Add(wire.SizeBool(m.UncleanFailover))
	s.Varint(uint64(m.Storage)) //nolint:gosec // as protobuf does
	return s.Size()
}

func (m *RegionRecord) size() (s wire.Sizer) {
	if !s.Look(m != nil) {
		return s
	}
	s.Unknown(m.unknownFields)
	s.Varint(m.RegionId)
	s.Varint(uint64(m.PartitionNumber))
	s.Message(m.Partition)
	s.Varint(m.LeaderEpoch)
	s.Varint(m.ConfVersion)
	s.Varint(m.LeaderReplicaId)
	for _, replica := range m.Replicas {
		if s.Look(replica != nil) {
			s.Unknown(replica.unknownFields)
			s.Add(wire.SizeMessage(replica.size()))
		}
	}
	s.Add(wire.SizeBool(m.Demoting))
	return s
}

func (m *ReplicaRecord) size() int {
	return wire.SizeVarint(m.ReplicaId) + wire.SizeVarint(m.NodeId) + wire.SizeVarint(m.PlannedIncarnation) +
		wire.SizeBool(m.InSync) + wire.SizeBool(m.Dropped) +
		wire.SizeBool(m.Learner) + wire.SizeVarint(m.StorageGeneration)
}

// AppendWire is part of state.Coded.
func (m *RouteRecord) AppendWire(b []byte) []byte {
	b = wire.AppendVarint(b, 1, m.TableId)
	b = wire.AppendVarint(b, 2, m.RouteVersion)
	for _, region := range m.Regions {
		s := region.size()
		n, _ := s.Size()
		b = region.append(wire.AppendHead(b, 3, n))
	}
	b = wire.AppendVarint(b, 4, uint64(m.Replicas))
	b = wire.AppendBool(b, 5, m.UncleanFailover)
	return wire.AppendVarint(b, 6, uint64(m.Storage)) //nolint:gosec // as protobuf does
}

func (m *RegionRecord) append(b []byte) []byte {
	b = wire.AppendVarint(b, 1, m.RegionId)
	b = wire.AppendVarint(b, 2, uint64(m.PartitionNumber))
	b = wire.AppendMessage(b, 3, m.Partition)
	b = wire.AppendVarint(b, 4, m.LeaderEpoch)
	b = wire.AppendVarint(b, 5, m.ConfVersion)
	b = wire.AppendVarint(b, 6, m.LeaderReplicaId)
	for _, replica := range m.Replicas {
		b = wire.AppendHead(b, 7, replica.size())
		b = wire.AppendVarint(b, 1, replica.ReplicaId)
		b = wire.AppendVarint(b, 2, replica.NodeId)
		b = wire.AppendVarint(b, 3, replica.PlannedIncarnation)
		b = wire.AppendBool(b, 4, replica.InSync)
		b = wire.AppendBool(b, 5, replica.Dropped)
		b = wire.AppendBool(b, 6, replica.Learner)
		b = wire.AppendVarint(b, 7, replica.StorageGeneration)
	}
	return wire.AppendBool(b, 8, m.Demoting)
}

// DecodeWire is part of state.Coded.
func (m *RouteRecord) DecodeWire(b []byte) bool {
	r := wire.Read(b)
	m.TableId = r.Varint(1)
	m.RouteVersion = r.Varint(2)
	var regions wire.Slab[RegionRecord]
	var replicas wire.Slab[ReplicaRecord]
	m.Regions = regions.Take(r.Count(3), 1)
	for i, region := range m.Regions {
		if !region.decode(r.Bytes(3), &replicas, len(m.Regions)-i) {
			return false
		}
	}
	m.Replicas = uint32(r.Varint(4)) //nolint:gosec // as protobuf does
	m.UncleanFailover = r.Bool(5)
	m.Storage = metasrvpb.StorageKind(r.Varint(6)) //nolint:gosec // as protobuf does
	return r.Done()
}

func (m *RegionRecord) decode(b []byte, replicas *wire.Slab[ReplicaRecord], lists int) bool {
	r := wire.Read(b)
	m.RegionId = r.Varint(1)
	m.PartitionNumber = uint32(r.Varint(2)) //nolint:gosec // as protobuf does
	m.Partition = wire.Message(&r, 3, m.Partition)
	m.LeaderEpoch = r.Varint(4)
	m.ConfVersion = r.Varint(5)
	m.LeaderReplicaId = r.Varint(6)
	m.Replicas = replicas.Take(r.Count(7), lists)
	for _, replica := range m.Replicas {
		f := wire.Read(r.Bytes(7))
		replica.ReplicaId = f.Varint(1)
		replica.NodeId = f.Varint(2)
		replica.PlannedIncarnation = f.Varint(3)
		replica.InSync = f.Bool(4)
		replica.Dropped = f.Bool(5)
		replica.Learner = f.Bool(6)
		replica.StorageGeneration = f.Varint(7)
		if !f.Done() {
			return false
		}
	}
	m.Demoting = r.Bool(8)
	return r.Done()
}

// LeftToProtobuf is part of state.Coded.
func (m *RouteRecord) LeftToProtobuf() []proto.Message {
	var list []proto.Message
	for _, region := range m.GetRegions() {
		if region.Partition != nil {
			list = append(list, region.Partition)
		}
	}
	return list
}
