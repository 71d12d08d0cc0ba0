package e2e

import (
	"bufio"
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"

	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// The metasrv leader is killed while nodes keep their leases by it: the next one goes on without the loss of any, takes no
// node for dead, and asks for nothing.
func TestTakeoverKeepsLeases(t *testing.T) {
	const nodes, replicas = 40, 100
	c := newCluster(t)
	var endpoints []string
	for _, m := range c.members {
		endpoints = append(endpoints, m.grpc)
	}
	cmd := exec.Command(metactl, "bench", "heartbeat", "--nodes", "40", "--regions", "100", "--replicas", "2", "--warmup", "0",
		"--duration", "8s", "--keep", "-o", "json", "--endpoints", strings.Join(endpoints, ","))
	var out bytes.Buffer
	cmd.Stdout = &out
	says, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(says)
	var said []string
	var killed *member
	for lines.Scan() {
		said = append(said, lines.Text())
		if strings.Contains(lines.Text(), "measuring") {
			killed = c.leader()
			c.kill(killed)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, strings.Join(said, "\n"))
	}
	var report loadgen.Report
	if err := json.Unmarshal(out.Bytes(), &report); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]float64{
		"regions_led": nodes * replicas / 2, "leases_lost": 0, "replicas_ungranted": 0, "instructions": 0,
	} {
		if got := figure(t, report, name); got != want {
			t.Errorf("%s is %v, want %v: %s", name, got, want, out.String())
		}
	}
	// No request need have failed: the leader may have died while none was under way.
	if killed == nil || c.leader() == killed || report.Operations < 4*nodes {
		t.Errorf("nodes didn't go over to another leader: %s", out.String())
	}
	listed, err := c.client().Cluster().ListNodes(t.Context(), &metasrvpb.ListNodesRequest{})
	if err != nil || len(listed.GetNodes()) != nodes {
		t.Fatalf("%d nodes, %v", len(listed.GetNodes()), err)
	}
	for _, n := range listed.GetNodes() {
		if n.GetState() == metasrvpb.NodeState_NODE_STATE_DOWN {
			t.Errorf("node %d counts as dead", n.GetPeer().GetId())
		}
	}
}

func figure(t *testing.T, r loadgen.Report, name string) float64 {
	t.Helper()
	for _, f := range r.Figures {
		if f.Name == name {
			return f.Value
		}
	}
	t.Fatalf("there is no figure %s", name)
	return 0
}
