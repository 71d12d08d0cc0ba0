package storagepb

import (
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/proto/metasrv/storage/wire"
)

// WireSize is part of state.Coded.
func (m *Put) WireSize() (int, bool) {
	if m == nil || len(m.ProtoReflect().GetUnknown()) > 0 {
		return 0, false
	}
	return wire.SizeBytes(m.Key) + wire.SizeBytes(m.Value) + wire.SizeBool(m.PrevKv), true
}

// AppendWire is part of state.Coded.
func (m *Put) AppendWire(b []byte) []byte {
	b = wire.AppendBytes(b, 1, m.Key)
	b = wire.AppendBytes(b, 2, m.Value)
	return wire.AppendBool(b, 3, m.PrevKv)
}

// DecodeWire is part of state.Coded.
func (m *Put) DecodeWire(b []byte) bool {
	r := wire.Read(b)
	m.Key = r.Bytes(1)
	m.Value = r.Bytes(2)
	m.PrevKv = r.Bool(3)
	return r.Done()
}

// LeftToProtobuf is part of state.Coded.
func (m *Put) LeftToProtobuf() []proto.Message { return nil }

// WireSize is part of state.Coded. A result that isn't there is encoded as an empty one.
func (m *KvResult) WireSize() (int, bool) {
	switch {
	case m == nil:
		return 0, true
	case len(m.Prev) > 0 || len(m.ProtoReflect().GetUnknown()) > 0:
		return 0, false
	}
	return wire.SizeBool(m.Success) + wire.SizeVarint(uint64(m.Deleted)), true //nolint:gosec // as protobuf does
}

// AppendWire is part of state.Coded.
func (m *KvResult) AppendWire(b []byte) []byte {
	b = wire.AppendBool(b, 1, m.GetSuccess())
	return wire.AppendVarint(b, 2, uint64(m.GetDeleted())) //nolint:gosec // as protobuf does
}

// DecodeWire is part of state.Coded.
func (m *KvResult) DecodeWire(b []byte) bool {
	r := wire.Read(b)
	m.Success = r.Bool(1)
	m.Deleted = int64(r.Varint(2)) //nolint:gosec // as protobuf does
	return r.Done()
}

// LeftToProtobuf is part of state.Coded.
func (m *KvResult) LeftToProtobuf() []proto.Message { return nil }

// ShareWith gives another result what this one has, without a copy; false where the other is of another kind. It is what
// state.Result.Decode needs at every write.
func (m *KvResult) ShareWith(other proto.Message) bool {
	to, ok := other.(*KvResult)
	if ok {
		to.Success, to.Deleted, to.Prev = m.GetSuccess(), m.GetDeleted(), m.GetPrev()
	}
	return ok
}
