package datanode_test

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// regionConfig has the first replica lead, and it alone in sync.
func regionConfig(epoch, conf uint64, replicas ...uint64) *metasrvpb.RegionConfig {
	c := &metasrvpb.RegionConfig{RegionId: uint64(region), LeaderEpoch: epoch, ConfVersion: conf, LeaderReplicaId: replicas[0]}
	for i, id := range replicas {
		c.Replicas = append(c.Replicas, &metasrvpb.ReplicaConfig{
			ReplicaId: id, InSync: i == 0, Learner: i > 0, Peer: &metasrvpb.Peer{Id: 100 + id, Addr: "127.0.0.1:1"},
		})
	}
	return c
}

func promote(c *metasrvpb.RegionConfig) *metasrvpb.Instruction {
	return &metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_PromoteRegion{PromoteRegion: &metasrvpb.PromoteRegion{
		Config: c, ReplicaId: c.GetLeaderReplicaId(),
	}}}
}

func addLearner(c *metasrvpb.RegionConfig, replica uint64) *metasrvpb.Instruction {
	return &metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_AddLearner{AddLearner: &metasrvpb.AddLearner{
		Config: c, ReplicaId: replica, Table: &metasrvpb.Table{TableName: tableName("cpu"), Schema: schema("host", "t")},
	}}}
}

// replica returns the only replica of a node, nil while there is none.
func (n *node) replica(t *testing.T) *tsdbpb.ReplicaStatus {
	t.Helper()
	s, err := n.Status(t.Context(), &tsdbpb.StatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if len(s.GetReplicas()) == 0 {
		return nil
	}
	return s.GetReplicas()[0]
}

// TestLateDrop (rule 22): a region leaves a node and comes back as another replica. A drop of the former one that is late, or
// repeated by who knows the region as it is now, leaves the present one alone.
func TestLateDrop(t *testing.T) {
	m := startMetasrv(t)
	n := startAll(t, m, 1)[0]
	createAll(t, schema("host", "t"), n)
	n.mustWrite(t, "1", row(1, 1))
	m.drop(1, &metasrvpb.DropRegion{RegionId: uint64(region), ReplicaId: 10, LeaderEpoch: 4, ConfVersion: 6, Reason: "migrated"})
	eventually(t, "the replica is gone", func() bool { return n.replica(t) == nil })

	back := regionConfig(5, 9, 12)
	m.tell(1, addLearner(regionConfig(4, 7, 11, 12), 12))
	eventually(t, "another replica is here", func() bool { return n.replica(t).GetReplicaId() == 12 })
	m.tell(1, promote(back))
	eventually(t, "it leads", func() bool { return n.replica(t).GetLeaderEpoch() == 5 })
	m.tell(1, nil)
	route := &tsdbpb.Route{RegionId: uint64(region), ReplicaId: 12, LeaderEpoch: 5}
	n.awaitLease(t, uint64(region))
	if _, err := n.Write(t.Context(), &tsdbpb.WriteRequest{Route: route, WriteId: []byte("2"), Rows: rows(t, row(2, 2))}); err != nil {
		t.Fatal(err)
	}

	for _, pair := range [][2]uint64{{5, 9}, {6, 1}, {4, 6}} {
		m.mu.Lock()
		m.replies = nil
		m.mu.Unlock()
		m.drop(1, &metasrvpb.DropRegion{RegionId: uint64(region), ReplicaId: 10, LeaderEpoch: pair[0], ConfVersion: pair[1], Reason: "late"})
		if n.eventuallyDropped(t, m, 10) {
			t.Fatalf("the drop of replica 10 at %v dropped replica 12", pair)
		}
	}
	got, err := n.query(t, &tsdbpb.QueryRequest{Route: route, Columns: []string{"t"}})
	if err != nil || len(got) != 1 || got[0][0] != int64(2) {
		t.Errorf("%v, %v; want the row of the present replica", got, err)
	}
}

// eventuallyDropped waits until the node has refused a drop, or has no replica any more.
func (n *node) eventuallyDropped(t *testing.T, m *metasrvScript, replica uint64) (dropped bool) {
	t.Helper()
	eventually(t, "the drop was refused", func() bool {
		dropped = n.replica(t) == nil
		m.mu.Lock()
		defer m.mu.Unlock()
		return dropped || len(m.replies) > 0 && m.replies[0].GetReplicaId() == replica
	})
	return dropped
}

// TestRestartedLeader answers no reads before metasrv has said, to this process, what the in-sync set is: the one before may have
// asked for a replica to come in, which may lead by now.
func TestRestartedLeader(t *testing.T) {
	m := startMetasrv(t)
	n := startAll(t, m, 1)[0]
	createAll(t, schema("host", "t"), n)
	n.mustWrite(t, "1", row(1, 1))
	restart := func() {
		t.Helper()
		m.grant(0)
		m.tell(1, nil)
		n = n.restart(t)
		n.awaitServing(t)
		for range 2 {
			_, err := n.query(t, &tsdbpb.QueryRequest{Route: route(0), Columns: []string{"t"}})
			if status.Code(err) != codes.Unavailable {
				t.Errorf("restarted, without a lease: %v, want UNAVAILABLE", err)
			}
		}
	}
	restart()
	m.grant(3 * time.Second)
	n.awaitLease(t, uint64(region))
	m.grant(0)
	n.awaitNoLease(t)
	n.expect(t, 0, row(1, 1))

	restart()
	m.tell(1, promote(regionConfig(3, 5, 10)))
	eventually(t, "the rows, since metasrv has said who is in sync", func() bool {
		got, err := n.query(t, &tsdbpb.QueryRequest{Route: route(0), Columns: []string{"t"}})
		return err == nil && len(got) == 1
	})
	m.tell(1, nil)
}
