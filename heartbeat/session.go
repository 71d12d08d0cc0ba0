package heartbeat

import (
	"bytes"
	"context"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// SessionConfig is what the sessions of one term share.
type SessionConfig struct {
	Tracker  *Tracker
	Proposer state.Proposer
	Viewer   state.Viewer
	Barrier  state.Barrier
	// Dispatcher is that of the Tracker.
	Dispatcher *Dispatcher
	Logger     *slog.Logger
	// Turns are shared by all sessions of the member.
	Turns *Turns
	// Newer says whether a newer request of the stream has arrived. nil: never.
	Newer func() bool
}

// Session handles the beats of one stream. It is made for one goroutine.
type Session struct {
	cfg SessionConfig
	log *slog.Logger

	// What the node said last of itself: said is nil as long as it speaks only the early public protocol; info is what of it
	// is recorded.
	peer *metasrvpb.Peer
	said *metasrvpb.NodeInfo
	info *metasrvpb.NodeInfo

	// The record of the node's registration by this stream, decoded and encoded; nil before.
	record *storagepb.NodeRecord
	value  []byte
	stream *stream

	// last is the last beat that was taken, answered is when one was last answered.
	last     beat
	answered time.Time
	// warnedEpoch is one more than the epoch of the node's group in which it was warned of that the node wrongly claims to
	// be the writer, 0 where it wasn't.
	warnedEpoch uint64
}

// NewSession returns the session of a stream that was just opened. It must be closed.
func NewSession(cfg SessionConfig) *Session {
	return &Session{cfg: cfg, log: cfg.Logger}
}

// HandleBeat registers the node if need be, takes its report, and returns the answer without its header, nil where the beat
// needs none. The request belongs to the session from then on. The beat counts as arrived when HandleBeat is called.
//
// Any error ends the stream. ErrInvalidArgument: the beat names no node, or changes it. ErrStaleIncarnation:
// another process registered as the node since. ErrNodeIDTaken: a live process with other storage is the node.
// ErrNodeRemoved: the node was removed. ErrStreamReplaced: the process opened another stream.
// ErrNotLeader, ErrNotReady, ErrOverloaded, ErrOutcomeUnknown: the registration could not be proposed, or this
// member no longer leads.
func (s *Session) HandleBeat(ctx context.Context, req *metasrvpb.HeartbeatRequest) (*metasrvpb.HeartbeatResponse, error) {
	arrived := time.Now()
	if err := s.register(ctx, arrived, req); err != nil {
		return nil, err
	}
	b, err := s.observe(ctx, arrived, req)
	if err != nil {
		return nil, err
	}
	s.last = b
	s.logReplies(req.GetInstructionReplies())
	if s.superseded(arrived, req) {
		s.cfg.Tracker.counters.Superseded.Add(1)
		return nil, nil
	}
	s.answered = arrived
	resp := s.answer(b)
	if resp.InSyncResults, err = s.changeInSync(ctx, req.GetInSyncChanges()); err != nil {
		return nil, err
	}
	if resp.Group, err = s.group(ctx, b, true); err != nil {
		return nil, err
	}
	if !b.complete && !b.unlisted || !s.judged() || !s.keepsLeases() && !s.cfg.Tracker.unfinished(s.stream) {
		return resp, nil
	}
	d, ok, err := s.agree(ctx, b)
	if err != nil {
		return nil, err
	}
	if ok {
		s.addDecision(resp, d)
		resp.Payload = d.payload
	}
	return resp, nil
}

// observe takes a beat, in a turn.
func (s *Session) observe(ctx context.Context, arrived time.Time, req *metasrvpb.HeartbeatRequest) (beat, error) {
	if err := s.cfg.Turns.Take(ctx); err != nil {
		return beat{}, err
	}
	defer s.cfg.Turns.Give()
	return s.cfg.Tracker.observe(arrived, s.stream, req)
}

// superseded says whether a request that was taken may stay without an answer: a newer one is there already, whose answer
// does for both and grants for longer. So a backlog, as a pause of the process leaves it, isn't judged beat by beat. One is answered
// each interval all the same, or a member that is too slow would answer none. Outcomes of changes of in-sync sets, and what groups
// are told, belong to a request.
func (s *Session) superseded(arrived time.Time, req *metasrvpb.HeartbeatRequest) bool {
	return s.cfg.Newer != nil && req.GetSequence() > 0 && len(req.GetInSyncChanges()) == 0 && !s.inGroup() &&
		arrived.Sub(s.answered) < s.cfg.Tracker.cfg.Interval && s.cfg.Newer()
}

// Replaced returns a channel that is closed when another stream takes the place of this one: the stream may
// end at once, without waiting for a beat. Before the first beat it is nil; ask again after each.
func (s *Session) Replaced() <-chan struct{} {
	if s.stream == nil {
		return nil
	}
	return s.stream.replaced
}

// NodeID returns the id of the session's node, 0 before the first beat.
func (s *Session) NodeID() metasrv.NodeID { return metasrv.NodeID(s.peer.GetId()) }

// Close forgets the stream. The node's last report stays, and its silence begins to count.
func (s *Session) Close() {
	if s.stream != nil {
		s.cfg.Tracker.disconnect(s.stream)
	}
}

// register makes sure that the node's record says what the beat says, and that this stream is the one that
// counts for the node. It proposes a command only where the record differs.
func (s *Session) register(ctx context.Context, arrived time.Time, req *metasrvpb.HeartbeatRequest) error {
	cmd, err := s.registration(arrived, req)
	if err != nil {
		return err
	}
	view, said := s.cfg.Viewer.View(), cmd.Info
	cmd.Info = sayable(said, view.ClusterVersion())
	id := metasrv.NodeID(cmd.GetPeer().GetId())
	value, _ := view.Get(nodeKey(id))
	if s.stream != nil && bytes.Equal(value, s.value) && s.sameAsRecorded(cmd) {
		return nil
	}
	record, err := s.propose(ctx, arrived, value, cmd)
	if err != nil {
		return err
	}
	if s.stream == nil || s.record.Incarnation != record.Incarnation {
		if err := s.connect(id, record); err != nil {
			return err
		}
	}
	s.peer, s.info, s.said = cmd.Peer, cmd.Info, said
	s.record, s.value = record, state.Encode(record)
	return nil
}

// registration returns the command that a beat amounts to.
func (s *Session) registration(arrived time.Time, req *metasrvpb.HeartbeatRequest) (*storagepb.RegisterNode, error) {
	cmd := &storagepb.RegisterNode{
		Peer: req.GetPeer(), Info: req.GetNode(), Incarnation: req.GetIncarnation(), WallTimeMs: arrived.UnixMilli(),
	}
	if s.stream == nil {
		cmd.Legacy = cmd.Info == nil && cmd.Incarnation == 0
		return cmd, nil
	}
	if cmd.Peer == nil {
		cmd.Peer = s.peer
	}
	if cmd.Peer.Id != s.peer.Id {
		return nil, metasrv.InvalidArgument("peer.id", "changed from %d to %d on one stream", s.peer.Id, cmd.Peer.Id)
	}
	if cmd.Info == nil {
		cmd.Info = s.said
	}
	cmd.Legacy = cmd.Info == nil
	switch {
	case s.stream.legacy:
		cmd.Incarnation = 0
	case cmd.Incarnation == 0:
		// Sent before the answer to the first beat arrived.
		cmd.Incarnation = s.record.Incarnation
	}
	return cmd, nil
}

// sayable returns what may be recorded of a node while the cluster is at a version: members of an older build would end at
// what they don't know. It is recorded when the version has risen.
func sayable(info *metasrvpb.NodeInfo, version uint32) *metasrvpb.NodeInfo {
	if version >= leasesSince || !info.GetKeepsLeases() && info.GetGroup() == "" {
		return info
	}
	info = proto.CloneOf(info)
	info.KeepsLeases, info.Group = false, ""
	return info
}

// sameAsRecorded says whether a command would leave the session's record as it is.
func (s *Session) sameAsRecorded(cmd *storagepb.RegisterNode) bool {
	if cmd.Peer.GetAddr() != s.peer.GetAddr() || cmd.Legacy != s.record.Legacy {
		return false
	}
	return cmd.Legacy || cmd.Incarnation == s.record.Incarnation && (cmd.Info == s.info || proto.Equal(cmd.Info, s.info))
}

// propose brings the node's record, given as it is in the local state, to what the command says. A local state
// that is behind can't mislead it: incarnations only rise, so what is stale in it is stale.
func (s *Session) propose(ctx context.Context, arrived time.Time, value []byte, cmd *storagepb.RegisterNode) (*storagepb.NodeRecord, error) {
	id := metasrv.NodeID(cmd.GetPeer().GetId())
	var record *storagepb.NodeRecord
	if value == nil {
		if err := checkRemoved(s.cfg.Viewer.View(), id); err != nil {
			return nil, err
		}
	} else {
		var err error
		if record, err = decode(nodeKey(id), value); err != nil {
			return nil, err
		}
		// A process whose stream is open doesn't become a new one when another took its id.
		if s.stream != nil && record.Incarnation > s.record.Incarnation {
			return nil, errStale(id, s.stream.incarnation, metasrv.Incarnation(record.Incarnation))
		}
	}
	next, fresh, err := register(record, cmd, s.cfg.Viewer.View().ClusterVersion())
	if err != nil {
		return nil, err
	}
	if next == record {
		return record, nil
	}
	storageChanged := fresh && hasOtherStorage(record, cmd)
	if storageChanged && s.cfg.Tracker.holds(id, arrived) {
		return nil, metasrv.ErrNodeIDTaken.With(
			"node %d is live at %s with other storage: give this process a --node-id of its own, or stop the other one first",
			id, record.GetPeer().GetAddr())
	}
	out, err := s.cfg.Proposer.Propose(ctx, state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE, Payload: cmd,
	})
	if err != nil {
		return nil, err
	}
	result := &storagepb.RegisterNodeResult{}
	if err := out.Decode(result); err != nil {
		return nil, metasrv.ErrInternal.With("registration of node %d: %v", id, err)
	}
	if storageChanged {
		s.warnOfOtherStorage(id, record, result.GetNode())
	}
	return result.GetNode(), nil
}

