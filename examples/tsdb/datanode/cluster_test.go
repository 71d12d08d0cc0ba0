package datanode_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/examples/tsdb/datanode"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/server"
)

// testCluster is a real member with datanodes, and a client of both.
type testCluster struct {
	*client.Client
	nodes map[uint64]*node
}

// startMember starts the only member of a new cluster. stop ends it before the test does.
func startMember(t *testing.T, addr string) (grpcAddr string, stop func()) {
	t.Helper()
	cfg := server.Default()
	cfg.NodeID, cfg.DataDir = "m1", t.TempDir()
	cfg.GRPCAddr, cfg.RaftAddr, cfg.HTTPAddr = addr, "127.0.0.1:0", "127.0.0.1:0"
	cfg.HeartbeatInterval = 100 * time.Millisecond
	cfg.Logger = slog.New(slog.DiscardHandler)
	member, err := server.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	stop = sync.OnceFunc(func() {
		if err := member.Close(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(stop)
	return member.GRPCAddr(), stop
}

func startClient(t *testing.T, addr string) *client.Client {
	t.Helper()
	c, err := client.New(client.Config{Endpoints: []string{addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func startCluster(t *testing.T, datanodes int) *testCluster {
	t.Helper()
	addr, _ := startMember(t, "127.0.0.1:0")
	cluster := &testCluster{Client: startClient(t, addr), nodes: map[uint64]*node{}}
	for i := range datanodes {
		cluster.nodes[uint64(i+1)] = start(t, datanode.Config{
			NodeID: metasrv.NodeID(i + 1), Listen: "127.0.0.1:0", Metasrv: []string{addr},
			DataDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
	}
	for _, n := range cluster.nodes {
		n.awaitServing(t)
	}
	return cluster
}

// awaitServing waits until the node knows that its folder is of metasrv's cluster.
func (n *node) awaitServing(t *testing.T) {
	t.Helper()
	eventually(t, "registration", func() bool {
		_, err := n.DropRegion(t.Context(), &tsdbpb.DropRegionRequest{RegionId: 1, ReplicaId: 1})
		return err == nil
	})
}

// eventually waits until done, which asks a server, is true.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		case <-ticker.C:
		}
	}
}

func tableName(table string) *metasrvpb.TableName {
	return &metasrvpb.TableName{CatalogName: "greptime", SchemaName: "public", TableName: table}
}

// plan reserves a table of two regions with two replicas each.
func (c *testCluster) plan(t *testing.T, table string, timeout time.Duration) (*metasrvpb.TableRoute, []*metasrvpb.Peer) {
	t.Helper()
	response, err := c.Router().Create(t.Context(), &metasrvpb.CreateRequest{
		TableName: tableName(table), Schema: schema("host", "t"), Replicas: 2,
		CreationTimeoutMs: uint64(timeout.Milliseconds()),
		PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
			Hash: &metasrvpb.HashRule{Columns: []string{"host"}, Partitions: 2}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetTableRoutes()[0], response.GetPeers()
}

// definitions returns what each node is to create, as a frontend makes it of a plan.
func definitions(route *metasrvpb.TableRoute, peers []*metasrvpb.Peer) (nodes []uint64, all []*tsdbpb.CreateRegionRequest) {
	for _, r := range route.GetRegionRoutes() {
		replicas := []*tsdbpb.ReplicaPeer{{ReplicaId: r.GetLeaderReplicaId(), Peer: peers[r.GetLeaderPeerIndex()]}}
		for i, index := range r.GetFollowerPeerIndexes() {
			replicas = append(replicas, &tsdbpb.ReplicaPeer{ReplicaId: r.GetFollowerReplicaIds()[i], Peer: peers[index]})
		}
		for i, own := range replicas {
			d := &tsdbpb.CreateRegionRequest{
				Route: &tsdbpb.Route{RegionId: r.GetRegion().GetId(), ReplicaId: own.GetReplicaId(),
					LeaderEpoch: r.GetLeaderEpoch(), RouteVersion: route.GetRouteVersion()},
				ConfVersion: r.GetConfVersion(), Role: follower, Schema: schema("host", "t"),
				TableName: route.GetTable().GetTableName(), LeaderReplicaId: r.GetLeaderReplicaId(),
			}
			if i == 0 {
				d.Role = leader
			}
			for j, other := range replicas {
				if i != j {
					d.Peers = append(d.Peers, other)
				}
			}
			nodes, all = append(nodes, own.GetPeer().GetId()), append(all, d)
		}
	}
	return nodes, all
}

func (c *testCluster) replicas(t *testing.T) int {
	t.Helper()
	sum := 0
	for _, n := range c.nodes {
		s, err := n.Status(t.Context(), &tsdbpb.StatusRequest{})
		if err != nil {
			t.Fatal(err)
		}
		sum += len(s.GetReplicas())
	}
	return sum
}

// TestTableLife: create, commit, write by the leader, read at the follower, drop, with a real member.
func TestTableLife(t *testing.T) {
	c := startCluster(t, 2)
	planned, peers := c.plan(t, "cpu", 0)
	nodes, all := definitions(planned, peers)
	commit := &metasrvpb.CommitTableRequest{TableId: planned.GetTable().GetId(), CreationToken: planned.GetCreationToken()}
	for i, d := range all {
		r, err := c.nodes[nodes[i]].CreateRegion(t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		commit.Replicas = append(commit.Replicas, &metasrvpb.CreatedReplica{RegionId: d.GetRoute().GetRegionId(),
			ReplicaId: d.GetRoute().GetReplicaId(), NodeId: nodes[i], Incarnation: r.GetIncarnation()})
	}
	if _, err := c.Catalog().CommitTable(t.Context(), commit); err != nil {
		t.Fatal(err)
	}
	response, err := c.Router().Route(t.Context(), &metasrvpb.RouteRequest{TableNames: []*metasrvpb.TableName{tableName("cpu")}})
	if err != nil {
		t.Fatal(err)
	}
	routed := response.GetTableRoutes()[0]
	for i, r := range routed.GetRegionRoutes() {
		route := &tsdbpb.Route{RegionId: r.GetRegion().GetId(), ReplicaId: r.GetLeaderReplicaId(),
			LeaderEpoch: r.GetLeaderEpoch(), RouteVersion: routed.GetRouteVersion()}
		first := c.nodes[response.GetPeers()[r.GetLeaderPeerIndex()].GetId()]
		eventually(t, "a write", func() bool { // once the node has a lease
			_, err := first.Write(t.Context(), &tsdbpb.WriteRequest{Route: route, WriteId: fmt.Append(nil, i), Rows: rows(t, row(i, 1))})
			if err != nil && status.Code(err) != codes.Unavailable {
				t.Fatal(err)
			}
			return err == nil
		})
		route.ReplicaId = r.GetFollowerReplicaIds()[0]
		second := c.nodes[response.GetPeers()[r.GetFollowerPeerIndexes()[0]].GetId()]
		got, err := second.query(t, &tsdbpb.QueryRequest{Route: route, Columns: []string{"t"}})
		if err != nil || len(got) != 1 || got[0][0] != int64(i) {
			t.Errorf("region %d: follower has %v, %v", i, got, err)
		}
	}
	if _, err := c.Router().Delete(t.Context(), &metasrvpb.DeleteRequest{TableName: tableName("cpu")}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "replicas dropped", func() bool { return c.replicas(t) == 0 })
}

// TestAbortedCreate: what was created of a table is dropped at the deadline, and so is what is created after it.
func TestAbortedCreate(t *testing.T) {
	c := startCluster(t, 2)
	planned, peers := c.plan(t, "cpu", 500*time.Millisecond)
	nodes, all := definitions(planned, peers)
	if _, err := c.nodes[nodes[0]].CreateRegion(t.Context(), all[0]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "replica dropped at the deadline", func() bool { return c.replicas(t) == 0 })
	if _, err := c.nodes[nodes[1]].CreateRegion(t.Context(), all[1]); err != nil {
		t.Fatal(err)
	}
	eventually(t, "late replica dropped", func() bool { return c.replicas(t) == 0 })
}

// TestOtherCluster: a metasrv without memory gives out the same ids again. Neither a process that went on nor one
// that is started on the same folder serves what the former cluster's ids meant; an empty folder serves.
func TestOtherCluster(t *testing.T) {
	addr, stop := startMember(t, "127.0.0.1:0")
	config := datanode.Config{
		NodeID: 1, Listen: "127.0.0.1:0", Metasrv: []string{addr}, DataDir: t.TempDir(),
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
	n := start(t, config)
	n.awaitServing(t)
	createAll(t, schema("host", "t"), n)
	first := clusterID(t, addr)
	stop()
	startMember(t, addr)
	second := clusterID(t, addr)

	want := fmt.Sprintf("data folder %s belongs to cluster %d, but metasrv at %s is cluster %d",
		config.DataDir, first, addr, second)
	for i, process := range []string{"went on", "started again"} {
		if i > 0 {
			n = start(t, config)
		}
		err := <-n.ended
		if !errors.Is(err, metasrv.ErrClusterMismatch) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", process, err, want)
		}
		n.ended <- nil
	}
	nodes, err := startClient(t, addr).Cluster().ListNodes(t.Context(), &metasrvpb.ListNodesRequest{})
	if err != nil || len(nodes.GetNodes()) != 0 {
		t.Errorf("the other cluster knows the nodes %v, %v", nodes.GetNodes(), err)
	}
	config.DataDir = t.TempDir()
	n = start(t, config)
	n.awaitServing(t)
	createAll(t, schema("host", "t"), n)
}

// clusterID asks until the member knows it.
func clusterID(t *testing.T, addr string) (id uint64) {
	t.Helper()
	c := startClient(t, addr)
	eventually(t, "cluster id", func() bool {
		answer, err := c.Heartbeat().AskLeader(t.Context(), &metasrvpb.AskLeaderRequest{})
		id = answer.GetHeader().GetClusterId()
		return err == nil && id != 0
	})
	return id
}

// TestClusterUnknown: a datanode that has not heard from metasrv can't know what the ids of requests mean.
func TestClusterUnknown(t *testing.T) {
	m := startMetasrv(t)
	nodes := startAll(t, m, 2)
	createAll(t, schema("host", "t"), nodes...)
	for i, n := range nodes {
		n.config.Metasrv = []string{"127.0.0.1:1"}
		nodes[i] = n.restart(t)
	}
	d := &tsdbpb.DropRegionRequest{RegionId: uint64(region), ReplicaId: 10, LeaderEpoch: 9}
	for name, request := range map[string]func() error{
		"create": func() error {
			_, err := nodes[0].CreateRegion(t.Context(), &tsdbpb.CreateRegionRequest{Route: route(0)})
			return err
		},
		"drop": func() error { _, err := nodes[0].DropRegion(t.Context(), d); return err },
		"write": func() error {
			_, err := nodes[0].Write(t.Context(), &tsdbpb.WriteRequest{Route: route(0), WriteId: []byte("1"), Rows: rows(t, row(1, 1))})
			return err
		},
		"replicate": func() error {
			_, err := nodes[1].Replicate(t.Context(), &tsdbpb.ReplicateRequest{Route: route(1)})
			return err
		},
		"query": func() error {
			_, err := nodes[1].query(t, &tsdbpb.QueryRequest{Route: route(1), Columns: []string{"t"}})
			return err
		},
	} {
		if err := request(); status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, want UNAVAILABLE", name, err)
		}
	}
	if s, err := nodes[0].Status(t.Context(), &tsdbpb.StatusRequest{}); err != nil || len(s.GetReplicas()) != 1 {
		t.Errorf("status: %v, %v", s, err)
	}
	n := nodes[0]
	n.config.Metasrv = []string{m.addr}
	n = n.restart(t)
	eventually(t, "rows from the node that has a lease again", func() bool {
		_, err := n.query(t, &tsdbpb.QueryRequest{Route: route(0), Columns: []string{"t"}})
		return err == nil
	})
}

// TestClusterNotNoted: a folder that can't be made one of the cluster must not be served to it.
func TestClusterNotNoted(t *testing.T) {
	m := startMetasrv(t)
	c := config(t, m, 1)
	c.Metasrv = []string{"127.0.0.1:1"}
	start(t, c).stop(t)
	if err := os.Mkdir(filepath.Join(c.DataDir, "node.json.tmp"), 0o750); err != nil {
		t.Fatal(err)
	}
	c.Metasrv = []string{m.addr}
	n := start(t, c)
	if err := <-n.ended; err == nil || !strings.Contains(err.Error(), "node.json") {
		t.Errorf("%v, want an error naming node.json", err)
	}
	n.ended <- nil
}
