package partition

import (
	"encoding/binary"
	"math"

	"github.com/cespare/xxhash/v2"
)

// hash is the hash of a row of held values, as the package comment defines it.
func hash(row []Value) uint64 {
	var buf [128]byte
	return xxhash.Sum64(appendHashEncoding(buf[:0], row))
}

func appendHashEncoding(b []byte, row []Value) []byte {
	for _, v := range row {
		b = append(b, byte(v.kind))
		switch v.kind {
		case kindNull:
		case kindBool:
			b = append(b, byte(v.bits))
		case kindString, kindBytes:
			b = binary.BigEndian.AppendUint64(b, uint64(len(v.str)))
			b = append(b, v.str...)
		case kindFloat64:
			// Adding 0 turns -0, which equals +0, into +0.
			//purity:allow adding 0 rounds nothing
			b = binary.BigEndian.AppendUint64(b, math.Float64bits(v.float()+0))
		default:
			b = binary.BigEndian.AppendUint64(b, v.bits)
		}
	}
	return b
}
