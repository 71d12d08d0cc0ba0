package datanode_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/routing"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// wide has a cluster whose rows are so wide that replicas, and their logs, are long after a few of them.
type wide struct {
	*leasedCluster
	// want has t and v of all rows.
	want [][]any
}

// write writes a row of so many bytes.
func (c *wide) write(bytes int) {
	c.t.Helper()
	i := len(c.want)
	request := &tsdbpb.WriteRequest{
		WriteId: fmt.Append(nil, i), Rows: rows(c.t, []any{strings.Repeat("x", bytes), int64(i), float64(i)}),
	}
	eventually(c.t, "a wide write", func() bool {
		id, _ := c.leader()
		request.Route = c.route(id)
		_, err := c.nodes[id].Write(c.t.Context(), request)
		return err == nil
	})
	c.want = append(c.want, []any{int64(i), float64(i)})
}

// expect waits until nodes answer with all rows.
func (c *wide) expect(ids ...uint64) {
	c.t.Helper()
	for _, id := range ids {
		eventually(c.t, fmt.Sprintf("all rows of node %d", id), func() bool {
			got, err := c.nodes[id].query(c.t, &tsdbpb.QueryRequest{
				Route: c.route(id), Columns: []string{"t", "v"}, Order: []*tsdbpb.Order{{Column: "t"}},
			})
			return err == nil && gocmp.Equal(c.want, got)
		})
	}
}

// add has metasrv add a replica on a node.
func (c *leasedCluster) add(id uint64) {
	c.t.Helper()
	var node *metasrvpb.Node
	eventually(c.t, "the node keeps leases", func() bool {
		response, err := c.Cluster().GetNode(c.t.Context(), &metasrvpb.GetNodeRequest{NodeId: id})
		node = response.GetNode()
		return err == nil && node.GetInfo().GetKeepsLeases()
	})
	c.change(&storagepb.RegionChange{Change: &storagepb.RegionChange_AddReplica{AddReplica: &storagepb.AddReplica{
		NodeId: id, Incarnation: node.GetIncarnation(),
	}}})
}

// TestCopyBreaksOff: the connection on which a copy of a replica comes in breaks half-way. The next copy is whole.
func TestCopyBreaksOff(t *testing.T) {
	c := &wide{leasedCluster: startLeased(t, 2, 1)} // without a follower no log is kept
	for range 8 {
		c.write(1 << 20)
	}
	first, _ := c.leader()
	second := 3 - first
	c.gates[second].cutAfter(4 << 20)
	c.add(second)
	c.awaitInSync(first, second)
	if c.gates[second].uncut() {
		t.Error("nothing broke: the replica was not copied")
	}
	c.expect(first, second)
	c.elect(second)
	c.write(1)
	c.expect(first, second)
	for id, n := range c.nodes {
		if left := leftovers(t, n); len(left) > 0 {
			t.Errorf("node %d has left %v", id, left)
		}
	}
}

// TestEmptyDisk: a datanode that ended comes back with the same id and nothing on its disk. It doesn't serve what it had, the
// region goes on without it, and a replica that the node gets anew has all rows.
func TestEmptyDisk(t *testing.T) {
	for _, name := range []string{"follower", "region leader"} {
		t.Run(name, func(t *testing.T) {
			c := startLeased(t, 2, 1)
			var want [][]any
			write := func() {
				t.Helper()
				want = append(want, row(len(want), 1))
				c.write(fmt.Sprint(len(want)), len(want)-1, 1)
			}
			write() // without a follower no log is kept: whoever lacks this row needs a copy
			stays, _ := c.leader()
			lost := 3 - stays
			c.add(lost)
			c.awaitInSync(stays, lost)
			write()
			if name == "region leader" {
				stays, lost = lost, stays
			}
			before := c.route(lost)
			n := c.nodes[lost]
			n.stop(t)
			if err := errors.Join(os.RemoveAll(n.config.DataDir), os.Mkdir(n.config.DataDir, 0o750)); err != nil {
				t.Fatal(err)
			}
			n = start(t, n.config)
			c.nodes[lost] = n
			c.gates[lost].leadTo(n.addr)
			n.awaitServing(t)
			_, err := n.query(t, &tsdbpb.QueryRequest{Route: before, Columns: []string{"t"}})
			if e, ok := routing.FromError(err); !ok || uint64(e.Replica) == before.GetReplicaId() {
				t.Errorf("a query of the replica that is lost: %v, want INVALID_ROUTE", err)
			}
			write()
			eventually(t, "the replica that is lost is removed", func() bool { return len(c.info().GetReplicas()) == 1 })
			c.expect(want, stays)
			c.add(lost)
			c.awaitInSync(stays, lost)
			c.expect(want, stays, lost)
			c.elect(lost)
			write()
			c.expect(want, stays, lost)
		})
	}
}

