package raftfsm

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A member that ends between the two writes of a vote, or has no space for the second, must not give the vote of the new
// term to the candidate of an older one: raft would not compare their logs.
func TestHalfAVoteIsNone(t *testing.T) {
	s, err := guardLog(memoryLog{raft.NewInmemStore()}, "log", func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	members := raft.Configuration{}
	for _, id := range []string{"a", "b", "c"} {
		members.Servers = append(members.Servers, raft.Server{ID: raft.ServerID(id), Address: raft.ServerAddress(id + ":1")})
	}
	err = errors.Join(
		s.StoreLogs([]*raft.Log{
			{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(members)},
			{Index: 2, Term: 3, Type: raft.LogNoop},
		}),
		s.SetUint64(keyCurrentTerm, 3), s.SetUint64(keyLastVoteTerm, 3), s.Set(keyLastVoteCand, []byte("a:1")),
		// Somebody else asks in term 4, and the member ends before it has stored whom it votes for.
		s.SetUint64(keyCurrentTerm, 4), s.SetUint64(keyLastVoteTerm, 4),
	)
	if err != nil {
		t.Fatal(err)
	}
	_, voter := raft.NewInmemTransport("c:1")
	_, candidate := raft.NewInmemTransport("a:1")
	candidate.Connect("c:1", voter)
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = "c", newRaftLogger(testLogger())
	c.HeartbeatTimeout, c.ElectionTimeout = time.Hour, time.Hour // it doesn't stand itself
	r, err := raft.NewRaft(c, &raft.MockFSM{}, raftLog{s}, raftLog{s}, raft.NewInmemSnapshotStore(), voter)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = r.Shutdown().Error() }()
	ask := func(term, lastTerm, lastIndex uint64) bool {
		var answer raft.RequestVoteResponse
		err := candidate.RequestVote("c", "c:1", &raft.RequestVoteRequest{
			RPCHeader: raft.RPCHeader{ProtocolVersion: raftProtocol, ID: []byte("a"), Addr: []byte("a:1")},
			Term:      term, LastLogTerm: lastTerm, LastLogIndex: lastIndex,
		}, &answer)
		if err != nil {
			t.Fatal(err)
		}
		return answer.Granted
	}
	if ask(4, 1, 1) {
		t.Error("a candidate whose log lacks an entry got the vote")
	}
	if !ask(5, 3, 2) {
		t.Error("no vote in the term after that")
	}
	if !ask(5, 3, 2) {
		t.Error("no vote for the same candidate again")
	}
}
