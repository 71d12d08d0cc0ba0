package state

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/proto/metasrv/storage/wire"
)

// Coded is a message that is encoded and decoded by hand, to the bytes that protobuf gives it. It is for those whose cost
// counts; the functions of this file treat it like any other message.
type Coded interface {
	proto.Message
	// WireSize returns the size of the encoding; false where protobuf must encode the message, since it has fields that
	// this build doesn't know.
	WireSize() (size int, ok bool)
	// AppendWire adds the encoding to b. WireSize was called before, and nothing has changed since.
	AppendWire(b []byte) []byte
	// DecodeWire fills the message, which is empty, from b, with which it may share memory. It returns false, and may have
	// filled half of the message, where b is not as AppendWire writes it.
	DecodeWire(b []byte) bool
	// LeftToProtobuf returns the messages in it that protobuf encodes.
	LeftToProtobuf() []proto.Message
}

// coded returns m if it is to be encoded by hand, and the size of its encoding.
func coded(m proto.Message) (c Coded, size int, ok bool) {
	if c, ok = m.(Coded); ok {
		size, ok = c.WireSize()
	}
	return c, size, ok
}

// Encode returns the deterministic encoding of a record or a result. A failure is a bug of the caller, for
// only invalid UTF-8 makes one, and that is refused at the API; it panics.
func Encode(m proto.Message) []byte {
	if c, size, ok := coded(m); ok {
		return c.AppendWire(make([]byte, 0, size))
	}
	return wire.AppendProto(make([]byte, 0, proto.Size(m)), m)
}

// Size returns the size of what Encode returns.
func Size(m proto.Message) int {
	if _, size, ok := coded(m); ok {
		return size
	}
	return proto.Size(m)
}

// Append adds to b what Encode returns. Size was called on m before, and m has not changed since.
func Append(b []byte, m proto.Message) []byte {
	if c, _, ok := coded(m); ok {
		return c.AppendWire(b)
	}
	return wire.AppendProto(b, m)
}

// Decode fills m from an encoded record or command. It refuses fields that this build does not know: it could
// not give the command the meaning that other members give it. Bytes in m may share memory with b: who keeps them
// longer than b copies them.
func Decode(b []byte, m proto.Message) error {
	proto.Reset(m)
	if len(b) == 0 || decodedByHand(b, m) {
		return nil
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil {
		return decodeError(m, err)
	}
	// Encode leaves nothing out and writes nothing twice, so what it wrote has the size of what is known of it.
	// That is cheaper than to look into every message.
	if proto.Size(m) == len(b) {
		return nil
	}
	if err := proto.Unmarshal(b, m); err != nil {
		return decodeError(m, err)
	}
	if err := Known(m); err != nil {
		return decodeError(m, err)
	}
	return nil
}

// decodedByHand reports whether m was filled without protobuf; else m may be left half filled.
func decodedByHand(b []byte, m proto.Message) bool {
	switch m := m.(type) {
	case *storagepb.Entry:
		return decodeEntry(b, m)
	case Coded:
		return m.DecodeWire(b)
	}
	return false
}

func decodeError(m proto.Message, err error) error {
	return fmt.Errorf("decode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
}

// Known returns an error that names a message in m with fields that this build does not know: Decode would
// refuse it.
func Known(m proto.Message) error {
	parts := []proto.Message{m}
	if c, _, ok := coded(m); ok {
		parts = c.LeftToProtobuf()
	}
	for _, part := range parts {
		if name := unknownField(part.ProtoReflect()); name != "" {
			return fmt.Errorf("%s has fields that this version of metasrv does not know", name)
		}
	}
	return nil
}

// unknownField returns the name of a message in m that holds unknown fields, or "".
func unknownField(m protoreflect.Message) string {
	if len(m.GetUnknown()) > 0 {
		return string(m.Descriptor().FullName())
	}
	found := ""
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.IsMap():
			if fd.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
					found = unknownField(v.Message())
					return found == ""
				})
			}
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				if found = unknownField(v.List().Get(i).Message()); found != "" {
					break
				}
			}
		default:
			found = unknownField(v.Message())
		}
		return found == ""
	})
	return found
}
