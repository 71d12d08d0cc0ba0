package router

import (
	"slices"
	"testing"

	"pgregory.net/rapid"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
)

// Whatever the order of a list: each replica is found once, the last one of those that are there twice, and the first
// one that nobody asked for is named. Every member must find the same.
func TestConfirmationsAreFoundInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ids := rapid.SliceOfN(rapid.Uint64Range(1, 8), 0, 8)
		listed, asked := ids.Draw(t, "listed"), ids.Draw(t, "asked")
		if rapid.Bool().Draw(t, "sorted") {
			slices.Sort(listed)
			slices.Sort(asked)
		}
		var list []*storagepb.CommittedReplica
		last := map[uint64]*storagepb.CommittedReplica{}
		for i, id := range listed {
			r := &storagepb.CommittedReplica{ReplicaId: id, NodeId: uint64(i)}
			list, last[id] = append(list, r), r
		}
		c := newConfirmations(list)
		for _, id := range asked {
			if got := c.take(id); got != last[id] {
				t.Fatalf("replica %d of %v: %v, want %v", id, listed, got, last[id])
			}
			delete(last, id)
		}
		want := slices.IndexFunc(listed, func(id uint64) bool { return last[id] != nil })
		if got := c.left(); got != want {
			t.Fatalf("of %v, asked for %v, %d is left, want %d", listed, asked, got, want)
		}
	})
}
