package storagepb_test

import (
	"bytes"
	"slices"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"pgregory.net/rapid"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func drawAny(t *rapid.T) proto.Message {
	draws := []func(*rapid.T) proto.Message{
		func(t *rapid.T) proto.Message { return drawPut(t) },
		func(t *rapid.T) proto.Message { return drawResult(t) },
		func(t *rapid.T) proto.Message { return drawRoute(t) },
		func(t *rapid.T) proto.Message { return drawCreation(t) },
		func(t *rapid.T) proto.Message { return drawCommit(t) },
		func(t *rapid.T) proto.Message { return drawTable(t) },
	}
	return rapid.SampledFrom(draws).Draw(t, "kind")(t)
}

// What is encoded by hand has the bytes that protobuf gives it, so members that know one of the two understand each other.
// It is decoded by hand too: this is what the speed rests on.
func TestHandWrittenEncodingIsProtobufs(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := drawAny(t)
		want, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		size, byHand := m.(state.Coded).WireSize()
		if !byHand {
			t.Fatalf("%v was left to protobuf", m)
		}
		if b := state.Encode(m); !bytes.Equal(b, want) || len(b) != size {
			t.Fatalf("%v is encoded as %x", m, b)
		}
		if got := m.ProtoReflect().New().Interface(); !got.(state.Coded).DecodeWire(want) || !proto.Equal(got, m) {
			t.Fatalf("%v is decoded as %v", m, got)
		}
	})
}

// publicByHand are the messages of the public protocol that are coded by hand, see wire_public.go.
var publicByHand = []protoreflect.Name{"TableName", "TableSchema", "Column", "PartitionRule", "HashRule"}

// A field that is forgotten where messages are drawn would be tested by nothing.
func TestDrawnMessagesHaveEveryField(t *testing.T) {
	missing := map[protoreflect.FullName]bool{}
	drawn := map[protoreflect.FullName]bool{}
	var look func(m protoreflect.Message)
	look = func(m protoreflect.Message) {
		if !slices.Contains(publicByHand, m.Descriptor().Name()) && m.Descriptor().ParentFile().Package() != "metasrv.storage.v1" {
			return
		}
		fields := m.Descriptor().Fields()
		for i := range fields.Len() {
			missing[fields.Get(i).FullName()] = true
		}
		m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			drawn[fd.FullName()] = true
			if fd.Message() != nil && !fd.IsList() && !fd.IsMap() {
				look(v.Message())
			}
			for i := 0; fd.IsList() && fd.Message() != nil && i < v.List().Len(); i++ {
				look(v.List().Get(i).Message())
			}
			return true
		})
	}
	for seed := range 500 {
		for _, m := range []proto.Message{
			rapid.Custom(drawRoute).Example(seed), rapid.Custom(drawCreation).Example(seed), rapid.Custom(drawCommit).Example(seed),
			rapid.Custom(drawTable).Example(seed),
		} {
			look(m.ProtoReflect())
		}
	}
	for field := range missing {
		if !drawn[field] {
			t.Errorf("%s is never drawn", field)
		}
	}
}

// A field that this build doesn't know is neither lost nor taken, wherever in a message it stands.
func TestUnknownFieldsOfRouteMessages(t *testing.T) {
	unknown := protowire.AppendVarint(protowire.AppendTag(nil, 2000, protowire.VarintType), 7)
	partition := func() *metasrvpb.Partition { return &metasrvpb.Partition{ColumnList: [][]byte{{1}}} }
	for name, make := range map[string]func() (m, with proto.Message){
		"route": func() (m, with proto.Message) { r := &storagepb.RouteRecord{TableId: 1}; return r, r },
		"region": func() (m, with proto.Message) {
			r := &storagepb.RegionRecord{}
			return &storagepb.RouteRecord{Regions: []*storagepb.RegionRecord{r}}, r
		},
		"replica": func() (m, with proto.Message) {
			r := &storagepb.ReplicaRecord{}
			return &storagepb.RouteRecord{Regions: []*storagepb.RegionRecord{{Replicas: []*storagepb.ReplicaRecord{r}}}}, r
		},
		"partition": func() (m, with proto.Message) {
			p := partition()
			return &storagepb.RouteRecord{Regions: []*storagepb.RegionRecord{{}, {Partition: p}}}, p
		},
		"creation": func() (m, with proto.Message) { c := &storagepb.CreateTable{}; return c, c },
		"name":     func() (m, with proto.Message) { n := &metasrvpb.TableName{}; return &storagepb.CreateTable{Name: n}, n },
		"column": func() (m, with proto.Message) {
			c := &metasrvpb.Column{}
			return &storagepb.CreateTable{Schema: &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{c}}}, c
		},
		"rule": func() (m, with proto.Message) {
			r := &metasrvpb.PartitionRule{}
			return &storagepb.CreateTable{PartitionRule: r}, r
		},
		"planned region": func() (m, with proto.Message) {
			r := &storagepb.PlannedRegion{}
			return &storagepb.CreateTable{Regions: []*storagepb.PlannedRegion{r}}, r
		},
		"planned partition": func() (m, with proto.Message) {
			p := partition()
			return &storagepb.CreateTable{Regions: []*storagepb.PlannedRegion{{Partition: p}}}, p
		},
		"planned replica": func() (m, with proto.Message) {
			r := &storagepb.PlannedReplica{}
			return &storagepb.CreateTable{Regions: []*storagepb.PlannedRegion{{Replicas: []*storagepb.PlannedReplica{r}}}}, r
		},
		"table": func() (m, with proto.Message) { r := &storagepb.TableRecord{Id: 1}; return r, r },
		"name of a table": func() (m, with proto.Message) {
			n := &metasrvpb.TableName{TableName: "t"}
			return &storagepb.TableRecord{Name: n}, n
		},
		"column of a table": func() (m, with proto.Message) {
			c := &metasrvpb.Column{Name: "a"}
			return &storagepb.TableRecord{Schema: &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{{Name: "b"}, c}}}, c
		},
		"schema of a table": func() (m, with proto.Message) {
			s := &metasrvpb.TableSchema{PrimaryKey: []string{"a"}}
			return &storagepb.TableRecord{Schema: s}, s
		},
		"hash rule": func() (m, with proto.Message) {
			h := &metasrvpb.HashRule{Columns: []string{"a"}, Partitions: 3}
			return &storagepb.TableRecord{PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{Hash: h}}}, h
		},
		"rule of a table": func() (m, with proto.Message) {
			r := &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{Hash: &metasrvpb.HashRule{}}}
			return &storagepb.TableRecord{PartitionRule: r}, r
		},
		"commit": func() (m, with proto.Message) { c := &storagepb.CommitTable{}; return c, c },
		"schema": func() (m, with proto.Message) {
			s := &metasrvpb.TableSchema{}
			return &storagepb.CommitTable{Schema: s}, s
		},
		"committed replica": func() (m, with proto.Message) {
			r := &storagepb.CommittedReplica{}
			return &storagepb.CommitTable{Replicas: []*storagepb.CommittedReplica{r}}, r
		},
	} {
		m, with := make()
		if err := state.Known(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		with.ProtoReflect().SetUnknown(unknown)
		if state.Known(m) == nil {
			t.Errorf("%s: an unknown field was taken", name)
		}
		want, err := proto.Marshal(m)
		if got := state.Encode(m); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: an unknown field was lost", name)
		}
		if state.Decode(want, m.ProtoReflect().New().Interface()) == nil {
			t.Errorf("%s: an unknown field was decoded", name)
		}
	}
}

