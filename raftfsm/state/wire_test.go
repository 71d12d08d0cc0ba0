package state

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
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
	switch rapid.IntRange(0, 6).Draw(t, "payload") {
	case 0:
		p.Payload = drawPut(t)
	case 1:
		p.Payload = table()
	case 2:
		p.Payload = &storagepb.KvResult{Success: rapid.Bool().Draw(t, "success"), Deleted: rapid.Int64().Draw(t, "deleted")}
	case 3:
		p.Payload = drawRoute(t)
	case 4:
		p.Payload = drawCreation(t)
	case 5:
		p.Payload = drawCommit(t)
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

func protobufEncoding(t *rapid.T, m proto.Message) []byte {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// What is encoded by hand has the bytes that protobuf gives it, so members that know one of the two understand each other.
func TestHandWrittenEncodingIsProtobufs(t *testing.T) {
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
			size := CommandSize(p)
			entry = AppendCommand(entry, p)
			if len(entry)-before != size {
				t.Fatalf("a command of %d bytes was said to have %d", len(entry)-before, size)
			}
			if b := Encode(p.Payload); !bytes.Equal(b, protobufEncoding(t, p.Payload)) || len(b) != Size(p.Payload) {
				t.Fatalf("%v is encoded as %x", p.Payload, b)
			}
			if got := p.Payload.ProtoReflect().New().Interface(); Decode(Encode(p.Payload), got) != nil || !proto.Equal(got, p.Payload) {
				t.Fatalf("%v is decoded as %v", p.Payload, got)
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

// Entries and puts as they are usual are decoded by hand: this is what the speed rests on.
func TestHotMessagesAreDecodedByHand(t *testing.T) {
	put := &storagepb.Put{Key: []byte("k"), Value: make([]byte, 300), PrevKv: true}
	entry := AppendCommand(nil, &Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_PUT, Payload: put, ID: &storagepb.CommandId{Session: 1, Sequence: 2}})
	if b := FinishEntry(entry, 1, 2, 3); !decodeHot(b, &storagepb.Entry{}) {
		t.Error("an entry was left to protobuf")
	}
	if !decodeHot(Encode(put), &storagepb.Put{}) {
		t.Error("a put was left to protobuf")
	}
	rapid.Check(t, func(t *rapid.T) {
		for _, m := range []proto.Message{drawRoute(t), drawCreation(t), drawCommit(t)} {
			if _, hot := sizeHot(m); !hot || !decodeHot(Encode(m), m.ProtoReflect().New().Interface()) {
				t.Errorf("%v was left to protobuf", m)
			}
		}
	})
}

// Whatever the bytes: what is decoded by hand is what protobuf makes of them, and knows every field.
func FuzzDecode(f *testing.F) {
	put := Encode(&storagepb.Put{Key: []byte("key"), Value: []byte("value"), PrevKv: true})
	f.Add(put)
	f.Add(append(put, put...))
	f.Add(protowire.AppendVarint(protowire.AppendTag(put, 9, protowire.VarintType), 7))
	f.Add(protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 2)) // a bool that is 2
	f.Add(FinishEntry(AppendCommand(nil, &Proposal{Payload: &storagepb.Put{Key: put}, ID: &storagepb.CommandId{Session: 1}}), 1, 2, 3))
	creation := Encode(&storagepb.CreateTable{
		Name: &metasrvpb.TableName{TableName: "t"}, Regions: []*storagepb.PlannedRegion{{Replicas: []*storagepb.PlannedReplica{{NodeId: 1}, {}}}},
	})
	f.Add(creation)
	f.Add(append(creation, creation...))
	f.Add(Encode(&storagepb.CommitTable{TableId: 1, Schema: table().Schema, Replicas: []*storagepb.CommittedReplica{{RegionId: 1}, {}}}))
	f.Add(Encode(&storagepb.RouteRecord{TableId: 1, Regions: []*storagepb.RegionRecord{
		{Partition: &metasrvpb.Partition{}, Replicas: []*storagepb.ReplicaRecord{{ReplicaId: 1, InSync: true}}}, {},
	}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []proto.Message{&storagepb.Put{}, &storagepb.Entry{}, &storagepb.KvResult{}, &storagepb.CreateTable{}, &storagepb.CommitTable{}, &storagepb.RouteRecord{}} {
			got, want := m, proto.Clone(m)
			wantErr := proto.Unmarshal(b, want)
			if wantErr == nil {
				wantErr = Known(want)
			}
			gotErr := Decode(b, got)
			if (gotErr == nil) != (wantErr == nil) || gotErr == nil && !proto.Equal(got, want) {
				t.Errorf("%x decodes to %v, %v; protobuf makes %v, %v of it", b, got, gotErr, want, wantErr)
			}
		}
	})
}

func BenchmarkDecodeEntry(b *testing.B) {
	var entry []byte
	for range 100 {
		entry = AppendCommand(entry, &Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_PUT, Payload: &storagepb.Put{Key: make([]byte, 16), Value: make([]byte, 256)}})
	}
	encoded := FinishEntry(entry, 1, 2, 3)
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(encoded, &storagepb.Entry{}); err != nil {
			b.Fatal(err)
		}
	}
}
