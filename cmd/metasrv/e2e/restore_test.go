package e2e

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/client/clienttest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// metasrv runs the binary to its end.
func metasrvCommand(args ...string) (string, error) {
	out, err := exec.Command(binary, args...).CombinedOutput()
	return string(out), err
}

// save writes what the cluster streams into a file.
func save(t *testing.T, cl *client.Client, path string) {
	t.Helper()
	stream, err := cl.Maintenance().Snapshot(t.Context(), &metasrvpb.SnapshotRequest{})
	if err != nil {
		t.Fatal(err)
	}
	var file bytes.Buffer
	for {
		resp, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		file.Write(resp.Chunk)
	}
	if err := os.WriteFile(path, file.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
}

// alone makes one member the whole cluster of the test.
func (c *cluster) alone(m *member) *client.Client {
	c.t.Helper()
	m.joins = true // its folder has all that it needs
	c.start(m)
	c.connect(m)
	eventually(c.t, m.id+" leads", func() bool {
		s, err := metasrvpb.NewClusterClient(m.conn).Status(c.t.Context(), &metasrvpb.StatusRequest{})
		return err == nil && s.LeaderReady && s.Quarantined
	})
	cl, err := client.New(client.Config{Endpoints: []string{m.grpc}, CallTimeout: waitLimit})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// Rule 14: a table that was created after the backup is not known to the restored cluster. Its replicas are listed and
// kept until somebody confirms, and dropped then; ids go on far beyond.
func TestRestoreKeepsWhatItDoesNotKnow(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	nodes := c.datanodes(cl, 2)
	if _, err := clienttest.CreateTable(t.Context(), cl, nodes, clienttest.HashTable("before", 2, 2)); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "backup.snap")
	save(t, cl, file)
	later, err := clienttest.CreateTable(t.Context(), cl, nodes, clienttest.HashTable("later", 2, 2))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range c.members {
		c.kill(m)
	}
	first := c.members[0]
	dir := first.dir + "-restored"
	out, err := metasrvCommand("restore", file, "--node-id", first.id, "--data-dir", dir, "--raft-addr", first.raft)
	if err != nil || !strings.Contains(out, "metactl quarantine end") {
		t.Fatalf("restore: %v\n%s", err, out)
	}
	if out, err := metasrvCommand("restore", file, "--node-id", first.id, "--data-dir", dir, "--raft-addr", first.raft); err == nil {
		t.Errorf("restored over a folder: %s", out)
	}
	first.dir = dir
	restored := c.alone(first)

	unknown := func() int {
		q, err := restored.Maintenance().Quarantine(t.Context(), &metasrvpb.QuarantineRequest{})
		if err != nil || !q.Quarantined {
			t.Fatalf("quarantine: %v, %v", q, err)
		}
		return len(q.Unknown)
	}
	eventually(t, "the replicas of the later table are listed", func() bool { return unknown() == 4 })
	table, err := clienttest.CreateTable(t.Context(), restored, nodes, clienttest.HashTable("after", 2, 2))
	if err != nil {
		t.Fatal(err)
	}
	if table.Id <= later.Id+1<<20 {
		t.Errorf("table id %d after %d", table.Id, later.Id)
	}
	if got := unknown(); got != 4 {
		t.Errorf("%d replicas are listed, want 4: some were dropped", got)
	}
	status, err := restored.Cluster().Status(t.Context(), &metasrvpb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	id := status.Header.ClusterId
	if _, err := restored.Maintenance().EndQuarantine(t.Context(), &metasrvpb.EndQuarantineRequest{ClusterId: id + 1}); err == nil {
		t.Error("confirmed for another cluster")
	}
	if _, err := restored.Maintenance().EndQuarantine(t.Context(), &metasrvpb.EndQuarantineRequest{ClusterId: id}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the unknown replicas are dropped", func() bool {
		q, err := restored.Maintenance().Quarantine(t.Context(), &metasrvpb.QuarantineRequest{})
		return err == nil && !q.Quarantined && len(q.Unknown) == 0
	})
}

// A majority is lost for ever: the last member becomes a cluster of one, after a person has typed the id of the cluster.
func TestRecover(t *testing.T) {
	c := newCluster(t)
	cl := c.client()
	for _, k := range []string{"a", "b", "c"} {
		if _, err := cl.Store().Put(t.Context(), &metasrvpb.PutRequest{Key: []byte(k), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	last := c.leader()
	args := []string{"recover", "--node-id", last.id, "--data-dir", last.dir, "--raft-addr", last.raft}
	if out, err := metasrvCommand(args...); err == nil || !strings.Contains(out, "in use by process") {
		t.Errorf("recovered a member that runs: %v\n%s", err, out)
	}
	for _, m := range c.members {
		c.kill(m)
	}
	out, err := metasrvCommand(args...)
	if err == nil || !strings.Contains(out, "WRITES MAY BE LOST") || !strings.Contains(out, "nothing was changed") {
		t.Errorf("recovered without a confirmation: %v\n%s", err, out)
	}
	const confirm = "--i-understand-that-writes-may-be-lost"
	if out, err := metasrvCommand(append(args, confirm, "7")...); err == nil || !strings.Contains(out, `"7" is not the id of the cluster`) {
		t.Errorf("recovered with a wrong confirmation: %v\n%s", err, out)
	}
	id := regexp.MustCompile(`Type the id of the cluster, (\d+)`).FindStringSubmatch(out)
	if id == nil {
		t.Fatalf("asks for no id:\n%s", out)
	}
	out, err = metasrvCommand(append(args, confirm, id[1])...)
	if err != nil {
		t.Fatalf("recover: %v\n%s", err, out)
	}
	recovered := c.alone(last)
	answer, err := recovered.Store().Range(t.Context(), &metasrvpb.RangeRequest{Key: []byte("a"), RangeEnd: []byte("d")})
	if err != nil || len(answer.Kvs) != 3 {
		t.Errorf("%d keys are there, want 3: %v", len(answer.GetKvs()), err)
	}
	for _, m := range c.members {
		if m == last {
			continue
		}
		c.start(m)
		<-m.done
		if !strings.Contains(m.log(t), "was restored or recovered without member "+m.id) {
			t.Errorf("%s came back and ended with\n%s", m.id, lastLines(m.log(t), 3))
		}
	}
}
