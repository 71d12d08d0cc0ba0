package datanode_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/examples/tsdb/datanode"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/server"
)

// leasedCluster is a real member with datanodes behind gates, and one table of one region.
type leasedCluster struct {
	*client.Client
	t      *testing.T
	member *server.Server
	nodes  map[uint64]*node
	gates  map[uint64]*gate
	region uint64
	// written has the rows that were acknowledged, by write id.
	written map[string][]any
}

// startLeased creates a table with replicas on so many of the nodes.
func startLeased(t *testing.T, nodes int, replicas uint32) *leasedCluster {
	t.Helper()
	cfg := server.Default()
	cfg.NodeID, cfg.DataDir = "m1", t.TempDir()
	cfg.GRPCAddr, cfg.RaftAddr, cfg.HTTPAddr = "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1:0"
	cfg.HeartbeatInterval, cfg.RegionLease = 100*time.Millisecond, 2*time.Second
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
	c := &leasedCluster{
		Client: startClient(t, member.GRPCAddr()), t: t, member: member, nodes: map[uint64]*node{}, gates: map[uint64]*gate{},
		written: map[string][]any{},
	}
	for i := range nodes {
		c.start(uint64(i + 1))
	}
	for _, n := range c.nodes {
		n.awaitServing(t)
	}
	c.create(replicas)
	return c
}

func (c *leasedCluster) start(id uint64) {
	c.t.Helper()
	g := newGate(c.t)
	c.gates[id] = g
	c.nodes[id] = start(c.t, datanode.Config{
		NodeID: metasrv.NodeID(id), Listen: "127.0.0.1:0", Advertise: g.addr(), Metasrv: []string{c.member.GRPCAddr()},
		DataDir: c.t.TempDir(), Logger: slog.New(slog.NewTextHandler(c.t.Output(), nil)).With("node", id),
	})
	g.leadTo(c.nodes[id].addr)
}

func (c *leasedCluster) create(replicas uint32) {
	c.t.Helper()
	response, err := c.Router().Create(c.t.Context(), &metasrvpb.CreateRequest{
		TableName: tableName("cpu"), Schema: schema("host", "t"), Replicas: replicas,
		PartitionRule: &metasrvpb.PartitionRule{Rule: &metasrvpb.PartitionRule_Hash{
			Hash: &metasrvpb.HashRule{Columns: []string{"host"}, Partitions: 1}}},
	})
	if err != nil {
		c.t.Fatal(err)
	}
	planned := response.GetTableRoutes()[0]
	nodes, all := definitions(planned, response.GetPeers())
	commit := &metasrvpb.CommitTableRequest{TableId: planned.GetTable().GetId(), CreationToken: planned.GetCreationToken()}
	for i, d := range all {
		r, err := c.nodes[nodes[i]].CreateRegion(c.t.Context(), d)
		if err != nil {
			c.t.Fatal(err)
		}
		commit.Replicas = append(commit.Replicas, &metasrvpb.CreatedReplica{RegionId: d.GetRoute().GetRegionId(),
			ReplicaId: d.GetRoute().GetReplicaId(), NodeId: nodes[i], Incarnation: r.GetIncarnation()})
	}
	if _, err := c.Catalog().CommitTable(c.t.Context(), commit); err != nil {
		c.t.Fatal(err)
	}
	c.region = all[0].GetRoute().GetRegionId()
}

// info returns the region as metasrv has it.
func (c *leasedCluster) info() *metasrvpb.RegionInfo {
	c.t.Helper()
	response, err := c.Cluster().ListRegions(c.t.Context(), &metasrvpb.ListRegionsRequest{})
	if err != nil || len(response.GetRegions()) != 1 {
		c.t.Fatal(response, err)
	}
	return response.GetRegions()[0]
}

// on returns the replica on a node.
func (c *leasedCluster) on(id uint64) *metasrvpb.Replica {
	for _, r := range c.info().GetReplicas() {
		if r.GetPeer().GetId() == id {
			return r
		}
	}
	return &metasrvpb.Replica{}
}

// leader returns the node that leads, followers the others.
func (c *leasedCluster) leader() (leads uint64, followers []uint64) {
	for _, r := range c.info().GetReplicas() {
		if r.GetRole() == leader {
			leads = r.GetPeer().GetId()
		} else {
			followers = append(followers, r.GetPeer().GetId())
		}
	}
	return leads, followers
}

