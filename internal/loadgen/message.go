package loadgen

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// Template is an encoded request in which a part of fixed length, such as the key, differs from call to call.
type Template struct {
	encoded []byte
	len     int
	// at is where the part stands.
	at []int
}

// NewTemplate returns the template of an encoded request that contains part.
func NewTemplate(encoded, part []byte) (*Template, error) {
	t := &Template{encoded: encoded, len: len(part)}
	for at := 0; ; {
		i := bytes.Index(encoded[at:], part)
		if i < 0 {
			break
		}
		t.at = append(t.at, at+i)
		at += i + len(part)
	}
	if len(t.at) == 0 {
		return nil, fmt.Errorf("the request does not contain %q", part)
	}
	return t, nil
}

// With returns a new request with another part of the same length.
func (t *Template) With(part []byte) []byte {
	if len(part) != t.len {
		panic(fmt.Sprintf("%q has another length than %d", part, t.len))
	}
	b := bytes.Clone(t.encoded)
	for _, at := range t.at {
		copy(b[at:], part)
	}
	return b
}

// Keys are the keys prefix + number, all of the same length.
type Keys struct {
	prefix string
	digits int
}

// NewKeys returns keys for the numbers below count.
func NewKeys(prefix string, count uint64) Keys {
	return Keys{prefix: prefix, digits: max(8, len(fmt.Sprint(count)))}
}

// Append appends the key of a number.
func (k Keys) Append(b []byte, n uint64) []byte {
	b = append(b, k.prefix...)
	end := len(b) + k.digits
	for range k.digits {
		b = append(b, '0')
	}
	for i := end - 1; n > 0; i, n = i-1, n/10 {
		b[i] = byte('0' + n%10)
	}
	return b
}

// Answer is the answer to a Call: its size, and its encoded form where Keep is set. The next Call uses its memory again.
type Answer struct {
	Keep  bool
	Size  int
	Bytes []byte
}

// Call sends an encoded request and leaves the answer as it is: decoding it would cost more than the rest of the call.
func Call(ctx context.Context, conn grpc.ClientConnInterface, method string, request []byte, answer *Answer) error {
	return conn.Invoke(ctx, method, request, answer, rawMessages)
}

var rawMessages = grpc.ForceCodecV2(rawCodec{})

// rawCodec passes encoded protobuf messages through.
type rawCodec struct{}

// Name implements encoding.CodecV2: servers see ordinary protobuf.
func (rawCodec) Name() string { return "proto" }

// Marshal implements encoding.CodecV2.
func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("%T is no encoded message", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(b)}, nil
}

// Unmarshal implements encoding.CodecV2.
func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	a, ok := v.(*Answer)
	if !ok {
		return fmt.Errorf("%T takes no encoded message", v)
	}
	a.Size = data.Len()
	if a.Keep {
		a.Bytes = slices.Grow(a.Bytes[:0], a.Size)[:a.Size]
		data.CopyTo(a.Bytes)
	}
	return nil
}

// RandomValue returns bytes that don't compress and contain no key of letters and digits.
func RandomValue(size int) []byte {
	value := make([]byte, size)
	for i := range value {
		value[i] = byte(rand.Uint32()) | 0x80 //nolint:gosec // a load, no secret
	}
	return value
}

// DefaultConns returns how many connections a number of clients share: few, since packets of many requests are cheaper
// than many packets.
func DefaultConns(clients int) int { return min(max(clients/32, 1), 8) }
