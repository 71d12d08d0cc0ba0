// Package local runs a whole cluster on loopback, each member, datanode and frontend as a process: for the demo and for
// the test of faults. It refuses to know what is done with the cluster.
package local

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Binaries are the paths of the programs.
type Binaries struct{ Metasrv, Metactl, TSDB string }

// Check returns an error that names the flag of the first one that is missing.
func (b Binaries) Check() error {
	for _, f := range []struct{ name, path string }{
		{"metasrv", b.Metasrv}, {"metactl", b.Metactl}, {"tsdb", b.TSDB},
	} {
		if _, err := os.Stat(f.path); err != nil {
			return fmt.Errorf("-%s: %w", f.name, err)
		}
	}
	return nil
}

// Size says how many processes there are.
type Size struct{ Members, Datanodes, Frontends int }

// Cluster is what was started. Its fields may be changed before a process that they concern is started.
type Cluster struct {
	Dir       string
	Bin       Binaries
	Members   []*Member
	Datanodes []*Datanode
	Frontends []*Frontend
}

// firstFrontend is the node id of the first frontend; datanodes count from 1.
const firstFrontend = 101

// New returns a cluster with its folders in dir, of which nothing runs yet.
func New(dir string, bin Binaries, size Size) (*Cluster, error) {
	addrs, err := freeAddrs(3*size.Members + size.Datanodes + 2*size.Frontends)
	if err != nil {
		return nil, err
	}
	take := func() (addr string) {
		addr, addrs = addrs[0], addrs[1:]
		return addr
	}
	c := &Cluster{Dir: dir, Bin: bin}
	for i := range size.Members {
		m := &Member{ID: fmt.Sprintf("m%d", i+1), GRPC: take(), Raft: take(), HTTP: take()}
		m.DialGRPC, m.DialRaft = m.GRPC, m.Raft
		c.Members = append(c.Members, m)
	}
	for i := range size.Datanodes {
		d := &Datanode{ID: uint64(i + 1), Addr: take(), Dir: filepath.Join(dir, fmt.Sprintf("datanode-%d", i+1))} //nolint:gosec // a few
		d.Dial = d.Addr
		c.Datanodes = append(c.Datanodes, d)
	}
	for i := range size.Frontends {
		c.Frontends = append(c.Frontends, &Frontend{ID: uint64(firstFrontend + i), MySQL: take(), HTTP: take()}) //nolint:gosec // a few
	}
	return c, nil
}

// Endpoints returns the addresses of all members as clients dial them.
func (c *Cluster) Endpoints() []string {
	var all []string
	for _, m := range c.Members {
		all = append(all, m.DialGRPC)
	}
	return all
}

func (c *Cluster) endpoints() string { return strings.Join(c.Endpoints(), ",") }

// StartMember begins a life of a member. args are added to its command line.
func (c *Cluster) StartMember(m *Member, args ...string) (err error) {
	var founders []string
	for _, f := range c.Members {
		founders = append(founders, f.ID+"="+f.DialRaft)
	}
	m.Process, err = Start(c.Dir, "metasrv-"+m.ID, c.Bin.Metasrv, nil, append([]string{
		"server", "--node-id", m.ID, "--data-dir", filepath.Join(c.Dir, m.ID),
		"--grpc-addr", m.GRPC, "--raft-addr", m.Raft, "--http-addr", m.HTTP,
		"--advertise-grpc-addr", m.DialGRPC, "--advertise-raft-addr", m.DialRaft,
		"--initial-cluster", strings.Join(founders, ","), "--initial-cluster-state", "new",
	}, args...)...)
	return err
}

// StartDatanode begins a life of a datanode.
func (c *Cluster) StartDatanode(d *Datanode) (err error) {
	id := fmt.Sprint(d.ID)
	args := []string{
		"datanode", "--node-id", id, "--listen", d.Addr, "--advertise", d.Dial, "--metasrv", c.endpoints(), "--data-dir", d.Dir,
	}
	if d.Zone != "" {
		args = append(args, "--zone", d.Zone)
	}
	if d.Journal != "" {
		args = append(args, "--journal", d.Journal)
	}
	d.Process, err = Start(c.Dir, "datanode-"+id, c.Bin.TSDB, d.Environment, args...)
	return err
}

// StartFrontend begins a life of a frontend. args are added to its command line.
func (c *Cluster) StartFrontend(f *Frontend, args ...string) (err error) {
	id := fmt.Sprint(f.ID)
	f.Process, err = Start(c.Dir, "frontend-"+id, c.Bin.TSDB, nil, append([]string{
		"frontend", "--node-id", id, "--mysql-listen", f.MySQL, "--http-listen", f.HTTP, "--metasrv", c.endpoints(),
	}, args...)...)
	return err
}

// processes returns all that run or should, in the order in which they are stopped.
func (c *Cluster) processes() []*Process {
	var all []*Process
	add := func(p *Process) {
		if p != nil {
			all = append(all, p)
		}
	}
	for _, f := range c.Frontends {
		add(f.Process)
	}
	for _, d := range c.Datanodes {
		add(d.Process)
	}
	for _, m := range c.Members {
		add(m.Process)
	}
	return all
}

// Stop asks all processes to end, one after the other.
func (c *Cluster) Stop() error {
	var errs []error
	for _, p := range c.processes() {
		errs = append(errs, p.Stop())
	}
	return errors.Join(errs...)
}

// Kill ends all processes at once.
func (c *Cluster) Kill() {
	for _, p := range c.processes() {
		p.Kill()
	}
}

// Healthy returns an error if a process has ended by itself.
func (c *Cluster) Healthy() error {
	for _, p := range c.processes() {
		if err := p.Running(); err != nil {
			return err
		}
	}
	return nil
}

// Leader returns the member that is ready as the metasrv leader, nil while none is.
func (c *Cluster) Leader(ctx context.Context) *Member {
	for _, m := range c.Members {
		if s, err := m.Status(ctx); err == nil && s.GetLeaderReady() {
			return m
		}
	}
	return nil
}

// LiveDatanodes returns how many datanodes metasrv counts as live, 0 where it doesn't answer.
func LiveDatanodes(ctx context.Context, cl *client.Client) int {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	nodes, err := cl.Cluster().ListNodes(ctx, &metasrvpb.ListNodesRequest{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE})
	if err != nil {
		return 0
	}
	live := 0
	for _, n := range nodes.GetNodes() {
		if n.GetState() == metasrvpb.NodeState_NODE_STATE_LIVE {
			live++
		}
	}
	return live
}

const (
	waitTimeout = 60 * time.Second
	pollEvery   = 20 * time.Millisecond
)

// InSync reports whether every replica has what its region leader has.
func InSync(ctx context.Context, cl *client.Client) bool {
	answer, err := cl.Cluster().ListRegions(ctx, &metasrvpb.ListRegionsRequest{})
	if err != nil {
		return false
	}
	for _, r := range answer.GetRegions() {
		for _, p := range r.GetReplicas() {
			if !p.GetInSync() {
				return false
			}
		}
	}
	return true
}

// Wait polls until a condition holds; a process that ends meanwhile is an error.
func (c *Cluster) Wait(ctx context.Context, what string, condition func() bool) error {
	deadline := time.Now().Add(waitTimeout)
	for !condition() {
		if err := c.Healthy(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s; logs are in %s", waitTimeout, what, c.Dir)
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
