package raftfsm

import (
	"io"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// transport is raft's own without its fast path for heartbeats, which handles AppendEntries beside raft's main
// goroutine and can make logs differ (hashicorp/raft#695, not fixed in v1.7.3).
type transport struct {
	*raft.NetworkTransport
	disk  *disk
	reach *reach
	pins  *pins
	pace  *pace
	// beforeTimeoutNow lets tests delay the last step of a transfer.
	beforeTimeoutNow func()
}

func newTransport(layer raft.StreamLayer, timeout time.Duration, disk *disk, pins *pins, logger hclog.Logger) *transport {
	network := raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  layer,
		MaxPool: 3,
		// One request in flight keeps replication off the pipeline, which stops for ever after a follower has
		// refused an append (hashicorp/raft#612, not fixed in v1.7.3: pipelineReplicate sends once more while
		// nobody takes the answers). With group commit it costs nothing measurable.
		MaxRPCsInFlight: 1,
		Timeout:         timeout,
		Logger:          logger,
	})
	network.TimeoutScale = int(installRate * timeout.Seconds())
	reach := newReach()
	return &transport{
		disk: disk, reach: reach, pins: pins, NetworkTransport: network,
		pace: &pace{written: pins.written, hurry: pins.presses, wanted: reach.isWanted, closed: reach.closed},
	}
}

// AppendEntries sends entries or a heartbeat to another member.
func (t *transport) AppendEntries(id raft.ServerID, target raft.ServerAddress, req *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if !isHeartbeat(req) {
		t.reach.await(id, req.Term)
	}
	began := time.Now()
	err := t.NetworkTransport.AppendEntries(id, target, req, resp)
	t.reach.note(id, err)
	if err == nil && resp.Success && !isHeartbeat(req) {
		t.pins.acknowledged(id, req.PrevLogEntry+uint64(len(req.Entries)), req.LeaderCommitIndex)
		if len(req.Entries) == maxAppend {
			t.pace.sent(id, req.Entries, began)
		}
	}
	return err
}

// InstallSnapshot streams the state to another member. The log keeps what comes after it until that member has it.
func (t *transport) InstallSnapshot(
	id raft.ServerID, target raft.ServerAddress, req *raft.InstallSnapshotRequest, resp *raft.InstallSnapshotResponse, data io.Reader,
) error {
	t.pins.feed(id, req.LastLogIndex)
	err := t.NetworkTransport.InstallSnapshot(id, target, req, resp, t.pace.snapshot(id, req.Term, data))
	t.pins.fed(id, err == nil && resp.Success)
	return err
}

// Close ends the transport, and what waits for members.
func (t *transport) Close() error {
	t.reach.close()
	return t.NetworkTransport.Close()
}

// SetHeartbeatHandler leaves heartbeats to raft's main goroutine.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// RequestPreVote asks another member whether it would vote for this one. A member that can't write doesn't ask: it could
// not take over, and would only keep another one from it.
func (t *transport) RequestPreVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if err := t.disk.refusing(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestPreVote(id, target, req, resp)
}

// RequestVote asks another member for its vote.
func (t *transport) RequestVote(id raft.ServerID, target raft.ServerAddress, req *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if err := t.disk.refusing(); err != nil {
		return err
	}
	return t.NetworkTransport.RequestVote(id, target, req, resp)
}

// TimeoutNow asks another member to stand for election at once.
func (t *transport) TimeoutNow(id raft.ServerID, target raft.ServerAddress, req *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	if t.beforeTimeoutNow != nil {
		t.beforeTimeoutNow()
	}
	return t.NetworkTransport.TimeoutNow(id, target, req, resp)
}
