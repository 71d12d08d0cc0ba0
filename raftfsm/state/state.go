// Package state is the border between the replicated state machine and the packages whose rules it runs:
// what an applier may see and change, and nothing else.
//
// State is one ordered key space. Each package keeps its records under prefixes of its own. Appliers are
// pure: the same view and command give the same changes and result on every member, so they know no clock,
// randomness, map order, goroutine, float or I/O. Time and random numbers come in with the command.
package state

import (
	"context"
	"encoding/binary"
	"fmt"
	"iter"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// LeaderTime is time as the cluster counts it: milliseconds since its birth, by the monotonic clocks of its
// successive metasrv leaders. It never runs backwards and has nothing to do with wall time.
type LeaderTime uint64

// View reads one immutable state. What it returns must not be modified.
type View interface {
	// Get returns the value of key, and whether it exists.
	Get(key string) (value []byte, ok bool)
	// Ascend returns the pairs with from <= key < to in the order of keys. An empty to means no upper end.
	Ascend(from, to string) iter.Seq2[string, []byte]
	// Revision returns the number of commands that have changed something. While a command is applied it is
	// that of the commands before it.
	Revision() uint64
	// ClusterVersion returns the command version that every member of the cluster knows. A command that has come to mean
	// more means that only from the version on with which it did.
	ClusterVersion() uint32
}

// Tx is the state as one command sees and changes it. Nothing of it is kept if the applier returns an error.
type Tx interface {
	View
	// Put sets the value of key. The value belongs to the state from then on.
	Put(key string, value []byte)
	// Delete removes key, if it exists.
	Delete(key string)
	// Now returns the leader time of the command.
	Now() LeaderTime
}

// Applier runs the commands of one package.
type Applier interface {
	// Kinds returns the kinds of commands that Apply is given.
	Kinds() []storagepb.CommandKind
	// Apply executes one command and returns its result. An error must be a *metasrv.Error: it is the
	// remembered result of a command that changed nothing. Every member computes the same.
	Apply(tx Tx, kind storagepb.CommandKind, payload []byte) (proto.Message, error)
}

// Proposal is a command on its way into the log.
type Proposal struct {
	Kind    storagepb.CommandKind
	Payload proto.Message
	// ID names the command of a session; nil where a retry may execute again.
	ID *storagepb.CommandId
	// PlannedTerm is the term in which a leader duty planned the command, 0 for clients' commands.
	PlannedTerm uint64
}

// Result is what became of a proposal that was executed.
type Result struct {
	// Payload is the encoded message that the applier returned, nil where Message is set.
	Payload []byte
	// Message is the message itself where nothing needed it encoded. What it has may be shared with the state.
	Message proto.Message
	// Revision is that of the state after the command.
	Revision uint64
}

// Decode fills m with the message of the result. It may share parts of it.
func (r Result) Decode(m proto.Message) error {
	if r.Message == nil {
		return Decode(r.Payload, m)
	}
	if from, ok := r.Message.(interface{ ShareWith(proto.Message) bool }); ok && from.ShareWith(m) {
		return nil
	}
	from, to := r.Message.ProtoReflect(), m.ProtoReflect()
	if from.Descriptor() != to.Descriptor() {
		return fmt.Errorf("the result is a %s, not a %s", from.Descriptor().FullName(), to.Descriptor().FullName())
	}
	proto.Reset(m)
	from.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		to.Set(field, v)
		return true
	})
	return nil
}

// Proposer executes commands through the log.
type Proposer interface {
	// Propose returns when the command was executed on this member. Errors are *metasrv.Error: those of the
	// applier; ErrNotLeader, ErrNotReady, ErrOverloaded if it was not executed; ErrOutcomeUnknown if it may
	// have been or may yet be, also when ctx ended while it was under way.
	Propose(ctx context.Context, p Proposal) (Result, error)
}

// Barrier orders reads behind writes.
type Barrier interface {
	// Barrier returns a view that contains every command acknowledged by any member before the call. It
	// succeeds on the metasrv leader only.
	Barrier(ctx context.Context) (View, error)
}

// Viewer shows the present state of a member.
type Viewer interface {
	// View returns the state as it is on this member, however old.
	View() View
}

// Next returns the next number of the sequence under key and advances it. The first one is first.
func Next(tx Tx, key string, first uint64) uint64 { return Take(tx, key, first, 1) }

// Take returns the first of the next numbers of the sequence under key, and advances it by their count.
func Take(tx Tx, key string, first, count uint64) uint64 {
	n := Peek(tx, key, first)
	tx.Put(key, binary.BigEndian.AppendUint64(nil, n+count))
	return n
}

// Peek returns the number that Next would return: every number below it was given out.
func Peek(v View, key string, first uint64) uint64 {
	if value, ok := v.Get(key); ok && len(value) == 8 {
		return binary.BigEndian.Uint64(value)
	}
	return first
}

// IDKey returns the key of the record that an id names under a prefix: the id has 16 hexadecimal digits, so that the
// order of keys is that of ids.
func IDKey(prefix string, id uint64) string {
	const digits = "0123456789abcdef"
	var room [48]byte
	b := append(room[:0], prefix...)
	for shift := 60; shift >= 0; shift -= 4 {
		b = append(b, digits[id>>shift&0xf])
	}
	return string(b)
}

// Raise advances the sequence under key as if by numbers more had been given out.
func Raise(tx Tx, key string, first, by uint64) {
	tx.Put(key, binary.BigEndian.AppendUint64(nil, Peek(tx, key, first)+by))
}
