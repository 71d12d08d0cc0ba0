package state

import (
	"errors"

	"google.golang.org/protobuf/encoding/protowire"
)

var errField = errors.New("a stored record can't be read")

// EachField calls f for every field of an encoded record: with its number, and its value if it is a varint or has a
// length. It is for those who need little of a record often: decoding all of it costs ten times as much. f must not
// keep bytes.
func EachField(record []byte, f func(number protowire.Number, varint uint64, bytes []byte) error) error {
	for b := record; len(b) > 0; {
		number, kind, n := protowire.Number(b[0]>>3), protowire.Type(b[0]&7), 1
		if b[0] >= 0x80 || number == 0 {
			if number, kind, n = protowire.ConsumeTag(b); n < 0 {
				return errField
			}
		}
		b = b[n:]
		var varint uint64
		var bytes []byte
		switch kind {
		case protowire.VarintType:
			if len(b) > 0 && b[0] < 0x80 {
				varint, n = uint64(b[0]), 1
			} else {
				varint, n = protowire.ConsumeVarint(b)
			}
		case protowire.BytesType:
			bytes, n = protowire.ConsumeBytes(b)
		default:
			n = protowire.ConsumeFieldValue(number, kind, b)
		}
		if n < 0 {
			return errField
		}
		if err := f(number, varint, bytes); err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

// Field returns one field of an encoded record, as EachField does; nothing where the record lacks it.
func Field(record []byte, number protowire.Number) (varint uint64, bytes []byte) {
	_ = EachField(record, func(n protowire.Number, v uint64, b []byte) error {
		if n == number {
			varint, bytes = v, b
		}
		return nil
	})
	return varint, bytes
}
