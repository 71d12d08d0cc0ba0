package server

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

// startReal serves a member with a real log and disk, alone in its cluster.
func startReal(t testing.TB, cfg Config) *testMemberServer {
	t.Helper()
	s, err := Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := grpc.NewClient(s.GRPCAddr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	eventually(t, "the member leads and is ready", func() bool { return s.services.requireLeader() == nil })
	return &testMemberServer{Server: s, conn: conn}
}

// BenchmarkFailover kills a datanode of four that leads so many regions, and measures from the end of its lease until the last
// region has another leader, and until the last one has a lease.
func BenchmarkFailover(b *testing.B) {
	for _, led := range []int{500, 10_000} {
		b.Run(fmt.Sprint(led), func(b *testing.B) {
			for range b.N {
				elected, served := measureFailover(b, led)
				b.ReportMetric(float64(elected.Milliseconds()), "ms/elected")
				b.ReportMetric(float64(served.Milliseconds()), "ms/served")
			}
		})
	}
}

func measureFailover(b *testing.B, led int) (elected, served time.Duration) {
	b.Helper()
	const nodes, perTable = 4, 500
	cfg := testConfig(b)
	shortLeases(&cfg)
	cfg.HeartbeatInterval, cfg.RegionLease = time.Second, 3*time.Second
	c := &keeperCluster{testMemberServer: startReal(b, cfg), t: b, nodes: map[uint64]*keeper{}}
	for id := uint64(1); id <= nodes; id++ {
		c.nodes[id] = startKeeper(b, c.conn, id)
	}
	long := func(what string, holds func() bool) {
		for deadline := time.Now().Add(time.Minute); !holds(); time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				b.Fatalf("not in a minute: %s", what)
			}
		}
	}
	var tables []metasrv.TableID
	for i := range led * nodes / perTable {
		tables = append(tables, c.created(fmt.Sprintf("t%d", i), func(r *metasrvpb.CreateRequest) {
			r.PartitionRule, r.Replicas = hashRule([]string{"host"}, perTable), 3
		}))
		long("the table is served", func() bool { return c.unserved(tables[i]) == 0 })
	}
	term := c.services.term.Load()
	c.nodes[1].kill()
	ends := term.tracker.LeaseEnd(1)
	leads := func() int {
		placed, err := c.services.placed.at(b.Context(), c.Node().View())
		if err != nil {
			b.Fatal(err)
		}
		return placed[1].leaders
	}
	if n := leads(); n < led*9/10 {
		b.Fatalf("the node led %d regions, want %d", n, led)
	}
	long("all are led by others", func() bool { return leads() == 0 })
	elected = time.Since(ends)
	for _, id := range tables {
		long("all are served", func() bool { return c.unserved(id) == 0 })
	}
	return elected, time.Since(ends)
}

// unserved returns how many regions of a table have no leader with a lease.
func (c *keeperCluster) unserved(id metasrv.TableID) int {
	route, err := router.Route(c.Node().View(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	n := 0
	for _, region := range route.GetRegions() {
		if !c.nodes[uint64(leaderNode(region))].holds(region.GetLeaderReplicaId()) {
			n++
		}
	}
	return n
}
