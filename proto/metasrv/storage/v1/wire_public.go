package storagepb

import (
	"unicode/utf8"

	"github.com/metasrv/metasrv/proto/metasrv/storage/wire"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// The messages of the public protocol that every table has are coded by hand as far as most tables have them: a name, a
// schema without options, a hash rule. The functions that size return false where protobuf must encode the message, the
// ones that decode where it must decode it.

// sizeText returns the size of a field of text; false where it is none, which protobuf refuses.
func sizeText(s string) (int, bool) {
	if s == "" {
		return 0, true
	}
	return wire.SizeMessage(len(s)), utf8.ValidString(s)
}

// sizeTexts returns the size of a field of several texts, of which some may be empty.
func sizeTexts(list []string) (n int, ok bool) {
	for _, s := range list {
		n += wire.SizeMessage(len(s))
		if !utf8.ValidString(s) {
			return 0, false
		}
	}
	return n, true
}

func appendTexts(b []byte, field wire.Number, list []string) []byte {
	for _, s := range list {
		b = append(wire.AppendHead(b, field, len(s)), s...)
	}
	return b
}

func sizeName(m *metasrvpb.TableName) (int, bool) {
	catalog, a := sizeText(m.CatalogName)
	schema, b := sizeText(m.SchemaName)
	table, c := sizeText(m.TableName)
	return catalog + schema + table, a && b && c && len(m.ProtoReflect().GetUnknown()) == 0
}

func appendName(b []byte, m *metasrvpb.TableName) []byte {
	b = wire.AppendText(b, 1, m.CatalogName)
	b = wire.AppendText(b, 2, m.SchemaName)
	return wire.AppendText(b, 3, m.TableName)
}

func decodeName(b []byte, m *metasrvpb.TableName) bool {
	r := wire.Read(b)
	m.CatalogName = r.Text(1)
	m.SchemaName = r.Text(2)
	m.TableName = r.Text(3)
	return r.Done()
}

func sizeColumn(m *metasrvpb.Column) (int, bool) {
	if m == nil || len(m.ProtoReflect().GetUnknown()) > 0 {
		return 0, false
	}
	name, a := sizeText(m.Name)
	comment, b := sizeText(m.Comment)
	native, c := sizeText(m.NativeType)
	return name + wire.SizeVarint(uint64(m.Type)) + wire.SizeBool(m.Nullable) + comment + native, a && b && c //nolint:gosec // as protobuf does
}

func appendColumn(b []byte, m *metasrvpb.Column) []byte {
	b = wire.AppendText(b, 1, m.Name)
	b = wire.AppendVarint(b, 2, uint64(m.Type)) //nolint:gosec // as protobuf does
	b = wire.AppendBool(b, 3, m.Nullable)
	b = wire.AppendText(b, 4, m.Comment)
	return wire.AppendText(b, 5, m.NativeType)
}

func decodeColumn(b []byte, m *metasrvpb.Column) bool {
	r := wire.Read(b)
	m.Name = r.Text(1)
	m.Type = metasrvpb.DataType(r.Varint(2)) //nolint:gosec // as protobuf does
	m.Nullable = r.Bool(3)
	m.Comment = r.Text(4)
	m.NativeType = r.Text(5)
	return r.Done()
}

func sizeSchema(m *metasrvpb.TableSchema) (int, bool) {
	if len(m.Options) > 0 || len(m.ProtoReflect().GetUnknown()) > 0 {
		return 0, false
	}
	n := 0
	for _, column := range m.Columns {
		size, ok := sizeColumn(column)
		if !ok {
			return 0, false
		}
		n += wire.SizeMessage(size)
	}
	key, a := sizeTexts(m.PrimaryKey)
	index, b := sizeText(m.TimeIndex)
	return n + key + index, a && b
}

func appendSchema(b []byte, m *metasrvpb.TableSchema) []byte {
	for _, column := range m.Columns {
		n, _ := sizeColumn(column)
		b = appendColumn(wire.AppendHead(b, 1, n), column)
	}
	b = appendTexts(b, 2, m.PrimaryKey)
	return wire.AppendText(b, 3, m.TimeIndex)
}

func decodeSchema(b []byte, m *metasrvpb.TableSchema) bool {
	r := wire.Read(b)
	var columns wire.Slab[metasrvpb.Column]
	m.Columns = columns.Take(r.Count(1), 1)
	for _, column := range m.Columns {
		if !decodeColumn(r.Bytes(1), column) {
			return false
		}
	}
	m.PrimaryKey = r.Texts(2)
	m.TimeIndex = r.Text(3)
	return r.Done()
}

// sizeRule returns the size of a rule; those by range are left to protobuf.
func sizeRule(m *metasrvpb.PartitionRule) (int, bool) {
	n, ok := sizeHash(m.GetHash())
	return wire.SizeMessage(n), ok && len(m.ProtoReflect().GetUnknown()) == 0
}

func sizeHash(m *metasrvpb.HashRule) (int, bool) {
	if m == nil || len(m.ProtoReflect().GetUnknown()) > 0 {
		return 0, false
	}
	n, ok := sizeTexts(m.Columns)
	return n + wire.SizeVarint(uint64(m.Partitions)), ok
}

func appendRule(b []byte, m *metasrvpb.PartitionRule) []byte {
	hash := m.GetHash()
	n, _ := sizeHash(hash)
	b = appendTexts(wire.AppendHead(b, 2, n), 1, hash.GetColumns())
	return wire.AppendVarint(b, 2, uint64(hash.GetPartitions()))
}

func decodeRule(b []byte, m *metasrvpb.PartitionRule) bool {
	r := wire.Read(b)
	encoded := r.Bytes(2)
	if encoded == nil || !r.Done() {
		return false
	}
	hash := &metasrvpb.HashRule{}
	h := wire.Read(encoded)
	hash.Columns = h.Texts(1)
	hash.Partitions = uint32(h.Varint(2)) //nolint:gosec // as protobuf does
	m.Rule = &metasrvpb.PartitionRule_Hash{Hash: hash}
	return h.Done()
}
