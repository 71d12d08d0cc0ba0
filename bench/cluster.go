package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/metasrv/metasrv/internal/loadgen"
)

// members is how many processes a cluster has.
const members = 3

// kind is what makes one store different from another one.
type kind interface {
	name() string
	// command returns the program and arguments of member i.
	command(c *cluster, i int) (bin string, args []string)
	// leader returns which member leads and is ready, an error while none is.
	leader(ctx context.Context, c *cluster) (int, error)
	// load puts the cluster under load in a process of its own.
	load(ctx context.Context, c *cluster, l load) (*loadgen.Report, error)
	// writer returns what writes one key with the library that users of the store have.
	writer(c *cluster) (put func(context.Context) error, end func(), err error)
}

// load is one measurement of one cluster.
type load struct {
	op         string
	clients    int
	keys       uint64
	valueSize  int
	warmup     time.Duration
	duration   time.Duration
	count      uint64
	sequential bool
	rate       float64
	// more are further arguments of metactl bench.
	more []string
	// measuring, if it is not nil, runs beside the load from the moment on when it says that it is measuring.
	measuring func()
}

// cluster is the processes of one store.
type cluster struct {
	kind
	dir string
	// client and peer are the addresses of each member.
	client, peer []string
	processes    []*process
}

// newCluster starts a cluster in a folder of its own under dir and waits until it can be used.
func newCluster(ctx context.Context, k kind, dir string) (*cluster, error) {
	c := &cluster{kind: k, processes: make([]*process, members)}
	var err error
	if c.dir, err = os.MkdirTemp(dir, k.name()+"-"); err != nil {
		return nil, err
	}
	addrs, err := freeAddrs(2 * members)
	if err != nil {
		return nil, err
	}
	c.client, c.peer = addrs[:members], addrs[members:]
	for i := range members {
		if err := c.startMember(i); err != nil {
			c.end()
			return nil, err
		}
	}
	if _, err := c.awaitLeader(ctx); err != nil {
		err = fmt.Errorf("%w; the last lines of its first member:\n%s", err, c.processes[0].tail())
		c.end()
		return nil, err
	}
	return c, nil
}

func (c *cluster) member(i int) string  { return fmt.Sprintf("m%d", i+1) }
func (c *cluster) dataDir(i int) string { return filepath.Join(c.dir, c.member(i)) }

func (c *cluster) startMember(i int) error {
	bin, args := c.command(c, i)
	p, err := start(c.dir, c.member(i), bin, args...)
	if err != nil {
		return err
	}
	c.processes[i] = p
	return nil
}

// end kills the members and removes their data.
func (c *cluster) end() {
	for _, p := range c.processes {
		if p != nil {
			p.kill()
		}
	}
	_ = os.RemoveAll(c.dir)
}

// electionLimit bounds the wait for a leader.
const electionLimit = 60 * time.Second

var errNoLeader = errors.New("nobody leads")

func (c *cluster) awaitLeader(ctx context.Context) (int, error) {
	ctx, cancel := context.WithTimeout(ctx, electionLimit)
	defer cancel()
	for {
		i, err := c.leader(ctx, c)
		if err == nil {
			return i, nil
		}
		select {
		case <-ctx.Done():
			return 0, fmt.Errorf("%s has no leader: %w", c.name(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// pids returns those of the members.
func (c *cluster) pids() []int {
	var pids []int
	for _, p := range c.processes {
		pids = append(pids, p.pid())
	}
	return pids
}
