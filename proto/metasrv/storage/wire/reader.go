package wire

import (
	"unicode/utf8"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Reader reads the fields of a message in the order of their numbers. A field that is not next is absent. What it doesn't
// expect leaves Done false.
type Reader struct {
	b      []byte
	broken bool
}

// Read returns a reader of an encoded message.
func Read(b []byte) Reader { return Reader{b: b} }

func (r *Reader) next(field protowire.Number, kind protowire.Type) bool {
	if r.broken || len(r.b) == 0 || r.b[0] != byte(field<<3)|byte(kind) {
		return false
	}
	r.b = r.b[1:]
	return true
}

// Varint returns the value of a field, 0 where it is absent.
func (r *Reader) Varint(field protowire.Number) uint64 {
	if !r.next(field, protowire.VarintType) {
		return 0
	}
	v, n := protowire.ConsumeVarint(r.b)
	if n < 0 || v == 0 { // a zero is not written
		r.broken = true
		return 0
	}
	r.b = r.b[n:]
	return v
}

// Bool returns the value of a field, false where it is absent.
func (r *Reader) Bool(field protowire.Number) bool {
	v := r.Varint(field)
	r.broken = r.broken || v > 1
	return v == 1
}

// Bytes returns the value of a field, nil where it is absent. It shares memory with what is read.
func (r *Reader) Bytes(field protowire.Number) []byte {
	if !r.next(field, protowire.BytesType) {
		return nil
	}
	v, n := protowire.ConsumeBytes(r.b)
	if n < 0 {
		r.broken = true
		return nil
	}
	r.b = r.b[n:]
	return v[:len(v):len(v)]
}

// Text returns the value of a field, "" where it is absent.
func (r *Reader) Text(field protowire.Number) string {
	v := r.Bytes(field)
	r.broken = r.broken || !utf8.Valid(v) // protobuf refuses it
	return string(v)
}

// Texts returns the values of a field that is there several times, nil where it is absent.
func (r *Reader) Texts(field protowire.Number) []string {
	n := r.Count(field)
	if n == 0 {
		return nil
	}
	list := make([]string, n)
	for i := range list {
		list[i] = r.Text(field)
	}
	return list
}

// Count returns how often a field of bytes follows.
func (r *Reader) Count(field protowire.Number) int {
	ahead, n := *r, 0
	for ahead.next(field, protowire.BytesType) {
		_, size := protowire.ConsumeBytes(ahead.b)
		if size < 0 {
			r.broken = true
			return 0
		}
		ahead.b = ahead.b[size:]
		n++
	}
	return n
}

// Done reports whether everything was read and as expected.
func (r *Reader) Done() bool { return !r.broken && len(r.b) == 0 }

// Message has protobuf decode a message where the field is there; it returns nil where it isn't. Its last argument says
// which message.
func Message[M any, P interface {
	*M
	proto.Message
}](r *Reader, field protowire.Number, _ P) P {
	return MessageBy(r, field, func([]byte, P) bool { return false })
}

// MessageBy is Message for one that may be decoded by hand: decode returns false, and may have filled half of it, where
// that is left to protobuf.
func MessageBy[M any, P interface {
	*M
	proto.Message
}](r *Reader, field protowire.Number, decode func([]byte, P) bool) P {
	b := r.Bytes(field)
	if b == nil {
		return nil
	}
	m := P(new(M))
	if decode(b, m) {
		return m
	}
	if err := (proto.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(b, m); err != nil || proto.Size(m) != len(b) {
		r.broken = true
	}
	return m
}

// Slab hands out messages that are made many at once.
type Slab[T any] struct {
	free     []T
	pointers []*T
}

// slabRoom bounds what is made at once beyond what is asked for.
const slabRoom = 256

// Take returns n messages. It makes room for as many lists of that length as the caller says will follow.
func (s *Slab[T]) Take(n, lists int) []*T {
	if n == 0 {
		return nil
	}
	if len(s.free) < n {
		room := max(n, min(n*lists, slabRoom))
		s.free, s.pointers = make([]T, room), make([]*T, room)
	}
	list := s.pointers[:n:n]
	for i := range list {
		list[i] = &s.free[i]
	}
	s.free, s.pointers = s.free[n:], s.pointers[n:]
	return list
}
