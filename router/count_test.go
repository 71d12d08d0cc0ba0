package router

import (
	"testing"

	"pgregory.net/rapid"

	"github.com/metasrv/metasrv/raftfsm/state"
)

func TestReplicasInAreThoseOfTheRoute(t *testing.T) {
	type replica struct {
		node  uint64
		leads bool
	}
	rapid.Check(t, func(t *rapid.T) {
		route := anyRecord(t, 5).Route
		want, got := map[replica]int{}, map[replica]int{}
		for region, r := range replicas(route) {
			if r.Dropped = rapid.Bool().Draw(t, "dropped"); !r.Dropped {
				want[replica{r.NodeId, r.ReplicaId == region.LeaderReplicaId}]++
			}
		}
		if err := ReplicasIn(state.Encode(route), func(node uint64, leads bool) { got[replica{node, leads}]++ }); err != nil {
			t.Fatal(err)
		}
		for r := range want {
			if want[r] != got[r] {
				t.Errorf("%d of %+v, want %d", got[r], r, want[r])
			}
		}
		if len(want) != len(got) {
			t.Errorf("replicas %v, want %v", got, want)
		}
	})
}

func FuzzReplicasIn(f *testing.F) {
	f.Add([]byte{0x1a, 2, 0x3a, 0})
	f.Fuzz(func(_ *testing.T, b []byte) { _ = ReplicasIn(b, func(uint64, bool) {}) })
}
