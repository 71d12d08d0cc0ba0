package datanode

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// learn returns an instruction to add learner 12 of a region.
func learn(region, epoch, conf uint64) *metasrvpb.AddLearner {
	return &metasrvpb.AddLearner{ReplicaId: 12, Table: testTable, Config: &metasrvpb.RegionConfig{
		RegionId: region, LeaderEpoch: epoch, ConfVersion: conf, LeaderReplicaId: 11,
		Replicas: []*metasrvpb.ReplicaConfig{{ReplicaId: 11, InSync: true}, {ReplicaId: 12, Learner: true}},
	}}
}

// TestLateAddLearner: a learner that can't be read is made anew. A replica that was more than a learner by all that is known of it
// isn't, nor is one that knows more than the instruction: the instruction comes late.
func TestLateAddLearner(t *testing.T) {
	region := uint64(testRegion)
	for name, c := range map[string]struct {
		becomes func(s *store.State)
		late    *metasrvpb.AddLearner
		anew    bool
	}{
		"a learner":                         {func(*store.State) {}, learn(region, 3, 5), true},
		"a learner, instructed anew":        {func(*store.State) {}, learn(region, 3, 6), true},
		"a learner of another epoch by now": {func(s *store.State) { s.LeaderEpoch = 4 }, learn(region, 3, 6), false},
		"a follower": {func(s *store.State) {
			s.Role, s.ConfVersion = followerRole, 6
		}, learn(region, 3, 6), false},
		"a follower, by a newer instruction": {func(s *store.State) { s.Role = followerRole }, learn(region, 4, 1), false},
		"a region leader":                    {func(s *store.State) { s.Role = leaderRole }, learn(region, 3, 5), false},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTestService(t)
			s.Open()
			if err := s.addLearner(t.Context(), learn(region, 3, 5)); err != nil {
				t.Fatal(err)
			}
			r, err := s.store.Replica(testRegion)
			if err != nil {
				t.Fatal(err)
			}
			change := func(s *store.State) error { c.becomes(s); return nil }
			if err := r.Change(t.Context(), change); err != nil {
				t.Fatal(err)
			}
			// The use of another replica has the file closed.
			if err := s.addLearner(t.Context(), learn(region+1, 3, 5)); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(s.store.Path(), r.File())
			if err := os.WriteFile(path, []byte(strings.Repeat("damaged ", 4096)), 0o600); err != nil {
				t.Fatal(err)
			}
			if err := r.Change(t.Context(), change); !errors.Is(err, store.ErrDamaged) {
				t.Fatalf("%v, want ErrDamaged", err)
			}
			err = s.addLearner(t.Context(), c.late)
			now, e := s.store.Replica(testRegion)
			if e != nil {
				t.Fatal(e)
			}
			if anew := err == nil && now.Damage() == nil; anew != c.anew {
				t.Errorf("made anew: %t, %v; want %t", anew, err, c.anew)
			}
			if c.anew != (now != r) {
				t.Errorf("another replica: %t, want %t", now != r, c.anew)
			}
		})
	}
}
