package router

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Answers that are put together from encoded routes have the bytes of those that a Builder makes.
func TestAnswersAreThoseOfABuilder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes := rapid.SampledFrom([]uint64{3, 6, 40, 300}).Draw(t, "nodes")
		b := NewBuilder(func(metasrv.NodeID) string { return "" })
		want, a := &metasrvpb.RouteResponse{}, answer{}
		for range rapid.IntRange(0, 12).Draw(t, "tables") {
			record := anyRecord(t, nodes)
			want.TableRoutes = append(want.TableRoutes, b.Add(record))
			a.add(encodeRoute(record))
		}
		want.Peers = b.Peers()
		var got []byte
		for _, id := range a.nodes.ids {
			e := Encoder{nodes: NodeRecords{Value: func(state.View, metasrv.NodeID) []byte { return nil }}}
			got = append(got, e.peer(noView{}, id)...)
		}
		for _, r := range a.routes {
			got = a.appendRoute(got, r)
		}
		if plain := state.Encode(want); !bytes.Equal(got, plain) {
			decoded := &metasrvpb.RouteResponse{}
			err := proto.Unmarshal(got, decoded)
			t.Fatalf("encoded %v (%v)\nwant %v", decoded, err, want)
		}
	})
}

// noView is a state without anything in it.
type noView struct{ state.View }

func (noView) Revision() uint64 { return 0 }

// anyRecord returns a public table whose regions have 0 to 5 replicas on any of the nodes, and a leader or none.
func anyRecord(t *rapid.T, nodes uint64) Record {
	table := &storagepb.TableRecord{
		Id:        rapid.Uint64Range(1024, 1<<32).Draw(t, "table"),
		Name:      &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: rapid.StringN(0, 200, 300).Draw(t, "name")},
		State:     metasrvpb.TableState_TABLE_STATE_PUBLIC,
		TableInfo: rapid.SliceOfN(rapid.Byte(), 0, 300).Draw(t, "info"),
	}
	route := &storagepb.RouteRecord{TableId: table.Id, RouteVersion: rapid.Uint64().Draw(t, "version")}
	for i := range rapid.IntRange(0, 12).Draw(t, "regions") {
		region := &storagepb.RegionRecord{
			RegionId: uint64(metasrv.NewRegionID(metasrv.TableID(table.Id), uint32(i))), PartitionNumber: uint32(i),
			LeaderEpoch: rapid.Uint64().Draw(t, "epoch"), ConfVersion: rapid.Uint64Range(0, 3).Draw(t, "conf"),
		}
		if rapid.Bool().Draw(t, "opaque") {
			region.Partition = &metasrvpb.Partition{ColumnList: [][]byte{[]byte("k")}, ValueList: [][]byte{rapid.SliceOf(rapid.Byte()).Draw(t, "bound")}}
		}
		for j := range rapid.IntRange(0, 5).Draw(t, "replicas") {
			region.Replicas = append(region.Replicas, &storagepb.ReplicaRecord{
				ReplicaId: uint64(j + 1), NodeId: rapid.Uint64Range(1, nodes).Draw(t, "node"),
			})
		}
		if n := len(region.Replicas); n > 0 {
			region.LeaderReplicaId = rapid.Uint64Range(0, uint64(n)).Draw(t, "leader")
		}
		route.Regions = append(route.Regions, region)
	}
	return Record{Table: table, Route: route}
}
