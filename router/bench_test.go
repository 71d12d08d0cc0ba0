package router_test

import (
	"fmt"
	"testing"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/router"
)

// BenchmarkReplicasToDrop is one report of a node with 10,000 replicas of 4-region tables: it comes every second
// from every node.
func BenchmarkReplicasToDrop(b *testing.B) {
	c := clusterFor(b)
	var report []router.ReportedReplica
	for i := range 5000 {
		cmd := c.plan(fmt.Sprintf("t%d", i), 4, 1, 2, 3, 4)
		cmd.Commit = true
		for _, region := range c.must(createTable, cmd).Route.Regions {
			for _, replica := range region.Replicas {
				if replica.NodeId == 1 {
					report = append(report, router.ReportedReplica{
						Region: metasrv.RegionID(region.RegionId), Replica: metasrv.ReplicaID(replica.ReplicaId),
					})
				}
			}
		}
	}
	b.ReportMetric(float64(len(report)), "replicas")
	b.ReportAllocs()
	for b.Loop() {
		if drop, confirmed, err := router.ReplicasToDrop(c.View(), 1, report); err != nil || len(drop)+len(confirmed) > 0 {
			b.Fatal(drop, confirmed, err)
		}
	}
}
