package server

import (
	"testing"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Every member tells the hashes of its own states, also one that follows.
func TestHashIsTheMembersOwn(t *testing.T) {
	for name, m := range map[string]*testMemberServer{"leader": startLeader(t), "follower": startFollower(t)} {
		resp, err := metasrvpb.NewMaintenanceClient(m.conn).Hash(timeout(t), &metasrvpb.HashRequest{})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := m.node.Hashes()
		if resp.GetPresent().GetIndex() != want.Index || resp.GetPresent().GetHash() != want.Hash || resp.GetBuild() != want.Build {
			t.Errorf("%s: %v, want %+v", name, resp, want)
		}
		if e := resp.GetEarlier(); len(e) != 2 || e[0].GetIndex() != 128 || e[1].GetHash() != 7 {
			t.Errorf("%s: earlier hashes %v", name, e)
		}
	}
}