// hangs is a follower that has to be copied, and behind a gate that shuts when the copy comes in: as if it hung.
type hangs struct {
	tsdbpb.UnimplementedDatanodeServer
	gate *gate
	once sync.Once
}

func (h *hangs) Replicate(context.Context, *tsdbpb.ReplicateRequest) (*tsdbpb.ReplicateResponse, error) {
	s, err := status.New(codes.FailedPrecondition, "it has diverged").WithDetails(
		&errdetails.ErrorInfo{Reason: "DIVERGED", Domain: routing.Domain})
	if err != nil {
		return nil, err
	}
	return nil, s.Err()
}

func (h *hangs) Install(stream grpc.ClientStreamingServer[tsdbpb.InstallRequest, tsdbpb.InstallResponse]) error {
	h.once.Do(h.gate.close)
	<-stream.Context().Done()
	return stream.Context().Err()
}

// serve listens until the test ends, and returns where.
func (h *hangs) serve(t *testing.T) (addr string) {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	tsdbpb.RegisterDatanodeServer(server, h)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return listener.Addr().String()
}

// TestHungPeers: a datanode gives up another one that hangs in the middle of a copy, from which nothing comes, not even the end
// of the connection. Else a few of them would take all places for copies, and files would stay.
func TestHungPeers(t *testing.T) {
	t.Run("receiver", func(t *testing.T) {
		t.Parallel()
		m := startMetasrv(t)
		n := startAll(t, m, 1)[0]
		createAll(t, schema("host", "t"), n)
		h := &hangs{gate: newGate(t)}
		h.gate.leadTo(h.serve(t))
		config := regionConfig(3, 5, 10, 11)
		config.Replicas[1].Peer.Addr = h.gate.addr()
		m.tell(1, promote(config))
		eventually(t, "the copy", func() bool { return n.replica(t).GetConfVersion() == 5 })
		m.tell(1, nil)
		// It dials anew.
		eventually(t, "the sender has given up", func() bool { return h.gate.dialled() > 1 })
		h.gate.open()
	})
	t.Run("sender", func(t *testing.T) {
		t.Parallel()
		m := startMetasrv(t)
		n := startAll(t, m, 1)[0]
		m.tell(1, addLearner(regionConfig(3, 5, 10, 11), 11))
		eventually(t, "the replica is here", func() bool { return n.replica(t) != nil })
		m.tell(1, nil)
		g := newGate(t)
		g.leadTo(n.addr)
		conn, err := grpc.NewClient(g.addr(), grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		stream, err := tsdbpb.NewDatanodeClient(conn).Install(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		part := &tsdbpb.InstallRequest{Route: &tsdbpb.Route{RegionId: uint64(region), ReplicaId: 11, LeaderEpoch: 3}, Data: []byte("some")}
		if err := stream.Send(part); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the copy comes in", func() bool { return len(leftovers(t, n)) > 0 })
		g.close()
		eventually(t, "the receiver has given up", func() bool { return len(leftovers(t, n)) == 0 })
	})
}