func (c *leasedCluster) awaitInSync(ids ...uint64) {
	c.t.Helper()
	eventually(c.t, fmt.Sprint("in sync: ", ids), func() bool {
		var set []uint64
		for _, r := range c.info().GetReplicas() {
			if r.GetInSync() {
				set = append(set, r.GetPeer().GetId())
			}
		}
		slices.Sort(set)
		slices.Sort(ids)
		return slices.Equal(set, ids)
	})
}

// route names the replica on a node as metasrv has it.
func (c *leasedCluster) route(id uint64) *tsdbpb.Route {
	info := c.info()
	for _, r := range info.GetReplicas() {
		if r.GetPeer().GetId() == id {
			return &tsdbpb.Route{RegionId: c.region, ReplicaId: r.GetReplicaId(), LeaderEpoch: info.GetLeaderEpoch()}
		}
	}
	return &tsdbpb.Route{RegionId: c.region}
}

// try writes one row to a node, for some time at most.
func (c *leasedCluster) try(id uint64, write string, at int, v float64, within time.Duration) error {
	ctx, cancel := context.WithTimeout(c.t.Context(), within)
	defer cancel()
	_, err := c.nodes[id].Write(ctx, &tsdbpb.WriteRequest{Route: c.route(id), WriteId: []byte(write), Rows: rows(c.t, row(at, v))})
	if err == nil {
		c.written[write] = row(at, v)
	}
	return err
}

// write writes one row to whoever leads, as often as it takes.
func (c *leasedCluster) write(write string, at int, v float64) {
	c.t.Helper()
	eventually(c.t, "write "+write, func() bool {
		id, _ := c.leader()
		return id != 0 && c.nodes[id].conn != nil && c.try(id, write, at, v, 5*time.Second) == nil
	})
}

// rowsOn returns the rows of the replica on a node, in order.
func (c *leasedCluster) rowsOn(id uint64) ([][]any, error) {
	return c.nodes[id].query(c.t, &tsdbpb.QueryRequest{Route: c.route(id), Columns: []string{"host", "t", "v"},
		Order: []*tsdbpb.Order{{Column: "t"}}})
}

// expect waits until nodes answer with just these rows.
func (c *leasedCluster) expect(want [][]any, ids ...uint64) {
	c.t.Helper()
	for _, id := range ids {
		var got [][]any
		var err error
		deadline := time.Now().Add(20 * time.Second)
		for got, err = c.rowsOn(id); (err != nil || gocmp.Diff(want, got) != "") && time.Now().Before(deadline); got, err = c.rowsOn(id) {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-c.t.Context().Done():
			}
		}
		if diff := gocmp.Diff(want, got); err != nil || diff != "" {
			c.t.Errorf("node %d: %v %s", id, err, diff)
		}
	}
}

// change has metasrv decide something about the region.
func (c *leasedCluster) change(change *storagepb.RegionChange) {
	c.t.Helper()
	eventually(c.t, "a change of the region", func() bool {
		info := c.info()
		change.RegionId, change.LeaderEpoch, change.ConfVersion = c.region, info.GetLeaderEpoch(), info.GetConfVersion()
		out, err := c.member.Node().Propose(c.t.Context(), state.Proposal{
			Kind:    storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS,
			Payload: &storagepb.ChangeRegions{Changes: []*storagepb.RegionChange{change}},
		})
		if err != nil {
			c.t.Fatal(err)
		}
		result := &storagepb.ChangeRegionsResult{}
		if err := out.Decode(result); err != nil {
			c.t.Fatal(err)
		}
		if refusal := result.GetResults()[0].GetRefusal(); refusal != nil && refusal.GetReason() != metasrv.ErrRegionChanged.Reason {
			c.t.Fatal(refusal)
		}
		return result.GetResults()[0].GetRefusal() == nil
	})
}

func (c *leasedCluster) elect(id uint64) {
	c.t.Helper()
	c.change(&storagepb.RegionChange{Change: &storagepb.RegionChange_Elect{Elect: &storagepb.ElectReplica{ReplicaId: c.on(id).GetReplicaId()}}})
}

