package e2e

import (
	"context"
	"testing"

	"google.golang.org/grpc/status"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Followers send writers and datanodes to the metasrv leader, and know its address.
func TestFollowersRedirect(t *testing.T) {
	c := newCluster(t)
	leader, follower := c.leader(), c.follower()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	put := func() error {
		_, err := metasrvpb.NewStoreClient(follower.conn).Put(ctx, &metasrvpb.PutRequest{Key: []byte("k")})
		return err
	}
	beat := func() error {
		stream, err := metasrvpb.NewHeartbeatClient(follower.conn).Heartbeat(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&metasrvpb.HeartbeatRequest{Peer: &metasrvpb.Peer{Id: 1, Addr: "127.0.0.1:1"}}); err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	for name, call := range map[string]func() error{"Put": put, "Heartbeat": beat} {
		eventually(t, name+" on a follower names the metasrv leader", func() bool { return leaderIn(call()) == leader.grpc })
	}
	answer, err := metasrvpb.NewHeartbeatClient(follower.conn).AskLeader(ctx, &metasrvpb.AskLeaderRequest{})
	if err != nil || answer.Leader.GetAddr() != leader.grpc {
		t.Errorf("AskLeader on a follower: %v, %v; want %s", answer, err, leader.grpc)
	}
}

// leaderIn returns the client address that a NOT_LEADER error names, "" where it is none.
func leaderIn(err error) string {
	for _, d := range status.Convert(err).Details() {
		if n, ok := d.(*metasrvpb.NotLeader); ok {
			return n.Leader.GetGrpcAddr()
		}
	}
	return ""
}

// A follower answers what is asked for from a revision on as soon as it has it, and a linearizable read with what was
// acknowledged before.
func TestReadsOfAFollowerSeeWhatWasWritten(t *testing.T) {
	c := newCluster(t)
	leader, follower := c.leader(), c.follower()
	for _, value := range []string{"1", "2", "3"} {
		written, err := metasrvpb.NewStoreClient(leader.conn).Put(t.Context(), &metasrvpb.PutRequest{Key: []byte("k"), Value: []byte(value)})
		if err != nil {
			t.Fatal(err)
		}
		for name, header := range map[string]*metasrvpb.RequestHeader{
			"linearizable": nil, "from a revision on": {MinRevision: written.Header.Revision},
		} {
			read, err := metasrvpb.NewStoreClient(follower.conn).Range(t.Context(), &metasrvpb.RangeRequest{Header: header, Key: []byte("k")})
			if err != nil || len(read.Kvs) != 1 || string(read.Kvs[0].Value) != value {
				t.Errorf("%s: read %v, %v; want %s, which was written at revision %d", name, read, err, value, written.Header.Revision)
			}
		}
	}
}
