package storagepb

import (
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/proto/metasrv/storage/wire"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// WireSize is part of state.Coded.
func (m *TableRecord) WireSize() (int, bool) {
	s := wire.Sizer{}
	if !s.Look(m != nil) {
		return s.Size()
	}
	s.Unknown(m.unknownFields)
	s.Varint(m.Id)
	wire.SizeBy(&s, m.Name, sizeName)
	s.Varint(uint64(m.State)) //nolint:gosec // as protobuf does
	wire.SizeBy(&s, m.Schema, sizeSchema)
	s.Varint(m.SchemaVersion)
	wire.SizeBy(&s, m.PartitionRule, sizeRule)
	s.Add(wire.SizeBytes(m.TableInfo))
	s.Varint(uint64(m.CreatedAtMs)) //nolint:gosec // as protobuf does
	s.Varint(m.CreationToken)
	s.Varint(m.CreationDeadlineMs)
	reason, text := sizeText(m.Reason)
	s.Add(reason)
	n, ok := s.Size()
	return n, ok && text
}

// AppendWire is part of state.Coded.
func (m *TableRecord) AppendWire(b []byte) []byte {
	b = wire.AppendVarint(b, 1, m.Id)
	b = wire.AppendBy(b, 2, m.Name, sizeName, appendName)
	b = wire.AppendVarint(b, 3, uint64(m.State)) //nolint:gosec // as protobuf does
	b = wire.AppendBy(b, 4, m.Schema, sizeSchema, appendSchema)
	b = wire.AppendVarint(b, 5, m.SchemaVersion)
	b = wire.AppendBy(b, 6, m.PartitionRule, sizeRule, appendRule)
	b = wire.AppendBytes(b, 7, m.TableInfo)
	b = wire.AppendVarint(b, 8, uint64(m.CreatedAtMs)) //nolint:gosec // as protobuf does
	b = wire.AppendVarint(b, 9, m.CreationToken)
	b = wire.AppendVarint(b, 10, m.CreationDeadlineMs)
	return wire.AppendText(b, 11, m.Reason)
}

// DecodeWire is part of state.Coded.
func (m *TableRecord) DecodeWire(b []byte) bool {
	r := wire.Read(b)
	m.Id = r.Varint(1)
	m.Name = wire.MessageBy(&r, 2, decodeName)
	m.State = metasrvpb.TableState(r.Varint(3)) //nolint:gosec // as protobuf does
	m.Schema = wire.MessageBy(&r, 4, decodeSchema)
	m.SchemaVersion = r.Varint(5)
	m.PartitionRule = wire.MessageBy(&r, 6, decodeRule)
	m.TableInfo = r.Bytes(7)
	m.CreatedAtMs = int64(r.Varint(8)) //nolint:gosec // as protobuf does
	m.CreationToken = r.Varint(9)
	m.CreationDeadlineMs = r.Varint(10)
	m.Reason = r.Text(11)
	return r.Done()
}

// LeftToProtobuf is part of state.Coded.
func (m *TableRecord) LeftToProtobuf() []proto.Message {
	return []proto.Message{m.GetName(), m.GetSchema(), m.GetPartitionRule()}
}
