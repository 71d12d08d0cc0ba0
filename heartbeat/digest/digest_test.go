package digest_test

import (
	"slices"
	"testing"

	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func stats() []*metasrvpb.RegionStat {
	list := make([]*metasrvpb.RegionStat, 50)
	for i := range list {
		list[i] = &metasrvpb.RegionStat{RegionId: uint64(i), ReplicaId: 7, LeaderEpoch: 1, ConfVersion: 1, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER}
	}
	return list
}

func TestDigest(t *testing.T) {
	list := stats()
	sum := digest.Of(list)
	slices.Reverse(list)
	list[7].Rcus++
	if digest.Of(list) != sum {
		t.Error("order or counters change the digest")
	}
	if digest.Of(nil) != 0 {
		t.Error("no replicas have a digest")
	}
	if digest.Of(list[1:])+digest.Stat(list[0]).Sum() != sum {
		t.Error("a replica adds another number than its own")
	}
	for name, change := range map[string]func(*metasrvpb.RegionStat){
		"region":  func(s *metasrvpb.RegionStat) { s.RegionId++ },
		"replica": func(s *metasrvpb.RegionStat) { s.ReplicaId++ },
		"epoch":   func(s *metasrvpb.RegionStat) { s.LeaderEpoch++ },
		"conf":    func(s *metasrvpb.RegionStat) { s.ConfVersion++ },
		"role":    func(s *metasrvpb.RegionStat) { s.Role = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER },
		"demoted": func(s *metasrvpb.RegionStat) { s.Demoted = true },
	} {
		list := stats()
		change(list[9])
		if digest.Of(list) == sum {
			t.Errorf("another %s, the same digest", name)
		}
	}
}
