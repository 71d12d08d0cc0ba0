package datanode_test

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// metasrvScript answers heartbeats as the only member of a cluster would. A real member can't be told to call a
// registration stale, or to send a drop for what it never placed.
type metasrvScript struct {
	metasrvpb.UnimplementedHeartbeatServer
	addr string

	mu          sync.Mutex
	changed     chan struct{} // closed at every beat
	cluster     uint64
	incarnation uint64
	last        map[uint64]*metasrvpb.HeartbeatRequest // by node
	nodes       map[uint64]*metasrvpb.NodeInfo
	replies     []*metasrvpb.InstructionReply
	told        map[uint64]*metasrvpb.Instruction // with each beat, by node
	stale       bool
	lease       time.Duration // granted to everybody for everything
}

func startMetasrv(t *testing.T) *metasrvScript {
	t.Helper()
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	m := &metasrvScript{
		addr: listener.Addr().String(), changed: make(chan struct{}), cluster: 77, incarnation: 100,
		last: map[uint64]*metasrvpb.HeartbeatRequest{}, nodes: map[uint64]*metasrvpb.NodeInfo{},
		told: map[uint64]*metasrvpb.Instruction{}, lease: 3 * time.Second,
	}
	server := grpc.NewServer()
	metasrvpb.RegisterHeartbeatServer(server, m)
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	t.Cleanup(func() {
		server.Stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return m
}

func (m *metasrvScript) AskLeader(context.Context, *metasrvpb.AskLeaderRequest) (*metasrvpb.AskLeaderResponse, error) {
	return &metasrvpb.AskLeaderResponse{Leader: &metasrvpb.Peer{Addr: m.addr}}, nil
}

func (m *metasrvScript) Heartbeat(
	stream grpc.BidiStreamingServer[metasrvpb.HeartbeatRequest, metasrvpb.HeartbeatResponse],
) error {
	for {
		request, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		response, err := m.beat(request)
		if err != nil {
			return err
		}
		if err := stream.Send(response); err != nil {
			return err
		}
	}
}

func (m *metasrvScript) beat(request *metasrvpb.HeartbeatRequest) (*metasrvpb.HeartbeatResponse, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.stale {
		s, err := status.New(codes.FailedPrecondition, "stale").WithDetails(
			&errdetails.ErrorInfo{Reason: metasrv.ErrStaleIncarnation.Reason, Domain: "metasrv"})
		if err != nil {
			return nil, err
		}
		return nil, s.Err()
	}
	id := request.GetPeer().GetId()
	response := &metasrvpb.HeartbeatResponse{
		Header: &metasrvpb.ResponseHeader{ClusterId: m.cluster}, Sequence: request.GetSequence(), Incarnation: request.GetIncarnation(), HeartbeatIntervalMs: 50,
	}
	if response.GetIncarnation() == 0 {
		m.incarnation++
		response.Incarnation = m.incarnation
	}
	if request.Digest != nil {
		response.Digest, response.LeaseMs = request.Digest, uint64(m.lease.Milliseconds())
	}
	if request.GetNode() != nil {
		m.nodes[id] = request.GetNode()
	}
	if i := m.told[id]; i != nil {
		data, err := proto.Marshal(i)
		if err != nil {
			return nil, err
		}
		response.Payload = [][]byte{data}
	}
	m.last[id] = request
	m.replies = append(m.replies, request.GetInstructionReplies()...)
	close(m.changed)
	m.changed = make(chan struct{})
	return response, nil
}

// await waits until done, which may read m, is true after some beat.
func (m *metasrvScript) await(t *testing.T, what string, done func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		m.mu.Lock()
		ok, changed := done(), m.changed
		m.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			t.Fatalf("%s: %v", what, ctx.Err())
		}
	}
}

// tell has a node instructed from now on, with each beat.
func (m *metasrvScript) tell(node uint64, i *metasrvpb.Instruction) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.told[node] = i
}

func (m *metasrvScript) drop(node uint64, d *metasrvpb.DropRegion) {
	m.tell(node, &metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_DropRegion{DropRegion: d}})
}

// grant says how long the leases are that everybody gets from now on; 0: none.
func (m *metasrvScript) grant(lease time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.lease = lease
}