// hasOtherStorage says whether a process has not the storage that its node is known to have. One that doesn't
// name its storage counts as having other.
func hasOtherStorage(record *storagepb.NodeRecord, cmd *storagepb.RegisterNode) bool {
	known := storageOf(record)
	return known != "" && known != cmd.GetInfo().GetStorageUuid()
}

// warnOfOtherStorage tells that a node came back without the replicas that it had.
func (s *Session) warnOfOtherStorage(id metasrv.NodeID, before, now *storagepb.NodeRecord) {
	s.cfg.Logger.Warn("node registered with other storage: the replicas that it had are not there",
		"node_id", uint64(id), "incarnation", now.GetIncarnation(), "addr", now.GetPeer().GetAddr(),
		"storage_uuid", now.GetInfo().GetStorageUuid(), "storage_uuid_before", storageOf(before),
		"replicas_last_reported", s.cfg.Tracker.replicas(id))
}

func (s *Session) connect(id metasrv.NodeID, record *storagepb.NodeRecord) error {
	previous := s.stream
	connected, err := s.cfg.Tracker.connect(id, metasrv.Incarnation(record.Incarnation), record.Legacy)
	if err != nil {
		return err
	}
	s.stream = connected
	connected.node.isFrontend(RoleOf(record) == metasrvpb.NodeRole_NODE_ROLE_FRONTEND)
	s.log = s.cfg.Logger.With("node_id", uint64(id), "incarnation", record.Incarnation, "term", s.cfg.Tracker.term)
	if previous == nil {
		s.log.Info("node connected", "role", roleName(RoleOf(record)), "addr", record.GetPeer().GetAddr(), "legacy", record.Legacy)
	}
	return nil
}

// logReplies tells of instructions that failed: one line a beat, for they are repeated.
func (s *Session) logReplies(replies []*metasrvpb.InstructionReply) {
	var first *metasrvpb.InstructionReply
	failed := 0
	for _, reply := range replies {
		if reply.GetError() == "" {
			continue
		}
		if first == nil {
			first = reply
		}
		failed++
	}
	if failed > 0 {
		s.log.Warn("instructions failed on node", "failed", failed,
			"region_id", first.GetRegionId(), "replica_id", first.GetReplicaId(), "error", first.GetError())
	}
}
