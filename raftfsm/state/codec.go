package state

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Encode returns the deterministic encoding of a record or a result. A failure is a bug of the caller, for
// only invalid UTF-8 makes one, and that is refused at the API; it panics.
func Encode(m proto.Message) []byte {
	if n, hot := sizeHot(m); hot {
		return appendHot(make([]byte, 0, n), m)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		panic(encodeError(m, err))
	}
	return b
}

// Size returns the size of what Encode returns.
func Size(m proto.Message) int {
	if n, hot := sizeHot(m); hot {
		return n
	}
	return proto.Size(m)
}

// Append adds to b what Encode returns. Size was called on m before, and m has not changed since.
func Append(b []byte, m proto.Message) []byte {
	if _, hot := sizeHot(m); hot {
		return appendHot(b, m)
	}
	b, err := proto.MarshalOptions{Deterministic: true, UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		panic(encodeError(m, err))
	}
	return b
}

func encodeError(m proto.Message, err error) error {
	return fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
}

// Decode fills m from an encoded record or command. It refuses fields that this build does not know: it could
// not give the command the meaning that other members give it. Bytes in m may share memory with b: who keeps them
// longer than b copies them.
func Decode(b []byte, m proto.Message) error {
	proto.Reset(m)
	if len(b) == 0 || decodeHot(b, m) {
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

func decodeError(m proto.Message, err error) error {
	return fmt.Errorf("decode %s: %w", m.ProtoReflect().Descriptor().FullName(), err)
}

// Known returns an error that names a message in m with fields that this build does not know: Decode would
// refuse it.
func Known(m proto.Message) error {
	parts := []proto.Message{m}
	if _, hot := sizeHot(m); hot {
		parts = nestedIn(m)
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
