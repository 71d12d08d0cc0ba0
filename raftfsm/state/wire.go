package state

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// The messages that every write carries are encoded and decoded by hand: the same bytes as protobuf's, at a tenth of
// the price. A decoder here takes only what its encoder writes, each field at most once and in order of their numbers;
// everything else, such as an unknown field, is left to protobuf.

// decodeHot fills m, which is empty, from b if m is such a message and b is written as expected; else m may be left
// half filled. Bytes of m share memory with b.
func decodeHot(b []byte, m proto.Message) bool {
	switch m := m.(type) {
	case *storagepb.Entry:
		return decodeEntry(b, m)
	case *storagepb.Put:
		return decodePut(b, m)
	case *storagepb.KvResult:
		return decodeKvResult(b, m)
	}
	return decodeRoute(b, m)
}

// sizeHot returns the size of the encoding of m, false if m is no such message.
func sizeHot(m proto.Message) (int, bool) {
	switch m := m.(type) {
	case *storagepb.Put:
		if m != nil && len(m.ProtoReflect().GetUnknown()) == 0 {
			return sizeBytes(m.Key) + sizeBytes(m.Value) + sizeBool(m.PrevKv), true
		}
		return 0, false
	case *storagepb.KvResult:
		switch {
		case m == nil:
			return 0, true
		case len(m.Prev) == 0 && len(m.ProtoReflect().GetUnknown()) == 0:
			return sizeBool(m.Success) + sizeVarint(uint64(m.Deleted)), true //nolint:gosec // as protobuf does
		}
		return 0, false
	}
	return sizeRoute(m)
}

// appendHot encodes a message of which sizeHot knows the size.
func appendHot(b []byte, m proto.Message) []byte {
	switch m := m.(type) {
	case *storagepb.Put:
		b = appendBytes(b, 1, m.Key)
		b = appendBytes(b, 2, m.Value)
		b = appendBool(b, 3, m.PrevKv)
	case *storagepb.KvResult:
		b = appendBool(b, 1, m.GetSuccess())
		b = appendVarint(b, 2, uint64(m.GetDeleted())) //nolint:gosec // as protobuf does
	default:
		b = appendRoute(b, m)
	}
	return b
}

func decodeKvResult(b []byte, m *storagepb.KvResult) bool {
	r := reader{b: b}
	m.Success = r.bool(1)
	m.Deleted = int64(r.varint(2)) //nolint:gosec // as protobuf does
	return r.done()
}

func decodePut(b []byte, m *storagepb.Put) bool {
	r := reader{b: b}
	m.Key = r.bytes(1)
	m.Value = r.bytes(2)
	m.PrevKv = r.bool(3)
	return r.done()
}

func decodeEntry(b []byte, m *storagepb.Entry) bool {
	r := reader{b: b}
	m.Version = uint32(r.varint(1))
	m.Term = r.varint(2)
	m.LeaderTimeMs = r.varint(3)
	n := r.count(4)
	if n == 0 {
		return r.done()
	}
	commands := make([]storagepb.Command, n)
	m.Commands = make([]*storagepb.Command, n)
	for i := range commands {
		if !decodeCommand(r.bytes(4), &commands[i]) {
			return false
		}
		m.Commands[i] = &commands[i]
	}
	return r.done()
}

func decodeCommand(b []byte, m *storagepb.Command) bool {
	r := reader{b: b}
	m.Kind = storagepb.CommandKind(r.varint(1)) //nolint:gosec // as protobuf does
	m.Payload = r.bytes(2)
	if id := r.bytes(3); id != nil {
		m.Id = &storagepb.CommandId{}
		if !decodeCommandID(id, m.Id) {
			return false
		}
	}
	m.PlannedTerm = r.varint(4)
	return r.done()
}

func decodeCommandID(b []byte, m *storagepb.CommandId) bool {
	r := reader{b: b}
	m.Session = r.varint(1)
	m.Sequence = r.varint(2)
	m.Acknowledged = r.varint(3)
	return r.done()
}

// CommandSize returns by how much AppendCommand makes an entry larger, its first one apart.
func CommandSize(p *Proposal) int {
	return 1 + protowire.SizeBytes(commandSize(p, Size(p.Payload)))
}

// commandSize returns the size of a command without its tag and length.
func commandSize(p *Proposal, payload int) int {
	n := sizeVarint(uint64(p.Kind)) + sizeVarint(p.PlannedTerm) //nolint:gosec // as protobuf does
	if payload > 0 {
		n += 1 + protowire.SizeBytes(payload)
	}
	if p.ID != nil {
		n += 1 + protowire.SizeBytes(commandIDSize(p.ID))
	}
	return n
}

func commandIDSize(id *storagepb.CommandId) int {
	return sizeVarint(id.Session) + sizeVarint(id.Sequence) + sizeVarint(id.Acknowledged)
}

// EntryHeaderRoom is how many bytes AppendCommand leaves free at the beginning of an entry for FinishEntry.
const EntryHeaderRoom = 32

// AppendCommand adds a proposal to an entry that is being built. The first one begins it: entry is empty then.
func AppendCommand(entry []byte, p *Proposal) []byte {
	payload := Size(p.Payload)
	size := commandSize(p, payload)
	if len(entry) == 0 {
		entry = append(entry, make([]byte, EntryHeaderRoom)...)
	}
	entry = protowire.AppendTag(entry, 4, protowire.BytesType)
	entry = protowire.AppendVarint(entry, uint64(size))
	entry = appendVarint(entry, 1, uint64(p.Kind)) //nolint:gosec // as protobuf does
	if payload > 0 {
		entry = protowire.AppendTag(entry, 2, protowire.BytesType)
		entry = protowire.AppendVarint(entry, uint64(payload))
		entry = Append(entry, p.Payload)
	}
	if p.ID != nil {
		entry = protowire.AppendTag(entry, 3, protowire.BytesType)
		entry = protowire.AppendVarint(entry, uint64(commandIDSize(p.ID)))
		entry = appendVarint(entry, 1, p.ID.Session)
		entry = appendVarint(entry, 2, p.ID.Sequence)
		entry = appendVarint(entry, 3, p.ID.Acknowledged)
	}
	return appendVarint(entry, 4, p.PlannedTerm)
}

// FinishEntry puts the fields of an entry before its commands and returns its encoding, which shares memory with
// entry.
func FinishEntry(entry []byte, version uint32, term uint64, now LeaderTime) []byte {
	var room [EntryHeaderRoom]byte
	header := appendVarint(room[:0], 1, uint64(version))
	header = appendVarint(header, 2, term)
	header = appendVarint(header, 3, uint64(now))
	from := EntryHeaderRoom - len(header)
	copy(entry[from:], header)
	return entry[from:]
}
