package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// metasrv is a kind of cluster.
type metasrv struct {
	label         string
	bin, metactl  string
	serverOptions []string
}

func (m metasrv) name() string { return m.label }

func (m metasrv) command(c *cluster, i int) (string, []string) {
	var founders []string
	for j := range members {
		founders = append(founders, c.member(j)+"="+c.peer[j])
	}
	return m.bin, append([]string{
		"server", "--node-id", c.member(i), "--data-dir", c.dataDir(i), "--grpc-addr", c.client[i], "--raft-addr", c.peer[i],
		"--http-addr", "127.0.0.1:0", "--initial-cluster", strings.Join(founders, ","), "--initial-cluster-state", "new",
	}, m.serverOptions...)
}

func (m metasrv) leader(ctx context.Context, c *cluster) (int, error) {
	for i, addr := range c.client {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			return 0, err
		}
		status, err := metasrvpb.NewClusterClient(conn).Status(ctx, &metasrvpb.StatusRequest{})
		conn.Close()
		if err == nil && status.GetLeaderReady() {
			return i, nil
		}
	}
	return 0, errNoLeader
}

// load runs metactl bench.
func (m metasrv) load(ctx context.Context, c *cluster, l load) (*loadgen.Report, error) {
	args := []string{
		"bench", l.op, "--yes", "-o", "json", "--endpoints", strings.Join(c.client, ","), "--clients", fmt.Sprint(l.clients),
		"--warmup", l.warmup.String(), "--duration", l.duration.String(), "--count", fmt.Sprint(l.count), "--rate", fmt.Sprint(l.rate),
	}
	switch l.op {
	case "put":
		args = append(args, "--keep", fmt.Sprintf("--sequential=%v", l.sequential))
	case "range":
		args = append(args, "--fill=false")
	}
	if l.keys > 0 {
		args = append(args, "--keys", fmt.Sprint(l.keys), "--value-size", fmt.Sprint(l.valueSize))
	}
	return reportWhile(exec.CommandContext(ctx, m.metactl, append(args, l.more...)...), l.measuring)
}

// report runs a load and returns what it printed.
func report(cmd *exec.Cmd) (*loadgen.Report, error) { return reportWhile(cmd, nil) }

// awaited calls what is waited for once, in a goroutine, when a text is written to it.
type awaited struct {
	all  bytes.Buffer
	text string
	call func()
	work sync.WaitGroup
}

func (a *awaited) Write(p []byte) (int, error) {
	n, err := a.all.Write(p)
	if a.call != nil && bytes.Contains(a.all.Bytes(), []byte(a.text)) {
		a.work.Go(a.call)
		a.call = nil
	}
	return n, err
}

// reportWhile runs a load, beside it measuring from the moment on when it says that it measures, and returns what it printed.
func reportWhile(cmd *exec.Cmd, measuring func()) (*loadgen.Report, error) {
	var out bytes.Buffer
	says := &awaited{text: "measuring", call: measuring}
	defer says.work.Wait()
	cmd.Stdout, cmd.Stderr = &out, says
	cmd.SysProcAttr = endWithParent()
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(cmd.Args, " "), err, says.all.String())
	}
	r := &loadgen.Report{}
	if err := json.Unmarshal(out.Bytes(), r); err != nil {
		return nil, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), err)
	}
	return r, nil
}

func (m metasrv) writer(c *cluster) (func(context.Context) error, func(), error) {
	cl, err := client.New(client.Config{Endpoints: c.client})
	if err != nil {
		return nil, nil, err
	}
	put := func(ctx context.Context) error {
		_, err := cl.Store().Put(ctx, &metasrvpb.PutRequest{Key: []byte("bench/failover"), Value: []byte("value")})
		return err
	}
	return put, func() { cl.Close() }, nil
}
