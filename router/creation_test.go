package router_test

import (
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

func drawRecord(t *rapid.T) router.Record {
	number := rapid.OneOf(rapid.Uint64Max(300), rapid.Uint64())
	r := router.Record{
		Table: &storagepb.TableRecord{
			Id: number.Draw(t, "id"), Name: &metasrvpb.TableName{TableName: "t"}, CreationToken: number.Draw(t, "token"),
			CreationDeadlineMs: number.Draw(t, "deadline"),
			Schema:             &metasrvpb.TableSchema{Columns: []*metasrvpb.Column{{Name: "a", Type: metasrvpb.DataType_DATA_TYPE_INT64}}},
		},
		Route: &storagepb.RouteRecord{RouteVersion: number.Draw(t, "version")},
	}
	bound := func(v *metasrvpb.Value) *metasrvpb.RangeBound {
		return &metasrvpb.RangeBound{Values: []*metasrvpb.Value{v}}
	}
	switch rapid.IntRange(0, 3).Draw(t, "rule") {
	case 0:
		r.Table.PartitionRule = &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{Hash: &metasrvpb.HashRule{Columns: []string{"a"}, Partitions: 3}}}
	case 1:
		r.Table.PartitionRule = &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: &metasrvpb.RangeRule{
			Columns: []string{"a"}, Bounds: []*metasrvpb.RangeBound{
				bound(&metasrvpb.Value{Kind: &metasrvpb.Value_Int64Value{Int64Value: 1}}),
				bound(&metasrvpb.Value{Kind: &metasrvpb.Value_Int64Value{Int64Value: 2}}),
				bound(&metasrvpb.Value{Kind: &metasrvpb.Value_MaxValue{MaxValue: true}}),
			},
		}}}
	case 2: // one that is refused
		r.Table.PartitionRule = &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Range{Range: &metasrvpb.RangeRule{Columns: []string{"b"}}}}
	}
	for i := range rapid.IntRange(0, 3).Draw(t, "regions") {
		region := &storagepb.RegionRecord{
			RegionId: number.Draw(t, "region"), PartitionNumber: uint32(i), LeaderEpoch: number.Draw(t, "epoch"), //nolint:gosec // a small number
			ConfVersion: number.Draw(t, "conf"), LeaderReplicaId: rapid.Uint64Max(5).Draw(t, "leader"),
		}
		if rapid.Bool().Draw(t, "opaque") {
			region.Partition = &metasrvpb.Partition{ColumnList: [][]byte{{1}, make([]byte, 200)}}
		}
		for j := range rapid.IntRange(0, 90).Draw(t, "replicas") {
			region.Replicas = append(region.Replicas, &storagepb.ReplicaRecord{ //nolint:gosec // a small number
				ReplicaId: uint64(j), NodeId: 1 + rapid.Uint64Max(80).Draw(t, "node"), Learner: rapid.Bool().Draw(t, "learner"),
			})
		}
		r.Route.Regions = append(r.Route.Regions, region)
	}
	return r
}

// Whatever a creation made: its answer is the one that a Builder makes of it.
func TestCreationIsEncodedAsBuilt(t *testing.T) {
	view := machine.NewView(machine.Position{}, func(func(string, []byte) bool) {})
	rapid.Check(t, func(t *rapid.T) {
		r := drawRecord(t)
		now := state.LeaderTime(rapid.Uint64Max(400).Draw(t, "now"))
		b := router.NewBuilder(func(metasrv.NodeID) string { return "" })
		route := b.AddCreation(r, now)
		want := state.Encode(&metasrvpb.RouteResponse{Peers: b.Peers(), TableRoutes: []*metasrvpb.TableRoute{route}})
		encoded := router.NewEncoder(nodeRecords(), 1<<20).EncodeCreation(view, r, now)
		if string(encoded) == string(want) {
			return
		}
		got := &metasrvpb.RouteResponse{}
		if err := proto.Unmarshal(encoded, got); err != nil {
			t.Fatal(err)
		}
		t.Fatalf("%v is encoded as %v", r, got)
	})
}