// Whatever the bytes: what is decoded by hand is what protobuf makes of them, and knows every field.
func FuzzDecode(f *testing.F) {
	put := state.Encode(&storagepb.Put{Key: []byte("key"), Value: []byte("value"), PrevKv: true})
	f.Add(put)
	f.Add(append(put, put...))
	f.Add(protowire.AppendVarint(protowire.AppendTag(put, 9, protowire.VarintType), 7))
	f.Add(protowire.AppendVarint(protowire.AppendTag(nil, 3, protowire.VarintType), 2)) // a bool that is 2
	creation := state.Encode(&storagepb.CreateTable{
		Name: &metasrvpb.TableName{TableName: "t"}, Regions: []*storagepb.PlannedRegion{{Replicas: []*storagepb.PlannedReplica{{NodeId: 1}, {}}}},
	})
	f.Add(creation)
	f.Add(append(creation, creation...))
	f.Add(state.Encode(&storagepb.CommitTable{TableId: 1, Schema: &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{{Name: "a"}}}, Replicas: []*storagepb.CommittedReplica{{RegionId: 1}, {}}}))
	f.Add(state.Encode(&storagepb.RouteRecord{TableId: 1, Regions: []*storagepb.RegionRecord{
		{Partition: &metasrvpb.Partition{}, Replicas: []*storagepb.ReplicaRecord{{ReplicaId: 1, InSync: true}}}, {},
	}}))
	f.Add(state.Encode(&storagepb.TableRecord{
		Id: 1, Name: &metasrvpb.TableName{CatalogName: "c", TableName: "t"}, State: 1, Reason: "r",
		Schema:        &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{{Name: "a", Type: 2, Nullable: true}, {}}, PrimaryKey: []string{"a", ""}},
		PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{Hash: &metasrvpb.HashRule{Columns: []string{"a"}, Partitions: 10}}},
	}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, m := range []proto.Message{&storagepb.TableRecord{}, &storagepb.Put{}, &storagepb.KvResult{}, &storagepb.CreateTable{}, &storagepb.CommitTable{}, &storagepb.RouteRecord{}} {
			got, want := m, proto.Clone(m)
			wantErr := proto.Unmarshal(b, want)
			if wantErr == nil {
				wantErr = state.Known(want)
			}
			gotErr := state.Decode(b, got)
			if (gotErr == nil) != (wantErr == nil) || gotErr == nil && !proto.Equal(got, want) {
				t.Errorf("%x decodes to %v, %v; protobuf makes %v, %v of it", b, got, gotErr, want, wantErr)
			}
		}
	})
}

func BenchmarkRoute(b *testing.B) {
	m := &storagepb.RouteRecord{TableId: 1024, RouteVersion: 1}
	for i := range uint64(10) {
		m.Regions = append(m.Regions, &storagepb.RegionRecord{
			RegionId: 1024<<32 + i, PartitionNumber: uint32(i), LeaderEpoch: 1, ConfVersion: 1, LeaderReplicaId: 2 * i,
			Replicas: []*storagepb.ReplicaRecord{{ReplicaId: 2 * i, NodeId: 900000001, PlannedIncarnation: 3}, {ReplicaId: 2*i + 1, NodeId: 900000002, PlannedIncarnation: 4}},
		})
	}
	encoded := state.Encode(m)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			state.Encode(m)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := state.Decode(encoded, &storagepb.RouteRecord{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
