package main

import (
	"context"
	"errors"
	"testing"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Who was not given the time to answer may be the metasrv leader: only what is known is said.
func TestWhatIsKnownOfTheLeader(t *testing.T) {
	follower := func(id, leader string, term uint64) answer {
		s := &metasrvpb.StatusResponse{Member: &metasrvpb.Member{Id: id, Voter: true}, Term: term}
		if leader != "" {
			s.Leader = &metasrvpb.Member{Id: leader}
		}
		return answer{endpoint: id + ":3002", id: id, status: s}
	}
	slow := func(id string) answer {
		return answer{endpoint: id + ":3002", id: id, err: context.DeadlineExceeded}
	}
	gone := answer{endpoint: "m3:3002", err: errors.New("dial tcp: connect: connection refused")}
	for _, test := range []struct {
		name    string
		answers []answer
		want    string
		line    string
	}{
		{"nobody leads", []answer{follower("m1", "", 3), follower("m2", "", 3), gone}, noLeader, "none"},
		{
			"others follow one that is slow", []answer{follower("m1", "m2", 3), slow("m2")},
			"the metasrv leader m2 does not answer", "not known",
		},
		{
			"the newest term counts", []answer{follower("m1", "m2", 3), follower("m3", "", 4), gone},
			noLeader, "none",
		},
		{
			"one was too slow to say", []answer{follower("m1", "", 3), slow("m2"), {endpoint: "m3:3002", err: context.DeadlineExceeded}},
			"no metasrv leader was found; m2, m3:3002 did not answer in time and may be it", "not known",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := withoutLeader(test.answers); got != test.want {
				t.Errorf("says %q, want %q", got, test.want)
			}
			if got := leaderLine(test.answers); got != test.line {
				t.Errorf("status shows leader %q, want %q", got, test.line)
			}
		})
	}
}
