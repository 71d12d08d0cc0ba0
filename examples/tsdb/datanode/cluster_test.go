package datanode_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

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

func startCluster(t *testing.T, datanodes int) *testCluster {
	t.Helper()
	cfg := server.Default()
	cfg.NodeID, cfg.DataDir = "m1", t.TempDir()
	cfg.GRPCAddr, cfg.RaftAddr, cfg.HTTPAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.HeartbeatInterval = 100 * time.Millisecond
	cfg.Logger = slog.New(slog.DiscardHandler)
	member, err := server.Start(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := member.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := client.New(client.Config{Endpoints: []string{member.GRPCAddr()}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	cluster := &testCluster{Client: c, nodes: map[uint64]*node{}}
	for i := range datanodes {
		cluster.nodes[uint64(i+1)] = start(t, datanode.Config{
			NodeID: metasrv.NodeID(i + 1), Listen: "127.0.0.1:0", Metasrv: []string{member.GRPCAddr()},
			DataDir: t.TempDir(), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		})
	}
	for _, n := range cluster.nodes {
		eventually(t, "registration", func() bool {
			s, err := n.Status(t.Context(), &tsdbpb.StatusRequest{})
			return err == nil && s.GetIncarnation() != 0
		})
	}
	return cluster
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
				TableName: route.GetTable().GetTableName(),
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
		if _, err := first.Write(t.Context(), &tsdbpb.WriteRequest{Route: route, WriteId: fmt.Append(nil, i),
			Rows: rows(t, row(i, 1))}); err != nil {
			t.Fatal(err)
		}
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
