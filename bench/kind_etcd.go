package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// etcd is a kind of cluster.
type etcd struct{ bin string }

func (etcd) name() string { return "etcd" }

func (e etcd) command(c *cluster, i int) (string, []string) {
	var founders []string
	for j := range members {
		founders = append(founders, c.member(j)+"=http://"+c.peer[j])
	}
	return e.bin, []string{
		"--name", c.member(i), "--data-dir", c.dataDir(i),
		"--listen-client-urls", "http://" + c.client[i], "--advertise-client-urls", "http://" + c.client[i],
		"--listen-peer-urls", "http://" + c.peer[i], "--initial-advertise-peer-urls", "http://" + c.peer[i],
		"--initial-cluster", strings.Join(founders, ","), "--initial-cluster-state", "new",
	}
}

func etcdClient(endpoints []string) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{Endpoints: endpoints, DialTimeout: 2 * time.Second, Logger: zap.NewNop()})
}

func (etcd) leader(ctx context.Context, c *cluster) (int, error) {
	for i, addr := range c.client {
		cl, err := etcdClient([]string{addr})
		if err != nil {
			continue
		}
		asking, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		status, err := cl.Status(asking, addr)
		cancel()
		_ = cl.Close()
		if err == nil && status.Leader != 0 && status.Leader == status.Header.MemberId {
			return i, nil
		}
	}
	return 0, errNoLeader
}

// load runs this program's own load: the same loop as that of metactl bench, on the leader's connections.
func (e etcd) load(ctx context.Context, c *cluster, l load) (*loadgen.Report, error) {
	i, err := c.awaitLeader(ctx)
	if err != nil {
		return nil, err
	}
	return ownLoad(ctx, "etcd", c.client[i], l)
}

func ownLoad(ctx context.Context, target, addr string, l load) (*loadgen.Report, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return report(exec.CommandContext(ctx, self, loadCommand, "-target", target, "-op", l.op, "-addr", addr,
		"-clients", fmt.Sprint(l.clients), "-keys", fmt.Sprint(l.keys), "-value-size", fmt.Sprint(l.valueSize),
		"-warmup", l.warmup.String(), "-duration", l.duration.String(), "-count", fmt.Sprint(l.count),
		"-rate", fmt.Sprint(l.rate), fmt.Sprintf("-sequential=%v", l.sequential)))
}

func (etcd) writer(c *cluster) (func(context.Context) error, func(), error) {
	cl, err := etcdClient(c.client)
	if err != nil {
		return nil, nil, err
	}
	put := func(ctx context.Context) error {
		_, err := cl.Put(ctx, "bench/failover", "value")
		return err
	}
	return put, func() { _ = cl.Close() }, nil
}
