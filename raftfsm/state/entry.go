package state

import (
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/proto/metasrv/storage/wire"
)

// Entries are encoded and decoded by hand, as the messages in them are (Coded), and commands straight into the entry that
// they join.

// decodeEntry fills m, which is empty, from b; false where b is not as AppendCommand writes it. Bytes of m share memory
// with b.
func decodeEntry(b []byte, m *storagepb.Entry) bool {
	r := wire.Read(b)
	m.Version = uint32(r.Varint(1))
	m.Term = r.Varint(2)
	m.LeaderTimeMs = r.Varint(3)
	n := r.Count(4)
	if n == 0 {
		return r.Done()
	}
	commands := make([]storagepb.Command, n)
	m.Commands = make([]*storagepb.Command, n)
	for i := range commands {
		if !decodeCommand(r.Bytes(4), &commands[i]) {
			return false
		}
		m.Commands[i] = &commands[i]
	}
	return r.Done()
}

func decodeCommand(b []byte, m *storagepb.Command) bool {
	r := wire.Read(b)
	m.Kind = storagepb.CommandKind(r.Varint(1)) //nolint:gosec // as protobuf does
	m.Payload = r.Bytes(2)
	if id := r.Bytes(3); id != nil {
		m.Id = &storagepb.CommandId{}
		if !decodeCommandID(id, m.Id) {
			return false
		}
	}
	m.PlannedTerm = r.Varint(4)
	return r.Done()
}

func decodeCommandID(b []byte, m *storagepb.CommandId) bool {
	r := wire.Read(b)
	m.Session = r.Varint(1)
	m.Sequence = r.Varint(2)
	m.Acknowledged = r.Varint(3)
	return r.Done()
}

// CommandSize returns by how much AppendCommand makes an entry larger, its first one apart.
func CommandSize(p *Proposal) int {
	return wire.SizeMessage(commandSize(p, Size(p.Payload)))
}

// commandSize returns the size of a command without its tag and length.
func commandSize(p *Proposal, payload int) int {
	n := wire.SizeVarint(uint64(p.Kind)) + wire.SizeVarint(p.PlannedTerm) //nolint:gosec // as protobuf does
	if payload > 0 {
		n += wire.SizeMessage(payload)
	}
	if p.ID != nil {
		n += wire.SizeMessage(commandIDSize(p.ID))
	}
	return n
}

func commandIDSize(id *storagepb.CommandId) int {
	return wire.SizeVarint(id.Session) + wire.SizeVarint(id.Sequence) + wire.SizeVarint(id.Acknowledged)
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
	entry = wire.AppendHead(entry, 4, size)
	entry = wire.AppendVarint(entry, 1, uint64(p.Kind)) //nolint:gosec // as protobuf does
	if payload > 0 {
		entry = Append(wire.AppendHead(entry, 2, payload), p.Payload)
	}
	if p.ID != nil {
		entry = wire.AppendHead(entry, 3, commandIDSize(p.ID))
		entry = wire.AppendVarint(entry, 1, p.ID.Session)
		entry = wire.AppendVarint(entry, 2, p.ID.Sequence)
		entry = wire.AppendVarint(entry, 3, p.ID.Acknowledged)
	}
	return wire.AppendVarint(entry, 4, p.PlannedTerm)
}

// FinishEntry puts the fields of an entry before its commands and returns its encoding, which shares memory with
// entry.
func FinishEntry(entry []byte, version uint32, term uint64, now LeaderTime) []byte {
	var room [EntryHeaderRoom]byte
	header := wire.AppendVarint(room[:0], 1, uint64(version))
	header = wire.AppendVarint(header, 2, term)
	header = wire.AppendVarint(header, 3, uint64(now))
	from := EntryHeaderRoom - len(header)
	copy(entry[from:], header)
	return entry[from:]
}
