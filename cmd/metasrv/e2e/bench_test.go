package e2e

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Every measurement of metactl bench works against real members, and leaves nothing but what it names.
func TestBench(t *testing.T) {
	c := newCluster(t)
	var endpoints []string
	for _, m := range c.members {
		endpoints = append(endpoints, m.grpc)
	}
	bench := func(args string) {
		t.Helper()
		cmd := exec.Command(metactl, append([]string{"bench"}, strings.Fields(args)...)...)
		cmd.Args = append(cmd.Args, "--yes", "-o", "json", "--clients", "4", "--endpoints", strings.Join(endpoints, ","))
		var out, says bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &says
		if err := cmd.Run(); err != nil {
			t.Fatalf("%s: %v: %s", args, err, says.String())
		}
		var report loadgen.Report
		if err := json.Unmarshal(out.Bytes(), &report); err != nil {
			t.Fatalf("%s: %v", args, err)
		}
		if report.Operations != 100 || len(report.Errors) > 0 || report.LatencyMS.P99 <= 0 {
			t.Errorf("%s: %s", args, out.String())
		}
	}
	bench("put --count 100")
	bench("txn --count 100 --keys 30")
	bench("watch --count 100 --watches 3")
	bench("range --count 100 --keys 30")
	bench("range --count 100 --keys 30 --read-level stale --members all")
	bench("create-table --count 100 --nodes 3 --keep")
	bench("route --count 100 --tables-per-call 7")
	bench("route --count 100 --read-level stale --members followers")
	bench("create-table --count 100 --nodes 3 --regions 2 --replicas 1")

	stats, err := c.client().Cluster().Stats(t.Context(), &metasrvpb.StatsRequest{})
	if err != nil || stats.Tables != 100 || stats.Regions != 1000 {
		t.Errorf("%v, %v; want the 100 tables that were kept", stats, err)
	}
	kvs, err := c.client().Store().Range(t.Context(), &metasrvpb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
	if err != nil || len(kvs.Kvs) > 0 {
		t.Errorf("%d keys are left, %v", len(kvs.GetKvs()), err)
	}
}
