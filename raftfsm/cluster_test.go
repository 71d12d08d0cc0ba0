package raftfsm

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/memnet"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// cluster is a number of members on a network inside the process, with real files.
type cluster struct {
	t       *testing.T
	net     memnet.Net
	servers []Server
	dir     string
	// mu guards nodes where it changes, for the goroutines that look for the metasrv leader meanwhile.
	mu     sync.Mutex
	nodes  []*Node
	timing Timing
	log    LogRetention
	// configure changes the configuration of a member, where it is not nil.
	configure func(i int, c *Config)
	// founders is how many of servers founded the cluster; the others join it.
	founders int
}

// newCluster starts members a, b, c, ….
func newCluster(t *testing.T, size int, options ...func(*cluster)) *cluster {
	c := &cluster{t: t, dir: t.TempDir(), nodes: make([]*Node, size), founders: size, timing: DefaultTiming()}
	for i := range size {
		id := string(rune('a' + i))
		c.servers = append(c.servers, Server{ID: id, RaftAddr: id + ":3003"})
	}
	for _, option := range options {
		option(c)
	}
	for i := range size {
		c.start(i)
	}
	t.Cleanup(func() {
		for i := range c.nodes {
			c.stop(i)
		}
	})
	return c
}

func (c *cluster) folder(i int) string { return filepath.Join(c.dir, c.servers[i].ID) }

func (c *cluster) start(i int) *Node {
	c.t.Helper()
	node, err := Open(c.config(i))
	if err != nil {
		c.t.Fatalf("start member %s: %v", c.servers[i].ID, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i] = node
	return node
}

func (c *cluster) config(i int) Config {
	s := c.servers[i]
	cfg := Config{
		MemberID: s.ID, DataDir: c.folder(i), RaftAddr: s.RaftAddr,
		Member:         &storagepb.MemberRecord{RaftAddr: s.RaftAddr, GrpcAddr: s.ID + ":3002"},
		InitialCluster: c.servers[:c.founders], InitialClusterState: c.clusterState(i),
		Appliers: []state.Applier{kv.NewApplier()},
		Network:  c.net.Host(s.RaftAddr),
		Logger:   testLogger(),
		Timing:   c.timing,
		Log:      c.log,
	}
	if c.configure != nil {
		c.configure(i, &cfg)
	}
	return cfg
}

func (c *cluster) clusterState(i int) ClusterState {
	if i < c.founders {
		return ClusterNew
	}
	return ClusterExisting
}

// join starts a member that has not been added to the cluster yet, and returns its number.
func (c *cluster) join(id string) int {
	c.t.Helper()
	c.servers = append(c.servers, Server{ID: id, RaftAddr: id + ":3003"})
	c.mu.Lock()
	c.nodes = append(c.nodes, nil)
	c.mu.Unlock()
	c.start(len(c.nodes) - 1)
	return len(c.nodes) - 1
}

func testLogger() *slog.Logger {
	if os.Getenv("METASRV_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// stop ends a member without handing over its leadership.
func (c *cluster) stop(i int) {
	c.t.Helper()
	if c.nodes[i] == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := c.nodes[i].Close(ctx); err != nil {
		c.t.Errorf("close member %s: %v", c.servers[i].ID, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.nodes[i] = nil
}

// running returns the nodes by member, nil for those that are stopped.
func (c *cluster) running() []*Node {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.nodes)
}

// leader waits for a metasrv leader among the running members.
func (c *cluster) leader() (int, *Node) {
	c.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		for i, n := range c.running() {
			if n == nil {
				continue
			}
			if _, ok := n.Leadership(); ok {
				return i, n
			}
		}
	}
	c.t.Fatal("no metasrv leader within 30 s")
	return 0, nil
}

// eventually waits until a condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !condition(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 30 s: %s", what)
		}
	}
}

func put(ctx context.Context, n state.Proposer, key, value string) (state.Result, error) {
	return n.Propose(ctx, putProposal(key, value))
}

func putProposal(key, value string) state.Proposal {
	return state.Proposal{
		Kind:    storagepb.CommandKind_COMMAND_KIND_PUT,
		Payload: &storagepb.Put{Key: []byte(key), Value: []byte(value)},
	}
}

func get(v state.View, key string) string {
	pair, err := kv.Get(v, []byte(key))
	switch {
	case err != nil:
		return err.Error()
	case pair == nil:
		return "<absent>"
	}
	return string(pair.Value)
}

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

func key(i int) string { return fmt.Sprintf("k%05d", i) }
