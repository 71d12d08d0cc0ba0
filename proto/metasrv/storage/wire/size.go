package wire

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// SizeVarint returns how many bytes AppendVarint writes.
func SizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

// SizeBytes returns how many bytes AppendBytes writes.
func SizeBytes(v []byte) int {
	if len(v) == 0 {
		return 0
	}
	return SizeMessage(len(v))
}

// SizeBool returns how many bytes AppendBool writes.
func SizeBool(v bool) int {
	if v {
		return 2
	}
	return 0
}

// SizeMessage returns the size of a field that holds a message of the given size.
func SizeMessage(size int) int { return 1 + protowire.SizeBytes(size) }

// Sizer adds up the size of a message with messages in it.
type Sizer struct {
	n int
	// strange: protobuf must encode the message.
	strange bool
}

// Size returns the sum, and whether the message can be written by hand.
func (s *Sizer) Size() (n int, ok bool) { return s.n, !s.strange }

// Add adds bytes.
func (s *Sizer) Add(n int) { s.n += n }

// Varint adds a field of AppendVarint.
func (s *Sizer) Varint(v uint64) { s.n += SizeVarint(v) }

// Look returns whether a message is there, as it is told: one that is missing in a list can't be written by hand. It is to
// be called for each message that is, and Unknown too.
func (s *Sizer) Look(there bool) bool {
	s.strange = s.strange || !there
	return there
}

// Unknown takes the fields of a message that this build doesn't know: with some it can't be written by hand.
func (s *Sizer) Unknown(fields []byte) { s.strange = s.strange || len(fields) > 0 }

// Message adds a field of AppendMessage.
func (s *Sizer) Message(m proto.Message) {
	if m.ProtoReflect().IsValid() {
		s.n += SizeMessage(proto.Size(m))
	}
}

// SizeBy adds a field of AppendBy.
func SizeBy[M any, P interface {
	*M
	proto.Message
}](s *Sizer, m P, size func(P) (int, bool)) {
	if m == nil {
		return
	}
	if n, ok := size(m); ok {
		s.n += SizeMessage(n)
		return
	}
	s.Message(m)
}

// Part adds a field that holds a message that was added up apart.
func (s *Sizer) Part(part Sizer) {
	s.n += SizeMessage(part.n)
	s.strange = s.strange || part.strange
}
