package state

import (
	"fmt"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"pgregory.net/rapid"
)

// Whatever the bytes: fields are found where protobuf's own functions find them.
func TestEachFieldReadsAsProtobufDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var record []byte
		for range rapid.IntRange(0, 6).Draw(t, "fields") {
			field := protowire.Number(rapid.Int32Range(1, 40).Draw(t, "field"))
			if rapid.Bool().Draw(t, "is a number") {
				record = protowire.AppendVarint(protowire.AppendTag(record, field, protowire.VarintType), number.Draw(t, "number"))
			} else {
				record = protowire.AppendBytes(protowire.AppendTag(record, field, protowire.BytesType), rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "bytes"))
			}
		}
		if rapid.Bool().Draw(t, "is damaged") {
			record = append(record, rapid.SliceOfN(rapid.Byte(), 1, 4).Draw(t, "rest")...)
		}
		var want []string
		bad := false
		for b := record; len(b) > 0 && !bad; {
			field, kind, n := protowire.ConsumeTag(b)
			if bad = n < 0; bad {
				break
			}
			m := protowire.ConsumeFieldValue(field, kind, b[n:])
			if bad = m < 0; bad {
				break
			}
			varint, _ := protowire.ConsumeVarint(b[n:])
			bytes, _ := protowire.ConsumeBytes(b[n:])
			if kind != protowire.VarintType {
				varint = 0
			}
			if kind != protowire.BytesType {
				bytes = nil
			}
			want = append(want, fmt.Sprintf("%d %d %x", field, varint, bytes))
			b = b[n+m:]
		}
		var got []string
		err := EachField(record, func(field protowire.Number, varint uint64, bytes []byte) error {
			got = append(got, fmt.Sprintf("%d %d %x", field, varint, bytes))
			return nil
		})
		if (err != nil) != bad || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%x has fields %v, %v; want %v, bad %v", record, got, err, want, bad)
		}
	})
}
