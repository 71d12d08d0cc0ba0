package state

import (
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func table() *storagepb.TableRecord {
	return &storagepb.TableRecord{
		Id:   1024,
		Name: &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: "t"},
		Schema: &metasrvpb.TableSchema{
			Columns: []*metasrvpb.Column{{Name: "a"}, {Name: "b"}},
			Options: map[string]string{"x": "1", "y": "2"},
		},
	}
}

func TestDecodeReturnsWhatWasEncoded(t *testing.T) {
	got := &storagepb.TableRecord{}
	if err := Decode(Encode(table()), got); err != nil || !proto.Equal(got, table()) {
		t.Errorf("decoded %v, %v", got, err)
	}
}

// Wherever in a record a field stands that this build doesn't know, the record is refused.
func TestDecodeRefusesUnknownFields(t *testing.T) {
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 2000, protowire.VarintType), 7)
	for name, change := range map[string]func(*storagepb.TableRecord){
		"in the record":       func(r *storagepb.TableRecord) { r.ProtoReflect().SetUnknown(unknown) },
		"in a message of it":  func(r *storagepb.TableRecord) { r.Name.ProtoReflect().SetUnknown(unknown) },
		"in a message in one": func(r *storagepb.TableRecord) { r.Schema.ProtoReflect().SetUnknown(unknown) },
		"in a list":           func(r *storagepb.TableRecord) { r.Schema.Columns[1].ProtoReflect().SetUnknown(unknown) },
	} {
		r := table()
		change(r)
		if err := Decode(Encode(r), &storagepb.TableRecord{}); err == nil {
			t.Errorf("a field that is unknown %s was taken", name)
		}
	}
}

// Other encoders may write what Encode wouldn't: fields out of order, or twice. That is no unknown field.
func TestDecodeTakesOtherEncodings(t *testing.T) {
	b := append(Encode(&storagepb.TableRecord{Id: 1}), Encode(&storagepb.TableRecord{Id: 2})...)
	got := &storagepb.TableRecord{}
	if err := Decode(b, got); err != nil || got.Id != 2 {
		t.Errorf("decoded %v, %v; want id 2", got, err)
	}
}

func BenchmarkDecode(b *testing.B) {
	encoded := Encode(table())
	for b.Loop() {
		if err := Decode(encoded, &storagepb.TableRecord{}); err != nil {
			b.Fatal(err)
		}
	}
}
