package server

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// The messages of Store.Put are coded by hand: of a write that costs its metasrv leader some 20 µs, protobuf took one and
// a half. What is not as expected here is left to protobuf.

// decodePut fills m, which is empty, from an encoded request, of which it copies what it needs; false where it can't.
func decodePut(b []byte, m *metasrvpb.PutRequest) bool {
	var header, key, value []byte
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return false
		}
		b = b[n:]
		switch {
		case kind == protowire.VarintType && field == 4:
			var v uint64
			v, n = protowire.ConsumeVarint(b)
			m.PrevKv = v != 0
		case kind == protowire.BytesType && field == 1 && header == nil: // a second one would have to be merged
			header, n = protowire.ConsumeBytes(b)
		case kind == protowire.BytesType && field == 2:
			key, n = protowire.ConsumeBytes(b)
		case kind == protowire.BytesType && field == 3:
			value, n = protowire.ConsumeBytes(b)
		default:
			return false
		}
		if n < 0 {
			return false
		}
		b = b[n:]
	}
	if header != nil {
		m.Header = &metasrvpb.RequestHeader{}
		if err := proto.Unmarshal(header, m.Header); err != nil {
			return false
		}
	}
	room := make([]byte, len(key)+len(value))
	n := copy(room, key)
	copy(room[n:], value)
	m.Key, m.Value = room[:n:n], room[n:]
	return true
}

// maxMember bounds the id of a member for which a header is written by hand: its length then takes one byte.
const maxMember = 64

// encodePut returns an encoded response; false where it can't.
func encodePut(m *metasrvpb.PutResponse) ([]byte, bool) {
	h := m.GetHeader()
	if h == nil || m.PrevKv != nil || h.Error != nil || h.AgeMs != nil || len(h.Member) > maxMember ||
		len(m.ProtoReflect().GetUnknown()) > 0 || len(h.ProtoReflect().GetUnknown()) > 0 {
		return nil, false
	}
	const most = 6*(2+10) + maxMember
	var room [most]byte
	b := room[:0]
	b = appendNumber(b, 1, h.ProtocolVersion)
	b = appendNumber(b, 2, h.ClusterId)
	b = appendNumber(b, 20, h.Revision)
	if h.Member != "" {
		b = protowire.AppendString(protowire.AppendTag(b, 21, protowire.BytesType), h.Member)
	}
	b = appendNumber(b, 24, h.ClusterIncarnation)
	b = appendNumber(b, 26, h.ClusterGeneration)
	out := make([]byte, 0, 3+len(b))
	return protowire.AppendBytes(protowire.AppendTag(out, 1, protowire.BytesType), b), true
}

// appendNumber writes a field that is left out where it is 0.
func appendNumber(b []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return b
	}
	return protowire.AppendVarint(protowire.AppendTag(b, field, protowire.VarintType), v)
}
