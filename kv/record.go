package kv

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/proto/metasrv/storage/wire"
)

// Pair is a key with its value and its history. Its bytes must not be modified.
type Pair struct {
	Key, Value []byte
	// CreateRevision is the revision that created the key, of its present life.
	CreateRevision uint64
	// ModRevision is the revision of the last write.
	ModRevision uint64
	// Version is the number of writes since the creation, that one included.
	Version uint64
}

func (p *Pair) size() int { return len(p.Key) + len(p.Value) }

func (p *Pair) toProto() *storagepb.KvPair {
	return &storagepb.KvPair{
		Key: p.Key, Value: p.Value, CreateRevision: p.CreateRevision, ModRevision: p.ModRevision, Version: p.Version,
	}
}

// Fields of storagepb.KvRecord. Records are written and read by hand, for every put does both; the bytes are those of
// the message.
const (
	createField  = 1
	modField     = 2
	versionField = 3
	valueField   = 4
)

// encodeRecord returns the record of a pair. It copies the value, which is part of a whole log entry.
func encodeRecord(p *Pair) []byte {
	size := wire.SizeVarint(p.CreateRevision) + wire.SizeVarint(p.ModRevision) + wire.SizeVarint(p.Version) + wire.SizeBytes(p.Value)
	b := make([]byte, 0, size)
	b = wire.AppendVarint(b, createField, p.CreateRevision)
	b = wire.AppendVarint(b, modField, p.ModRevision)
	b = wire.AppendVarint(b, versionField, p.Version)
	return wire.AppendBytes(b, valueField, p.Value)
}

// decodeRecord fills p, but for its key, from a record. The value shares the record's bytes. It refuses fields that
// this build does not know, as state.Decode does.
func decodeRecord(b []byte, p *Pair) error {
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			return fmt.Errorf("decode record: %w", protowire.ParseError(n))
		}
		b = b[n:]
		switch {
		case field == valueField && kind == protowire.BytesType:
			p.Value, n = protowire.ConsumeBytes(b)
		case field == createField && kind == protowire.VarintType:
			p.CreateRevision, n = protowire.ConsumeVarint(b)
		case field == modField && kind == protowire.VarintType:
			p.ModRevision, n = protowire.ConsumeVarint(b)
		case field == versionField && kind == protowire.VarintType:
			p.Version, n = protowire.ConsumeVarint(b)
		default:
			return fmt.Errorf("decode record: field %d is unknown to this version of metasrv", field)
		}
		if n < 0 {
			return fmt.Errorf("decode record: %w", protowire.ParseError(n))
		}
		b = b[n:]
	}
	return nil
}
