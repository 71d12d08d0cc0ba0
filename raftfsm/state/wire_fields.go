package state

import (
	"google.golang.org/protobuf/encoding/protowire"
)

// Fields of proto3 without presence: the zero value is not written.

func sizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func sizeBytes(v []byte) int {
	if len(v) == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(len(v))
}

func sizeBool(v bool) int {
	if v {
		return 2
	}
	return 0
}

func appendVarint(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	b = append(b, byte(field<<3)|byte(protowire.VarintType)) // numbers are below 16
	for ; v >= 0x80; v >>= 7 {
		b = append(b, byte(v)|0x80)
	}
	return append(b, byte(v))
}

func appendBytes(b []byte, field protowire.Number, v []byte) []byte {
	if len(v) == 0 {
		return b
	}
	return protowire.AppendBytes(protowire.AppendTag(b, field, protowire.BytesType), v)
}

func appendBool(b []byte, field protowire.Number, v bool) []byte {
	if !v {
		return b
	}
	return append(protowire.AppendTag(b, field, protowire.VarintType), 1)
}

// reader reads the fields of a message in the order of their numbers, which are below 16. A field that is not next is
// absent. What it doesn't expect leaves done false.
type reader struct {
	b      []byte
	broken bool
}

func (r *reader) next(field protowire.Number, kind protowire.Type) bool {
	if r.broken || len(r.b) == 0 || r.b[0] != byte(field<<3)|byte(kind) {
		return false
	}
	r.b = r.b[1:]
	return true
}

// varint returns the value of a field, 0 where it is absent.
func (r *reader) varint(field protowire.Number) uint64 {
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

// bool returns the value of a field, false where it is absent.
func (r *reader) bool(field protowire.Number) bool {
	v := r.varint(field)
	r.broken = r.broken || v > 1
	return v == 1
}

// bytes returns the value of a field, nil where it is absent. It shares memory with what is read.
func (r *reader) bytes(field protowire.Number) []byte {
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

// count returns how often a field of bytes follows.
func (r *reader) count(field protowire.Number) int {
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

// done reports whether everything was read and as expected.
func (r *reader) done() bool { return !r.broken && len(r.b) == 0 }
