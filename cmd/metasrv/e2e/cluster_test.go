package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/client/clienttest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// waitLimit bounds every wait for a condition.
const waitLimit = 60 * time.Second

// member is one process.
type member struct {
	id               string
	grpc, raft, http string
	// via is where other members reach the raft port, "" where that is the port itself.
	via  string
	dir  string
	cmd  *exec.Cmd
	done chan struct{}
	conn *grpc.ClientConn
	// disk can be made slow, nil where it can't.
	disk *slowDisk
	// joins: the member was not among the founders.
	joins bool
}

// cluster is three members, each a process with a folder of its own.
type cluster struct {
	t       *testing.T
	members []*member
	args    []string
}

// newCluster starts three members and waits for a metasrv leader. args are added to the command line of each.
func newCluster(t *testing.T, args ...string) *cluster {
	t.Helper()
	return newClusterIn(t, t.TempDir(), args...)
}

// newClusterIn is newCluster with the members' folders in a given one.
func newClusterIn(t *testing.T, dir string, args ...string) *cluster {
	t.Helper()
	c := prepareCluster(t, dir, args...)
	c.startAll()
	return c
}

// prepareCluster chooses ports and folders of three members.
func prepareCluster(t *testing.T, dir string, args ...string) *cluster {
	t.Helper()
	c := &cluster{t: t, args: args}
	addrs := freeAddrs(t, 9)
	for i := range 3 {
		id := fmt.Sprintf("m%d", i+1)
		c.members = append(c.members, &member{
			id: id, grpc: addrs[3*i], raft: addrs[3*i+1], http: addrs[3*i+2], dir: filepath.Join(dir, id),
		})
	}
	return c
}

// startAll starts the members and waits for a metasrv leader.
func (c *cluster) startAll() {
	c.t.Helper()
	for _, m := range c.members {
		c.start(m)
		c.connect(m)
	}
	c.t.Cleanup(c.end)
	c.leader()
	for _, m := range c.members { // a connection that was refused at first is tried again only after a pause
		eventually(c.t, m.id+" answers", func() bool {
			_, err := metasrvpb.NewClusterClient(m.conn).Status(c.t.Context(), &metasrvpb.StatusRequest{})
			return err == nil
		})
	}
}

// advertised returns the address of the raft port as other members dial it.
func (m *member) advertised() string {
	if m.via != "" {
		return m.via
	}
	return m.raft
}

func (c *cluster) connect(m *member) {
	c.t.Helper()
	conn, err := grpc.NewClient(m.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	m.conn = conn
}

// join starts a member that waits to be added to the cluster.
func (c *cluster) join(id string) *member {
	c.t.Helper()
	addrs := freeAddrs(c.t, 3)
	m := &member{id: id, grpc: addrs[0], raft: addrs[1], http: addrs[2], dir: filepath.Join(filepath.Dir(c.members[0].dir), id), joins: true}
	c.members = append(c.members, m)
	c.start(m)
	c.connect(m)
	return m
}

func (m *member) log(t *testing.T) string {
	t.Helper()
	content, err := os.ReadFile(m.dir + ".log")
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func (c *cluster) start(m *member) {
	c.t.Helper()
	var founders []string
	for _, f := range c.members {
		if !f.joins {
			founders = append(founders, f.id+"="+f.advertised())
		}
	}
	args := append([]string{
		"server", "--node-id", m.id, "--data-dir", m.dir, "--grpc-addr", m.grpc, "--raft-addr", m.raft, "--http-addr", m.http,
		"--advertise-raft-addr", m.advertised(),
	}, c.args...)
	if m.joins {
		args = append(args, "--initial-cluster-state", "existing")
	} else {
		args = append(args, "--initial-cluster", strings.Join(founders, ","), "--initial-cluster-state", "new")
	}
	log, err := os.OpenFile(m.dir+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = log.Close() }()
	m.cmd = exec.Command(binary, args...)
	m.cmd.Stdout, m.cmd.Stderr = log, log
	start := m.cmd.Start
	if m.disk != nil {
		start = func() error { return m.disk.start(c.t, m.cmd) }
	}
	if err := start(); err != nil {
		c.t.Fatal(err)
	}
	m.done = make(chan struct{})
	go func() {
		_ = m.cmd.Wait()
		close(m.done)
	}()
}

// kill ends a member as kill -9 does.
func (c *cluster) kill(m *member) {
	c.t.Helper()
	_ = m.cmd.Process.Kill()
	<-m.done
}

func (c *cluster) end() {
	for _, m := range c.members {
		c.kill(m)
		_ = m.conn.Close()
		if c.t.Failed() {
			log, _ := os.ReadFile(m.dir + ".log")
			c.t.Logf("log of %s:\n%s", m.id, lastLines(string(log), 40))
		}
	}
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// leader waits for the metasrv leader.
func (c *cluster) leader() *member {
	c.t.Helper()
	var leader *member
	eventually(c.t, "there is a metasrv leader", func() bool {
		for _, m := range c.members {
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			s, err := metasrvpb.NewClusterClient(m.conn).Status(ctx, &metasrvpb.StatusRequest{})
			cancel()
			if err == nil && s.LeaderReady {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// follower returns a member that is not the metasrv leader.
func (c *cluster) follower() *member {
	c.t.Helper()
	leader := c.leader()
	for _, m := range c.members {
		if m != leader {
			return m
		}
	}
	return nil
}

// client returns a client of all members.
func (c *cluster) client() *client.Client {
	c.t.Helper()
	var endpoints []string
	for _, m := range c.members {
		endpoints = append(endpoints, m.grpc)
	}
	cl, err := client.New(client.Config{Endpoints: endpoints, CallTimeout: waitLimit})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// datanodes starts datanodes 1 to n and waits until metasrv knows them as live.
func (c *cluster) datanodes(cl *client.Client, n int) map[uint64]*clienttest.Datanode {
	c.t.Helper()
	nodes := map[uint64]*clienttest.Datanode{}
	for id := uint64(1); id <= uint64(n); id++ {
		nodes[id] = clienttest.StartDatanode(c.t, cl, id)
	}
	eventually(c.t, "the datanodes are live", func() bool {
		answer, err := cl.Cluster().ListNodes(c.t.Context(), &metasrvpb.ListNodesRequest{})
		if err != nil {
			return false
		}
		live := 0
		for _, node := range answer.Nodes {
			if node.State == metasrvpb.NodeState_NODE_STATE_LIVE {
				live++
			}
		}
		return live == n
	})
	return nodes
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(waitLimit); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", waitLimit, what)
		}
	}
}

// freeAddrs returns addresses on loopback that nobody listens on.
func freeAddrs(t *testing.T, n int) []string {
	t.Helper()
	var addrs []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		addrs = append(addrs, l.Addr().String())
	}
	return addrs
}
