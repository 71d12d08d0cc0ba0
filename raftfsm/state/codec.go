package state

import (
	"fmt"
	"sync"

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
	c, _, ok := coded(m)
	return known(m, c, ok)
}

// known is Known for a message that encodes itself, or doesn't.
func known(m proto.Message, c Coded, byHand bool) error {
	if !byHand {
		return knownPart(m)
	}
	for _, part := range c.LeftToProtobuf() {
		if err := knownPart(part); err != nil {
			return err
		}
	}
	return nil
}

func knownPart(m proto.Message) error {
	if name := unknownField(m.ProtoReflect()); name != "" {
		return fmt.Errorf("%s has fields that this version of metasrv does not know", name)
	}
	return nil
}

// unknownField returns the name of a message in m that holds unknown fields, or "".
func unknownField(m protoreflect.Message) string {
	if len(m.GetUnknown()) > 0 {
		return string(m.Descriptor().FullName())
	}
	for _, fd := range messageFields(m.Descriptor()) {
		if name := unknownInField(m, fd); name != "" {
			return name
		}
	}
	return ""
}

func unknownInField(m protoreflect.Message, fd protoreflect.FieldDescriptor) (found string) {
	if !m.Has(fd) {
		return ""
	}
	switch v := m.Get(fd); {
	case fd.IsMap():
		v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
			found = unknownField(v.Message())
			return found == ""
		})
	case fd.IsList():
		for i := 0; i < v.List().Len() && found == ""; i++ {
			found = unknownField(v.List().Get(i).Message())
		}
	default:
		found = unknownField(v.Message())
	}
	return found
}

// fieldsOfMessages has the fields of each kind of message that hold messages, by its descriptor: to look for them each
// time would cost more than to look into them.
var fieldsOfMessages sync.Map

func messageFields(d protoreflect.MessageDescriptor) []protoreflect.FieldDescriptor {
	if found, ok := fieldsOfMessages.Load(d); ok {
		return found.([]protoreflect.FieldDescriptor)
	}
	var list []protoreflect.FieldDescriptor
	for i := range d.Fields().Len() {
		fd := d.Fields().Get(i)
		if fd.IsMap() && fd.MapValue().Message() != nil || !fd.IsMap() && fd.Message() != nil {
			list = append(list, fd)
		}
	}
	fieldsOfMessages.Store(d, list)
	return list
}
