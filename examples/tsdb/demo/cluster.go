package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	members   = 3
	datanodes = 3
)

// member is one metasrv process with its addresses.
type member struct {
	id               string
	grpc, raft, http string
	process          *process
}

// cluster is everything that the demo has started.
type cluster struct {
	dir       string
	bin       binaries
	members   [members]*member
	datanodes [datanodes]*process
	frontend  *process
	// Addresses of the frontend.
	mysql, http string
	nodeAddrs   []string
}

func newCluster(dir string, bin binaries) (*cluster, error) {
	addrs, err := freeAddrs(3*members + datanodes + 2)
	if err != nil {
		return nil, err
	}
	c := &cluster{dir: dir, bin: bin}
	for i := range members {
		c.members[i] = &member{id: fmt.Sprintf("m%d", i+1), grpc: addrs[3*i], raft: addrs[3*i+1], http: addrs[3*i+2]}
	}
	rest := addrs[3*members:]
	c.nodeAddrs, c.mysql, c.http = rest[:datanodes], rest[datanodes], rest[datanodes+1]
	return c, nil
}

// endpoints returns the client addresses of all members.
func (c *cluster) endpoints() string {
	var all []string
	for _, m := range c.members {
		all = append(all, m.grpc)
	}
	return strings.Join(all, ",")
}

func (c *cluster) startMember(m *member) error {
	var founders []string
	for _, f := range c.members {
		founders = append(founders, f.id+"="+f.raft)
	}
	p, err := startProcess(c.dir, "metasrv-"+m.id, c.bin.metasrv, "server",
		"--node-id", m.id, "--data-dir", filepath.Join(c.dir, m.id),
		"--grpc-addr", m.grpc, "--raft-addr", m.raft, "--http-addr", m.http,
		"--initial-cluster", strings.Join(founders, ","), "--initial-cluster-state", "new")
	m.process = p
	return err
}

func (c *cluster) startDatanode(i int) error {
	id := fmt.Sprint(i + 1)
	p, err := startProcess(c.dir, "datanode-"+id, c.bin.tsdb, "datanode",
		"--node-id", id, "--listen", c.nodeAddrs[i], "--metasrv", c.endpoints(),
		"--data-dir", filepath.Join(c.dir, "datanode-"+id))
	c.datanodes[i] = p
	return err
}

func (c *cluster) startFrontend() error {
	p, err := startProcess(c.dir, "frontend", c.bin.tsdb, "frontend",
		"--node-id", "101", "--mysql-listen", c.mysql, "--http-listen", c.http, "--metasrv", c.endpoints())
	c.frontend = p
	return err
}

// processes returns all that were started, in the order in which they are stopped.
func (c *cluster) processes() []*process {
	var all []*process
	if c.frontend != nil {
		all = append(all, c.frontend)
	}
	for _, p := range c.datanodes {
		if p != nil {
			all = append(all, p)
		}
	}
	for _, m := range c.members {
		if m.process != nil {
			all = append(all, m.process)
		}
	}
	return all
}

func (c *cluster) stop() error {
	var errs []error
	for _, p := range c.processes() {
		errs = append(errs, p.stop())
	}
	return errors.Join(errs...)
}

// healthy returns an error if a process has ended by itself.
func (c *cluster) healthy() error {
	for _, p := range c.processes() {
		if err := p.running(); err != nil {
			return err
		}
	}
	return nil
}

// status asks one member for its status.
func (m *member) status(ctx context.Context) (*metasrvpb.StatusResponse, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	conn, err := grpc.NewClient(m.grpc, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close() }()
	return metasrvpb.NewClusterClient(conn).Status(ctx, &metasrvpb.StatusRequest{})
}

// ready reports whether the member says so itself.
func (m *member) ready(ctx context.Context) bool { return httpOK(ctx, "http://"+m.http+"/readyz") }

func httpOK(ctx context.Context, url string) bool {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return false
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return false
	}
	_ = response.Body.Close()
	return response.StatusCode == http.StatusOK
}

// leader returns the member that is ready as the metasrv leader, nil while none is.
func (c *cluster) leader(ctx context.Context) *member {
	for _, m := range c.members {
		if s, err := m.status(ctx); err == nil && s.LeaderReady {
			return m
		}
	}
	return nil
}

const (
	waitTimeout = 60 * time.Second
	pollEvery   = 20 * time.Millisecond
)

// wait polls until a condition holds; a process that ends meanwhile is an error.
func (c *cluster) wait(ctx context.Context, what string, condition func() bool) error {
	deadline := time.Now().Add(waitTimeout)
	for !condition() {
		if err := c.healthy(); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not within %s: %s; logs are in %s", waitTimeout, what, c.dir)
		}
		select {
		case <-time.After(pollEvery):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
