package raftfsm

import (
	"testing"

	"github.com/hashicorp/raft"
)

// Whom a metasrv leader asks can't be outvoted by those whom it doesn't ask, also where it doesn't vote itself.
func TestProofAsksAMajority(t *testing.T) {
	voters := func(ids ...raft.ServerID) (v []raft.Server) {
		for _, id := range ids {
			v = append(v, raft.Server{ID: id})
		}
		return v
	}
	for _, c := range []struct {
		voters       []raft.Server
		others, need int
	}{
		{voters("a"), 0, 0},
		{voters("a", "b"), 1, 1},
		{voters("a", "b", "c"), 2, 1},
		{voters("a", "b", "c", "d", "e"), 4, 2},
		{voters("b"), 1, 1},
		{voters("b", "c", "d"), 3, 2},
	} {
		others, need := othersToAsk(c.voters, "a")
		if len(others) != c.others || need != c.need {
			t.Errorf("%v: %d of %v, want %d of %d", c.voters, need, others, c.need, c.others)
		}
	}
}
