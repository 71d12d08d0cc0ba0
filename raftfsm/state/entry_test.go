package state

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

var number = rapid.OneOf(rapid.Just(uint64(0)), rapid.Uint64Max(300), rapid.Uint64())

func drawPut(t *rapid.T) *storagepb.Put {
	return &storagepb.Put{
		Key:    rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "key"),
		Value:  rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "value"),
		PrevKv: rapid.Bool().Draw(t, "prev"),
	}
}

func drawProposal(t *rapid.T) *Proposal {
	p := &Proposal{
		Kind:        storagepb.CommandKind(rapid.Int32().Draw(t, "kind")),
		PlannedTerm: number.Draw(t, "planned term"),
	}
	switch rapid.IntRange(0, 3).Draw(t, "payload") {
	case 0:
		p.Payload = drawPut(t)
	case 1:
		p.Payload = table()
	case 2:
		p.Payload = &storagepb.CommitTable{TableId: number.Draw(t, "table"), Schema: table().Schema}
	default:
		p.Payload = &storagepb.OpenSession{}
	}
	if rapid.Bool().Draw(t, "has id") {
		p.ID = &storagepb.CommandId{
			Session: number.Draw(t, "session"), Sequence: number.Draw(t, "sequence"), Acknowledged: number.Draw(t, "acknowledged"),
		}
	}
	return p
}

func appended(entry []byte, p *Proposal) []byte {
	prepared, err := Prepare(p)
	if err != nil {
		panic(err)
	}
	return prepared.Append(entry)
}

func protobufEncoding(t *rapid.T, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Entries have the bytes that protobuf gives them, so members that know one of the two codings understand each other.
func TestEntryIsEncodedAsByProtobuf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &storagepb.Entry{
			Version:      uint32(number.Draw(t, "version")),
			Term:         number.Draw(t, "term"),
			LeaderTimeMs: number.Draw(t, "time"),
		}
		var entry []byte
		for range rapid.IntRange(1, 5).Draw(t, "commands") {
			p := drawProposal(t)
			want.Commands = append(want.Commands, &storagepb.Command{
				Kind: p.Kind, Payload: protobufEncoding(t, p.Payload), Id: p.ID, PlannedTerm: p.PlannedTerm,
			})
			before := max(len(entry), EntryHeaderRoom)
			prepared, err := Prepare(p)
			if err != nil {
				t.Fatal(err)
			}
			size := prepared.Size()
			entry = prepared.Append(entry)
			if len(entry)-before != size {
				t.Fatalf("a command of %d bytes was said to have %d", len(entry)-before, size)
			}
		}
		b := FinishEntry(entry, want.Version, want.Term, LeaderTime(want.LeaderTimeMs))
		if !bytes.Equal(b, protobufEncoding(t, want)) {
			t.Fatalf("%v is encoded as %x", want, b)
		}
		got := &storagepb.Entry{}
		if err := Decode(b, got); err != nil || !proto.Equal(got, want) {
			t.Fatalf("decoded %v, %v; want %v", got, err, want)
		}
	})
}

// Entries as they are usual are decoded by hand: this is what the speed rests on.
func TestEntryIsDecodedByHand(t *testing.T) {
	entry := appended(nil, &Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_PUT, Payload: &storagepb.Put{Key: []byte("k")}, ID: &storagepb.CommandId{Session: 1, Sequence: 2},
	})
	if b := FinishEntry(entry, 1, 2, 3); !decodeEntry(b, &storagepb.Entry{}) {
		t.Error("an entry was left to protobuf")
	}
}

// Whatever the bytes: what is decoded by hand is what protobuf makes of them, and knows every field.
func FuzzDecodeEntry(f *testing.F) {
	put := &Proposal{Kind: 16, Payload: &storagepb.Put{Key: []byte("key")}, ID: &storagepb.CommandId{Session: 1}, PlannedTerm: 4}
	entry := FinishEntry(appended(appended(nil, put), put), 1, 2, 3)
	f.Add(entry)
	f.Add(append(entry, entry...))
	f.Add(protowire.AppendVarint(protowire.AppendTag(entry, 9, protowire.VarintType), 7))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, want := &storagepb.Entry{}, &storagepb.Entry{}
		wantErr := proto.Unmarshal(b, want)
		if wantErr == nil {
			wantErr = Known(want)
		}
		gotErr := Decode(b, got)
		if (gotErr == nil) != (wantErr == nil) || gotErr == nil && !proto.Equal(got, want) {
			t.Errorf("%x decodes to %v, %v; protobuf makes %v, %v of it", b, got, gotErr, want, wantErr)
		}
	})
}

func BenchmarkDecodeEntry(b *testing.B) {
	var entry []byte
	for range 100 {
		entry = appended(entry, &Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_PUT, Payload: &storagepb.Put{Key: make([]byte, 16), Value: make([]byte, 256)}})
	}
	encoded := FinishEntry(entry, 1, 2, 3)
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(encoded, &storagepb.Entry{}); err != nil {
			b.Fatal(err)
		}
	}
}
