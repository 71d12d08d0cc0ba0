package router_test

import (
	"slices"
	"testing"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/router"
)

// Replica 1 leads, 1 to 3 are in sync, 4 is not, 5 is a learner.
func TestSucceed(t *testing.T) {
	const here, silent, failed, down, absent, lost, unleased = router.Reachable, router.Silent, router.Failed, router.Down,
		router.Absent, router.OtherStorage, router.Unleased
	type ids = []uint64
	for name, c := range map[string]struct {
		conditions [5]router.Condition
		unclean    bool // of the table
		candidates ids
		failed     ids
		lossy      bool
	}{
		"the leader's node failed":              {[5]router.Condition{failed, here, here, here, here}, true, ids{2, 3}, ids{1}, false},
		"a follower's too":                      {[5]router.Condition{failed, failed, here, here, here}, true, ids{3}, ids{1, 2}, false},
		"a silent one is waited for":            {[5]router.Condition{failed, silent, here, here, here}, true, ids{3}, ids{1}, false},
		"what is lost or absent leaves":         {[5]router.Condition{failed, lost, absent, here, here}, false, nil, ids{1, 2, 3}, false},
		"no leases, no region":                  {[5]router.Condition{failed, unleased, here, here, here}, false, ids{3}, ids{1}, false},
		"a removed one is not waited for":       {[5]router.Condition{router.Removed, lost, absent, here, here}, true, ids{4}, ids{1, 2, 3}, true},
		"only the leader can be waited for":     {[5]router.Condition{failed, lost, lost, here, here}, true, nil, ids{1, 2, 3}, false},
		"nobody is, the table allows it":        {[5]router.Condition{down, lost, absent, here, here}, true, ids{4}, ids{1, 2, 3}, true},
		"nobody is, the table doesn't":          {[5]router.Condition{down, lost, absent, here, here}, false, nil, ids{1, 2, 3}, false},
		"a learner never leads":                 {[5]router.Condition{down, down, down, down, here}, true, nil, ids{1, 2, 3}, false},
		"a silent one is waited for: no loss":   {[5]router.Condition{down, silent, down, here, here}, true, nil, ids{1, 3}, false},
		"a failed one is waited for: no loss":   {[5]router.Condition{down, failed, down, here, here}, true, nil, ids{1, 2, 3}, false},
		"one without leases, too: it may serve": {[5]router.Condition{down, unleased, down, here, here}, true, nil, ids{1, 3}, false},
	} {
		route := &storagepb.RouteRecord{UncleanFailover: c.unclean}
		region := &storagepb.RegionRecord{LeaderReplicaId: 1}
		for id := uint64(1); id <= 5; id++ {
			region.Replicas = append(region.Replicas, &storagepb.ReplicaRecord{ReplicaId: id, InSync: id <= 3, Learner: id == 5})
		}
		s := router.Succeed(route, region, func(r *storagepb.ReplicaRecord) router.Condition { return c.conditions[r.GetReplicaId()-1] })
		var candidates ids
		for _, r := range s.Candidates {
			candidates = append(candidates, r.GetReplicaId())
		}
		if !slices.Equal(candidates, c.candidates) || !slices.Equal(s.Failed, c.failed) || s.Unclean != c.lossy {
			t.Errorf("%s: candidates %v, failed %v, unclean %t; want %v, %v, %t", name, candidates, s.Failed, s.Unclean, c.candidates, c.failed, c.lossy)
		}
	}
}
