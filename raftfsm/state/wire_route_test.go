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

func drawPartition(t *rapid.T) *metasrvpb.Partition {
	if rapid.Bool().Draw(t, "no partition") {
		return nil
	}
	return &metasrvpb.Partition{ColumnList: rapid.SliceOfN(rapid.SliceOfN(rapid.Byte(), 0, 9), 0, 3).Draw(t, "columns")}
}

func drawSchema(t *rapid.T) *metasrvpb.TableSchema {
	if rapid.Bool().Draw(t, "no schema") {
		return nil
	}
	return &metasrvpb.TableSchema{
		Columns: []*metasrvpb.Column{{Name: rapid.String().Draw(t, "column")}},
		Options: map[string]string{"x": "1", "y": "2", "z": "3"},
	}
}

func drawRoute(t *rapid.T) *storagepb.RouteRecord {
	m := &storagepb.RouteRecord{TableId: number.Draw(t, "table"), RouteVersion: number.Draw(t, "version")}
	for range rapid.IntRange(0, 5).Draw(t, "regions") {
		region := &storagepb.RegionRecord{
			RegionId: number.Draw(t, "region"), PartitionNumber: uint32(number.Draw(t, "partition")), Partition: drawPartition(t),
			LeaderEpoch: number.Draw(t, "epoch"), ConfVersion: number.Draw(t, "conf"), LeaderReplicaId: number.Draw(t, "leader"),
		}
		for range rapid.IntRange(0, 4).Draw(t, "replicas") {
			region.Replicas = append(region.Replicas, &storagepb.ReplicaRecord{
				ReplicaId: number.Draw(t, "replica"), NodeId: number.Draw(t, "node"), PlannedIncarnation: number.Draw(t, "incarnation"),
				InSync: rapid.Bool().Draw(t, "in sync"), Dropped: rapid.Bool().Draw(t, "dropped"),
			})
		}
		m.Regions = append(m.Regions, region)
	}
	return m
}

func drawCreation(t *rapid.T) *storagepb.CreateTable {
	m := &storagepb.CreateTable{
		Schema: drawSchema(t), TableInfo: rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "info"),
		CreationToken: number.Draw(t, "token"), CreationTimeoutMs: number.Draw(t, "timeout"),
		WallTimeMs: rapid.Int64().Draw(t, "time"), Commit: rapid.Bool().Draw(t, "commit"),
	}
	if rapid.Bool().Draw(t, "has a name") {
		m.Name = &metasrvpb.TableName{TableName: rapid.String().Draw(t, "name")}
		m.PartitionRule = &metasrvpb.PartitionRule{}
	}
	for range rapid.IntRange(0, 5).Draw(t, "regions") {
		region := &storagepb.PlannedRegion{Partition: drawPartition(t)}
		for range rapid.IntRange(0, 4).Draw(t, "replicas") {
			region.Replicas = append(region.Replicas, &storagepb.PlannedReplica{
				NodeId: number.Draw(t, "node"), Incarnation: number.Draw(t, "incarnation"),
			})
		}
		m.Regions = append(m.Regions, region)
	}
	return m
}

func drawCommit(t *rapid.T) *storagepb.CommitTable {
	m := &storagepb.CommitTable{TableId: number.Draw(t, "table"), CreationToken: number.Draw(t, "token"), Schema: drawSchema(t)}
	for range rapid.IntRange(0, 5).Draw(t, "replicas") {
		m.Replicas = append(m.Replicas, &storagepb.CommittedReplica{
			RegionId: number.Draw(t, "region"), ReplicaId: number.Draw(t, "replica"),
			NodeId: number.Draw(t, "node"), Incarnation: number.Draw(t, "incarnation"),
		})
	}
	return m
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
		if err := Known(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		with.ProtoReflect().SetUnknown(unknown)
		if Known(m) == nil {
			t.Errorf("%s: an unknown field was taken", name)
		}
		want, err := proto.Marshal(m)
		if got := Encode(m); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: an unknown field was lost", name)
		}
		if Decode(want, m.ProtoReflect().New().Interface()) == nil {
			t.Errorf("%s: an unknown field was decoded", name)
		}
	}
}

func BenchmarkRoute(b *testing.B) {
	m := &storagepb.RouteRecord{TableId: 1024, RouteVersion: 1}
	for i := range uint64(10) {
		m.Regions = append(m.Regions, &storagepb.RegionRecord{
			RegionId: 1024<<32 + i, PartitionNumber: uint32(i), LeaderEpoch: 1, ConfVersion: 1, LeaderReplicaId: 2 * i,
			Replicas: []*storagepb.ReplicaRecord{{ReplicaId: 2 * i, NodeId: 900000001, PlannedIncarnation: 3}, {ReplicaId: 2*i + 1, NodeId: 900000002, PlannedIncarnation: 4}},
		})
	}
	encoded := Encode(m)
	b.Run("encode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			Encode(m)
		}
	})
	b.Run("decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if err := Decode(encoded, &storagepb.RouteRecord{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Whoever waits gets the same, whether the result came as a message or encoded.
func TestResultIsDecodedOrTaken(t *testing.T) {
	for _, want := range []proto.Message{
		&storagepb.TableResult{Table: table(), Route: &storagepb.RouteRecord{TableId: 1024}},
		&storagepb.KvResult{Success: true, Deleted: 3, Prev: []*storagepb.KvPair{{Key: []byte("a")}}},
		&storagepb.KvResult{},
		(*storagepb.TableResult)(nil),
	} {
		for form, r := range map[string]Result{"encoded": {Payload: Encode(want)}, "message": {Message: want}} {
			got := want.ProtoReflect().New().Interface()
			if kv, ok := got.(*storagepb.KvResult); ok {
				kv.Deleted = 7 // is overwritten
			}
			if err := r.Decode(got); err != nil || want.ProtoReflect().IsValid() && !proto.Equal(got, want) {
				t.Errorf("%s: %v became %v, %v", form, want, got, err)
			}
		}
	}
	if err := (Result{Message: &storagepb.KvResult{}}).Decode(&storagepb.TableResult{}); err == nil {
		t.Error("a result of another kind was taken")
	}
}
