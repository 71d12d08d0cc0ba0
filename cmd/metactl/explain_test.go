package main

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/metasrv/metasrv"

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

// Endpoints of two clusters, or of two lives of one, are no cluster.
func TestEndpointsOfOneCluster(t *testing.T) {
	of := func(endpoint string, cluster, incarnation uint64) answer {
		return answer{endpoint: endpoint, status: &metasrvpb.StatusResponse{
			Header: &metasrvpb.ResponseHeader{ClusterId: cluster, ClusterIncarnation: incarnation},
		}}
	}
	gone := answer{endpoint: "m3:3002", err: errors.New("gone")}
	for _, test := range []struct {
		name    string
		answers []answer
		want    string
	}{
		{"one cluster", []answer{of("m1:3002", 7, 1), gone, of("m2:3002", 7, 1)}, ""},
		{"a member that waits has none", []answer{of("m1:3002", 0, 0), of("m2:3002", 7, 1)}, ""},
		{"two clusters", []answer{of("m1:3002", 7, 1), of("m2:3002", 8, 1)}, "m1:3002 is part of cluster 7 and m2:3002 of cluster 8"},
		{"two lives", []answer{gone, of("m1:3002", 7, 0), of("m2:3002", 7, 1)}, "different lives of cluster 7"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := mixed(test.answers); got != test.want && (test.want == "" || !strings.Contains(got, test.want)) {
				t.Errorf("says %q, want %q", got, test.want)
			}
		})
	}
}

// That a request may have been executed is no reason to keep silent about what went wrong.
func TestUnknownOutcomeSaysWhy(t *testing.T) {
	domain := metasrv.ErrOutcomeUnknown.With("Put may have been executed or not")
	if got := because(domain, errors.New("message too large")); got != "Put may have been executed or not: message too large" {
		t.Errorf("says %q", got)
	}
	if got := because(domain, domain); got != domain.Error() {
		t.Errorf("says %q", got)
	}
}
