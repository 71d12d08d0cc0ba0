package wire

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Number is that of a field.
type Number = protowire.Number

// Fields of proto3 have no presence: the zero value is not written.

// AppendVarint writes a field of a number.
func AppendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = append(b, byte(field<<3)|byte(protowire.VarintType))
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

// AppendBytes writes a field of bytes.
func AppendBytes(b []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

// AppendText writes a field of text.
func AppendText(b []byte, field protowire.Number, v string) []byte {
	if v == "" {
		return b
	}
	return append(AppendHead(b, field, len(v)), v...)
}

// AppendBool writes a field that is true or false.
func AppendBool(b []byte, field protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return append(protowire.AppendTag(b, field, protowire.VarintType), 1)
}

// AppendHead writes the tag and the length of a message, whose bytes follow.
func AppendHead(b []byte, field protowire.Number, size int) []byte {
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.BytesType), uint64(size)) //nolint:gosec // never negative
}

// AppendMessage writes a message as protobuf does, where it is there.
func AppendMessage(b []byte, field protowire.Number, m proto.Message) []byte {
	if !m.ProtoReflect().IsValid() {
		return b
	}
	return AppendProto(AppendHead(b, field, proto.Size(m)), m)
}

// AppendBy writes a message by hand where size says that this can be done, else as AppendMessage does.
func AppendBy[M any, P interface {
	*M
	proto.Message
}](b []byte, field protowire.Number, m P, size func(P) (int, bool), write func([]byte, P) []byte) []byte {
	if m == nil {
		return b
	}
	if n, ok := size(m); ok {
		return write(AppendHead(b, field, n), m)
	}
	return AppendMessage(b, field, m)
}

// AppendProto adds the deterministic encoding that protobuf gives a message. proto.Size was called on m before, and m has
// not changed since. Only invalid UTF-8 makes it fail, and that is refused at the API: it panics.
func AppendProto(b []byte, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true, UseCachedSize: true}.MarshalAppend(b, m)
	if err != nil {
		panic(fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().FullName(), err))
	}
	return b
}
