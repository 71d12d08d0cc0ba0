package main

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/google/go-cmp/cmp"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// creationOf is an answer to Create: two regions, the first with three replicas, the second with one.
func creationOf(table uint64) *metasrvpb.RouteResponse {
	return &metasrvpb.RouteResponse{
		Header: &metasrvpb.ResponseHeader{Revision: 300},
		Peers:  []*metasrvpb.Peer{{Id: firstBenchNode, Addr: "a"}, {Id: firstBenchNode + 300, Addr: "b"}, {Id: firstBenchNode + 1}},
		TableRoutes: []*metasrvpb.TableRoute{{
			Table: &metasrvpb.Table{Id: table, TableName: &metasrvpb.TableName{TableName: "t"}},
			RegionRoutes: []*metasrvpb.RegionRoute{
				{
					Region:          &metasrvpb.Region{Id: table << 32, Name: "r"},
					LeaderPeerIndex: 1, LeaderReplicaId: 7, FollowerPeerIndexes: []uint64{0, 2}, FollowerReplicaIds: []uint64{8, 900},
				},
				{Region: &metasrvpb.Region{Id: table<<32 | 1}, LeaderPeerIndex: 0, LeaderReplicaId: 10},
			},
			CreationToken: 1<<63 | 5,
		}},
	}
}

func encodedMessage(t *testing.T, m proto.Message) []byte {
	t.Helper()
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBenchCommitsWhatWasCreated(t *testing.T) {
	incarnation := func(node uint64) (uint64, bool) { return node - firstBenchNode + 40, true }
	var c creation
	for _, table := range []uint64{1025, 1026} { // the second one into the lists of the first
		if err := c.read(encodedMessage(t, creationOf(table))); err != nil {
			t.Fatal(err)
		}
		encoded, err := c.commit(incarnation)
		if err != nil {
			t.Fatal(err)
		}
		got := &metasrvpb.CommitTableRequest{}
		if err := proto.Unmarshal(encoded, got); err != nil {
			t.Fatal(err)
		}
		want := &metasrvpb.CommitTableRequest{TableId: table, CreationToken: 1<<63 | 5, Replicas: []*metasrvpb.CreatedReplica{
			{RegionId: table << 32, ReplicaId: 7, NodeId: firstBenchNode + 300, Incarnation: 340},
			{RegionId: table << 32, ReplicaId: 8, NodeId: firstBenchNode, Incarnation: 40},
			{RegionId: table << 32, ReplicaId: 900, NodeId: firstBenchNode + 1, Incarnation: 41},
			{RegionId: table<<32 | 1, ReplicaId: 10, NodeId: firstBenchNode, Incarnation: 40},
		}}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Error(diff)
		}
	}
}

func TestBenchRefusesStrangeCreations(t *testing.T) {
	nobody := func(uint64) (uint64, bool) { return 0, false }
	var c creation
	if err := c.read(encodedMessage(t, creationOf(5))); err != nil {
		t.Fatal(err)
	}
	if _, err := c.commit(nobody); !errors.Is(err, errUnknownNode) {
		t.Errorf("replicas on nodes that are not simulated: %v", err)
	}
	strange := creationOf(5)
	strange.Peers = strange.GetPeers()[:1]
	if err := c.read(encodedMessage(t, strange)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.commit(nobody); !errors.Is(err, errStrangeCreation) {
		t.Errorf("a peer that is not there: %v", err)
	}
	for name, answer := range map[string][]byte{"empty": nil, "cut off": encodedMessage(t, creationOf(5))[:60], "two routes": append(
		encodedMessage(t, creationOf(5)), encodedMessage(t, creationOf(5))...)} {
		if err := c.read(answer); !errors.Is(err, errStrangeCreation) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
