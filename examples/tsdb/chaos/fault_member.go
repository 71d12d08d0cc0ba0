package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

// memberFaults are what happens to members of metasrv, mostly to the metasrv leader.
var memberFaults = []fault{
	{"kill member", 6, func(ctx context.Context, f *faults, r *rand.Rand) string {
		m, away := f.member(ctx, r), between(r, 0, 3*time.Second)
		m.Process.Kill()
		sleep(ctx, away)
		f.restartMember(m)
		return fmt.Sprintf("%s was away for %s", m.ID, away)
	}},
	{"pause member", 5, func(ctx context.Context, f *faults, r *rand.Rand) string {
		m, lasts := f.member(ctx, r), between(r, 100*time.Millisecond, 5*time.Second)
		m.Process.Pause()
		sleep(ctx, lasts)
		m.Process.Resume()
		return fmt.Sprintf("%s stood still for %s", m.ID, lasts)
	}},
	{"cut member", 4, func(ctx context.Context, f *faults, r *rand.Rand) string {
		m, lasts := f.member(ctx, r), between(r, 500*time.Millisecond, 5*time.Second)
		f.cut(ctx, lasts, m.ID, f.memberNames(), true, true)
		return fmt.Sprintf("%s from the other members for %s", m.ID, lasts)
	}},
	{"transfer metasrv leadership", 2, func(ctx context.Context, f *faults, r *rand.Rand) string {
		m := f.cluster.Members[r.IntN(len(f.cluster.Members))]
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		if _, err := f.client.Maintenance().TransferLeadership(ctx, &metasrvpb.TransferLeadershipRequest{Id: m.ID}); err != nil {
			return "" // there is no leader just now, say
		}
		return m.ID
	}},
	{"kill all members", 1, func(ctx context.Context, f *faults, r *rand.Rand) string {
		away := between(r, 0, time.Second)
		for _, m := range f.cluster.Members {
			m.Process.Kill()
		}
		sleep(ctx, away)
		for _, m := range f.cluster.Members {
			f.restartMember(m)
		}
		return fmt.Sprintf("away for %s", away)
	}},
}

// frontendFaults are what happens to frontends.
var frontendFaults = []fault{
	{"kill frontend", 1, func(ctx context.Context, f *faults, r *rand.Rand) string {
		e, away := f.cluster.Frontends[r.IntN(len(f.cluster.Frontends))], between(r, 0, 2*time.Second)
		e.Process.Kill()
		f.load.killed.Add(1)
		sleep(ctx, away)
		if err := f.startFrontend(e); err != nil {
			f.violated(err)
		}
		return fmt.Sprintf("%s was away for %s", frontendName(e), away)
	}},
}

// member chooses a member, two times out of three the metasrv leader.
func (f *faults) member(ctx context.Context, r *rand.Rand) *local.Member {
	m, leader := f.cluster.Members[r.IntN(len(f.cluster.Members))], r.IntN(3) > 0
	if leader {
		if l := f.cluster.Leader(ctx); l != nil {
			return l
		}
	}
	return m
}

func (f *faults) restartMember(m *local.Member) {
	if err := f.startMember(m); err != nil {
		f.violated(err)
	}
}
