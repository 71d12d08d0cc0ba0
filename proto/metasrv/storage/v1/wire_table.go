package storagepb

import (
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/proto/metasrv/storage/wire"
)

// WireSize is part of state.Coded.
func (m *CreateTable) WireSize() (int, bool) {
	s := wire.Sizer{}
	if !s.Look(m != nil) {
		return s.Size()
	}
	s.Unknown(m.unknownFields)
	wire.SizeBy(&s, m.Name, sizeName)
	wire.SizeBy(&s, m.Schema, sizeSchema)
	wire.SizeBy(&s, m.PartitionRule, sizeRule)
	s.Add(wire.SizeBytes(m.TableInfo))
	for _, region := range m.Regions {
		s.Part(region.size())
	}
	s.Varint(m.CreationToken)
	s.Varint(m.CreationTimeoutMs)
	s.Varint(uint64(m.WallTimeMs)) //nolint:gosec // as protobuf does
	s.Add(wire.SizeBool(m.Commit))
	s.Varint(uint64(m.Replicas))
	s.Add(wire.SizeBool(m.UncleanFailover))
	return s.Size()
}

func (m *PlannedRegion) size() (s wire.Sizer) {
	if !s.Look(m != nil) {
		return s
	}
	s.Unknown(m.unknownFields)
	s.Message(m.Partition)
	for _, replica := range m.Replicas {
		if s.Look(replica != nil) {
			s.Unknown(replica.unknownFields)
			s.Add(wire.SizeMessage(replica.size()))
		}
	}
	return s
}

func (m *PlannedReplica) size() int {
	return wire.SizeVarint(m.NodeId) + wire.SizeVarint(m.Incarnation)
}

// AppendWire is part of state.Coded.
func (m *CreateTable) AppendWire(b []byte) []byte {
	b = wire.AppendBy(b, 1, m.Name, sizeName, appendName)
	b = wire.AppendBy(b, 2, m.Schema, sizeSchema, appendSchema)
	b = wire.AppendBy(b, 3, m.PartitionRule, sizeRule, appendRule)
	b = wire.AppendBytes(b, 4, m.TableInfo)
	for _, region := range m.Regions {
		s := region.size()
		n, _ := s.Size()
		b = wire.AppendMessage(wire.AppendHead(b, 5, n), 1, region.Partition)
		for _, replica := range region.Replicas {
			b = wire.AppendHead(b, 2, replica.size())
			b = wire.AppendVarint(b, 1, replica.NodeId)
			b = wire.AppendVarint(b, 2, replica.Incarnation)
		}
	}
	b = wire.AppendVarint(b, 6, m.CreationToken)
	b = wire.AppendVarint(b, 7, m.CreationTimeoutMs)
	b = wire.AppendVarint(b, 8, uint64(m.WallTimeMs)) //nolint:gosec // as protobuf does
	b = wire.AppendBool(b, 9, m.Commit)
	b = wire.AppendVarint(b, 10, uint64(m.Replicas))
	return wire.AppendBool(b, 11, m.UncleanFailover)
}

// DecodeWire is part of state.Coded.
func (m *CreateTable) DecodeWire(b []byte) bool {
	r := wire.Read(b)
	m.Name = wire.MessageBy(&r, 1, decodeName)
	m.Schema = wire.MessageBy(&r, 2, decodeSchema)
	m.PartitionRule = wire.MessageBy(&r, 3, decodeRule)
	m.TableInfo = r.Bytes(4)
	var regions wire.Slab[PlannedRegion]
	var replicas wire.Slab[PlannedReplica]
	m.Regions = regions.Take(r.Count(5), 1)
	for i, region := range m.Regions {
		if !region.decode(r.Bytes(5), &replicas, len(m.Regions)-i) {
			return false
		}
	}
	m.CreationToken = r.Varint(6)
	m.CreationTimeoutMs = r.Varint(7)
	m.WallTimeMs = int64(r.Varint(8)) //nolint:gosec // as protobuf does
	m.Commit = r.Bool(9)
	m.Replicas = uint32(r.Varint(10)) //nolint:gosec // as protobuf does
	m.UncleanFailover = r.Bool(11)
	return r.Done()
}

func (m *PlannedRegion) decode(b []byte, replicas *wire.Slab[PlannedReplica], lists int) bool {
	r := wire.Read(b)
	m.Partition = wire.Message(&r, 1, m.Partition)
	m.Replicas = replicas.Take(r.Count(2), lists)
	for _, replica := range m.Replicas {
		f := wire.Read(r.Bytes(2))
		replica.NodeId = f.Varint(1)
		replica.Incarnation = f.Varint(2)
		if !f.Done() {
			return false
		}
	}
	return r.Done()
}

// LeftToProtobuf is part of state.Coded.
func (m *CreateTable) LeftToProtobuf() []proto.Message {
	list := []proto.Message{m.GetName(), m.GetSchema(), m.GetPartitionRule()}
	for _, region := range m.GetRegions() {
		if region.Partition != nil {
			list = append(list, region.Partition)
		}
	}
	return list
}

// WireSize is part of state.Coded.
func (m *CommitTable) WireSize() (int, bool) {
	s := wire.Sizer{}
	if !s.Look(m != nil) {
		return s.Size()
	}
	s.Unknown(m.unknownFields)
	s.Varint(m.TableId)
	s.Varint(m.CreationToken)
	s.Message(m.Schema)
	for _, replica := range m.Replicas {
		if s.Look(replica != nil) {
			s.Unknown(replica.unknownFields)
			s.Add(wire.SizeMessage(replica.size()))
		}
	}
	return s.Size()
}

func (m *CommittedReplica) size() int {
	return wire.SizeVarint(m.RegionId) + wire.SizeVarint(m.ReplicaId) + wire.SizeVarint(m.NodeId) + wire.SizeVarint(m.Incarnation)
}

// AppendWire is part of state.Coded.
func (m *CommitTable) AppendWire(b []byte) []byte {
	b = wire.AppendVarint(b, 1, m.TableId)
	b = wire.AppendVarint(b, 2, m.CreationToken)
	b = wire.AppendMessage(b, 3, m.Schema)
	for _, replica := range m.Replicas {
		b = wire.AppendHead(b, 4, replica.size())
		b = wire.AppendVarint(b, 1, replica.RegionId)
		b = wire.AppendVarint(b, 2, replica.ReplicaId)
		b = wire.AppendVarint(b, 3, replica.NodeId)
		b = wire.AppendVarint(b, 4, replica.Incarnation)
	}
	return b
}

// DecodeWire is part of state.Coded.
func (m *CommitTable) DecodeWire(b []byte) bool {
	r := wire.Read(b)
	m.TableId = r.Varint(1)
	m.CreationToken = r.Varint(2)
	m.Schema = wire.Message(&r, 3, m.Schema)
	var replicas wire.Slab[CommittedReplica]
	m.Replicas = replicas.Take(r.Count(4), 1)
	for _, replica := range m.Replicas {
		f := wire.Read(r.Bytes(4))
		replica.RegionId = f.Varint(1)
		replica.ReplicaId = f.Varint(2)
		replica.NodeId = f.Varint(3)
		replica.Incarnation = f.Varint(4)
		if !f.Done() {
			return false
		}
	}
	return r.Done()
}

// LeftToProtobuf is part of state.Coded.
func (m *CommitTable) LeftToProtobuf() []proto.Message { return []proto.Message{m.GetSchema()} }
