package router

import (
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// FuzzScanReplicaIDs compares the scan with the generated decoder, which knows the numbers of the fields.
func FuzzScanReplicaIDs(f *testing.F) {
	record, err := proto.Marshal(&storagepb.RouteRecord{TableId: 1024, RouteVersion: 3, Regions: []*storagepb.RegionRecord{
		{
			RegionId: 1024 << 32, PartitionNumber: 1, LeaderEpoch: 2, ConfVersion: 4, LeaderReplicaId: 9,
			Partition: &metasrvpb.Partition{ColumnList: [][]byte{[]byte("a")}, ValueList: [][]byte{{0xff}}},
			Replicas: []*storagepb.ReplicaRecord{
				{ReplicaId: 9, NodeId: 1, PlannedIncarnation: 5, InSync: true, Dropped: true},
				{ReplicaId: 1 << 40, NodeId: 2},
			},
		},
		{RegionId: 1024<<32 | 1, Replicas: []*storagepb.ReplicaRecord{{ReplicaId: 11}}},
	}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(record)
	f.Add([]byte{})
	f.Add([]byte{0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		ids, scanErr := scanReplicaIDs(b)
		route := &storagepb.RouteRecord{}
		if proto.Unmarshal(b, route) != nil {
			return // the scan does not look into every field
		}
		if scanErr != nil {
			t.Fatalf("the record can be decoded, but not scanned: %v", scanErr)
		}
		if again, err := proto.Marshal(route); err != nil || !slices.Equal(again, b) {
			return // not as metasrv writes it: a field twice, or in another order
		}
		var want []uint64
		for _, replica := range replicas(route) {
			if replica.ReplicaId != 0 { // not written, and never given out
				want = append(want, replica.ReplicaId)
			}
		}
		if !slices.Equal(ids, want) {
			t.Fatalf("scanned %d, decoded %d", ids, want)
		}
	})
}
