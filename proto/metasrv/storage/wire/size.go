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

// Look reports whether a message is there. It is to be called for each message that is written by hand: one that is missing
// or has fields that this build doesn't know can't be.
func (s *Sizer) Look(m proto.Message) bool {
	r := m.ProtoReflect()
	there := r.IsValid()
	s.strange = s.strange || !there || len(r.GetUnknown()) > 0
	return there
}

// Message adds a field of AppendMessage.
func (s *Sizer) Message(m proto.Message) {
	if m.ProtoReflect().IsValid() {
		s.n += SizeMessage(proto.Size(m))
	}
}

// Part adds a field that holds a message that was added up apart.
func (s *Sizer) Part(part Sizer) {
	s.n += SizeMessage(part.n)
	s.strange = s.strange || part.strange

}