// TestFailover: a datanode ends; its region is written on another one, has all that was acknowledged, and gets the first one
// back as a follower.
func TestFailover(t *testing.T) {
	c := startLeased(t, 3, 3)
	c.write("1", 1, 1)
	first, others := c.leader()
	c.nodes[first].stop(t)
	c.write("2", 2, 2)
	second, _ := c.leader()
	if second == first || c.info().GetLeaderEpoch() < 2 {
		t.Fatalf("node %d leads in epoch %d", second, c.info().GetLeaderEpoch())
	}
	c.expect([][]any{row(1, 1), row(2, 2)}, others...)
	c.nodes[first] = start(t, c.nodes[first].config)
	c.gates[first].leadTo(c.nodes[first].addr)
	c.awaitInSync(1, 2, 3)
	c.expect([][]any{row(1, 1), row(2, 2)}, 1, 2, 3)
}

// TestWriteAwaitsLeadership: a write that comes before its node has heard that it leads is not refused.
func TestWriteAwaitsLeadership(t *testing.T) {
	c := startLeased(t, 2, 2)
	c.write("0", 1, 1)
	round := 0
	eventually(t, "a write that came before the election", func() bool {
		round++
		_, others := c.leader()
		next := others[0]
		request := &tsdbpb.WriteRequest{Route: c.route(next), WriteId: fmt.Append(nil, round), Rows: rows(t, row(1, 1))}
		request.Route.LeaderEpoch++
		written := make(chan error, 1)
		go func() {
			_, err := c.nodes[next].Write(t.Context(), request)
			written <- err
		}()
		// A node that doesn't wait answers while it can't have heard of the election.
		select {
		case err := <-written:
			t.Errorf("refused before the election: %v", err)
			return true
		case <-time.After(50 * time.Millisecond):
		}
		c.elect(next)
		return <-written == nil // it came too late where the machine is busy
	})
}

// TestTailIsTakenBack: what a region leader stored and could not acknowledge goes when another one is elected that doesn't
// have it; the old leader can't write any more, and follows.
func TestTailIsTakenBack(t *testing.T) {
	c := startLeased(t, 2, 2)
	c.write("1", 1, 1)
	old, others := c.leader()
	next := others[0]
	before := c.route(next)
	c.gates[next].close()
	if err := c.try(old, "lost", 1, 9, 500*time.Millisecond); err == nil {
		t.Fatal("acknowledged, although the follower hangs")
	}
	if got, err := c.rowsOn(old); err != nil || len(got) != 1 || got[0][2] != 9.0 {
		t.Fatalf("the old leader has %v, %v; want the row that was not acknowledged", got, err)
	}
	c.elect(next)
	// Earlier, it would still take the write from the old leader.
	eventually(t, "the new leader knows of its epoch", func() bool {
		s, err := c.nodes[next].Status(t.Context(), &tsdbpb.StatusRequest{})
		return err == nil && s.GetReplicas()[0].GetLeaderEpoch() == 2
	})
	c.gates[next].open()
	c.write("2", 2, 2)
	c.awaitInSync(old, next)
	c.expect([][]any{row(1, 1), row(2, 2)}, old, next)

	// The former leader's messages are refused, and so is it.
	_, err := c.nodes[next].Replicate(t.Context(), &tsdbpb.ReplicateRequest{Route: before,
		Previous: &tsdbpb.Position{Epoch: 1, Seq: 1},
		Records:  []*tsdbpb.LogRecord{{Seq: 2, Epoch: 1, WriteId: []byte("late"), Rows: rows(t, row(3, 3))}}})
	if e, ok := routing.FromError(err); !ok || e.LeaderEpoch != 2 {
		t.Errorf("a message of the former leader: %v, want INVALID_ROUTE", err)
	}
	now := c.route(old)
	now.LeaderEpoch = 2
	_, err = c.nodes[old].Write(t.Context(), &tsdbpb.WriteRequest{Route: now, WriteId: []byte("x"), Rows: rows(t, row(3, 3))})
	if _, ok := routing.FromError(err); !ok {
		t.Errorf("a write to the former leader: %v, want INVALID_ROUTE", err)
	}
	c.expect([][]any{row(1, 1), row(2, 2)}, old, next)
}

