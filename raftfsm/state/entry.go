package state

import (
	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/proto/metasrv/storage/wire"
)

// Entries are encoded and decoded by hand, as the messages in them are (Coded), and commands straight into the entry that
// they join.

// decodeEntry fills m, which is empty, from b; false where b is not as Append writes it. Bytes of m share memory
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

// Prepared is a proposal that was looked at: what it takes to encode it is known.
type Prepared struct {
	proposal *Proposal
	// byHand is the payload where it encodes itself, payload the size of its encoding.
	byHand  Coded
	payload int
}

// Prepare returns a proposal, which must not change any more, ready to be encoded. The error is that of Known: members of
// another build could not decode it.
func Prepare(p *Proposal) (Prepared, error) {
	prepared := Prepared{proposal: p}
	c, size, ok := coded(p.Payload)
	if err := known(p.Payload, c, ok); err != nil {
		return prepared, err
	}
	if ok {
		prepared.byHand, prepared.payload = c, size
	} else {
		prepared.payload = proto.Size(p.Payload)
	}
	return prepared, nil
}

// Size returns by how much Append makes an entry larger, its first command apart.
func (p Prepared) Size() int { return wire.SizeMessage(commandSize(p.proposal, p.payload)) }

// Append adds the command to an entry that is being built. The first one begins it: entry is empty then.
func (p Prepared) Append(entry []byte) []byte {
	size := commandSize(p.proposal, p.payload)
	if len(entry) == 0 {
		entry = append(entry, make([]byte, EntryHeaderRoom)...)
	}
	entry = wire.AppendHead(entry, 4, size)
	entry = wire.AppendVarint(entry, 1, uint64(p.proposal.Kind)) //nolint:gosec // as protobuf does
	switch {
	case p.payload == 0:
	case p.byHand != nil:
		entry = p.byHand.AppendWire(wire.AppendHead(entry, 2, p.payload))
	default:
		entry = wire.AppendProto(wire.AppendHead(entry, 2, p.payload), p.proposal.Payload)
	}
	if id := p.proposal.ID; id != nil {
		entry = wire.AppendHead(entry, 3, commandIDSize(id))
		entry = wire.AppendVarint(entry, 1, id.Session)
		entry = wire.AppendVarint(entry, 2, id.Sequence)
		entry = wire.AppendVarint(entry, 3, id.Acknowledged)
	}
	return wire.AppendVarint(entry, 4, p.proposal.PlannedTerm)
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

// EntryHeaderRoom is how many bytes Append leaves free at the beginning of an entry for FinishEntry.
const EntryHeaderRoom = 32

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