// TestInSyncSet: a follower that hangs leaves the in-sync set, and isn't read; then writes go on. When it answers again it
// gets what it lacks, and comes back.
func TestInSyncSet(t *testing.T) {
	c := startLeased(t, 3, 3)
	c.write("1", 1, 1)
	leads, others := c.leader()
	c.gates[others[0]].close()
	began := time.Now()
	c.write("2", 2, 2)
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("a write took %s", took)
	}
	c.awaitInSync(leads, others[1])
	eventually(t, "the node knows that it is not in sync", func() bool {
		_, err := c.rowsOn(others[0])
		return err != nil
	})
	c.expect([][]any{row(1, 1), row(2, 2)}, leads, others[1])
	c.gates[others[0]].open()
	c.awaitInSync(1, 2, 3)
	c.expect([][]any{row(1, 1), row(2, 2)}, 1, 2, 3)
}

// TestLearner: a replica that is added while writes go on is built from a copy and the tail, comes in sync, and can lead.
func TestLearner(t *testing.T) {
	c := startLeased(t, 2, 1)
	var want [][]any
	write := func(i int) {
		c.write(fmt.Sprint(i), i, float64(i))
		want = append(want, row(i, float64(i)))
	}
	for i := range 50 {
		write(i)
	}
	first, _ := c.leader()
	second := 3 - first
	nodes, err := c.Cluster().GetNode(t.Context(), &metasrvpb.GetNodeRequest{NodeId: second})
	if err != nil {
		t.Fatal(err)
	}
	c.change(&storagepb.RegionChange{Change: &storagepb.RegionChange_AddReplica{AddReplica: &storagepb.AddReplica{
		NodeId: second, Incarnation: nodes.GetNode().GetIncarnation(),
	}}})
	for i := 50; !c.on(second).GetInSync(); i++ {
		write(i)
	}
	c.expect(want, first, second)
	c.elect(second)
	write(len(want))
	c.expect(want, first, second)
	for id, n := range c.nodes {
		if left := leftovers(t, n); len(left) > 0 {
			t.Errorf("node %d has left %v", id, left)
		}
	}
}

// reasonOf returns the reason that a datanode's error names.
func reasonOf(err error) string {
	for _, d := range status.Convert(err).Details() {
		if info, ok := d.(*errdetails.ErrorInfo); ok {
			return info.GetReason()
		}
	}
	return ""
}

// TestNoLease: without a lease nothing is written; a lease that ends while a write is under way makes its outcome unknown.
func TestNoLease(t *testing.T) {
	m := startMetasrv(t)
	m.grant(0)
	nodes := startAll(t, m, 1)
	g := newGate(t)
	hung := config(t, m, 2)
	hung.Advertise = g.addr()
	nodes = append(nodes, start(t, hung))
	m.registered(t, nodes[1])
	g.leadTo(nodes[1].addr)
	advertised := nodes[1].addr
	nodes[1].addr = g.addr()
	createAll(t, schema("host", "t"), nodes...)
	nodes[1].addr = advertised
	_, err := nodes[0].write(t, "1", row(1, 1))
	if status.Code(err) != codes.Unavailable || reasonOf(err) != metasrv.ErrNoLease.Reason {
		t.Errorf("without a lease: %v", err)
	}
	m.grant(500 * time.Millisecond)
	nodes[0].mustWrite(t, "2", row(2, 2))
	eventually(t, "the row of the write that had a lease alone", func() bool {
		got, err := nodes[0].query(t, &tsdbpb.QueryRequest{Route: route(0), Columns: []string{"t"}})
		return err == nil && len(got) == 1 && got[0][0] == int64(2)
	})
	g.close()
	ended := make(chan error, 1)
	go func() {
		_, err := nodes[0].write(t, "3", row(3, 3))
		ended <- err
	}()
	eventually(t, "stored on the leader", func() bool {
		got, err := nodes[0].query(t, &tsdbpb.QueryRequest{Route: route(0), Columns: []string{"t"}})
		return err == nil && len(got) == 2
	})
	m.grant(0)
	nodes[0].awaitNoLease(t)
	g.open()
	if err := <-ended; status.Code(err) != codes.Unavailable || reasonOf(err) != metasrv.ErrOutcomeUnknown.Reason {
		t.Errorf("the lease ended under way: %v, want OUTCOME_UNKNOWN", err)
	}
	nodes[1].expect(t, 1, row(2, 2), row(3, 3))
}
