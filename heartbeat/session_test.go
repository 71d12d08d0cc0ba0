package heartbeat

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestFirstBeatRegisters(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	if s.NodeID() != 0 || s.Replaced() != nil {
		t.Error("a session without a beat has a node")
	}
	resp := mustBeat(t, s, firstBeat(1, 77))
	want := &metasrvpb.HeartbeatResponse{Sequence: 1, Incarnation: 1, HeartbeatIntervalMs: 1000}
	if !proto.Equal(resp, want) {
		t.Errorf("got %v, want %v", resp, want)
	}
	if s.NodeID() != 1 || len(c.proposed) != 1 || c.proposed[0].PlannedTerm != 0 {
		t.Errorf("node %d, proposals %v", s.NodeID(), c.proposed)
	}

	// The second beat may have left before the answer came.
	mustBeat(t, s, &metasrvpb.HeartbeatRequest{Peer: peer(1), Sequence: 2})
	mustBeat(t, s, &metasrvpb.HeartbeatRequest{Sequence: 3, Incarnation: 1})
	mustBeat(t, s, &metasrvpb.HeartbeatRequest{Sequence: 4, Incarnation: 1, Node: info(77)})
	if len(c.proposed) != 1 {
		t.Errorf("beats that change nothing were proposed: %v", c.proposed[1:])
	}

	changed := info(77)
	changed.Labels["zone"] = "b"
	mustBeat(t, s, &metasrvpb.HeartbeatRequest{Sequence: 5, Incarnation: 1, Node: changed})
	mustBeat(t, s, &metasrvpb.HeartbeatRequest{Sequence: 6, Incarnation: 1})
	record, err := Node(c.View(), 1)
	if err != nil || record.Incarnation != 1 || record.Info.Labels["zone"] != "b" || len(c.proposed) != 2 {
		t.Errorf("%v, %v, %d proposals", record, err, len(c.proposed))
	}
}

func TestReconnectIsNotProposed(t *testing.T) {
	c := newCluster(t)
	mustBeat(t, c.session(t), firstBeat(1, 77))
	for name, req := range map[string]*metasrvpb.HeartbeatRequest{
		"with its incarnation":   {Peer: peer(1), Node: info(77), Incarnation: 1, Sequence: 1},
		"the answer got lost":    {Peer: peer(1), Node: info(77), Sequence: 1},
		"without saying a nonce": {Peer: peer(1), Node: info(0), Incarnation: 1, Sequence: 1},
	} {
		if resp := mustBeat(t, c.session(t), req); resp.Incarnation != 1 {
			t.Errorf("%s: incarnation %d", name, resp.Incarnation)
		}
	}
	if len(c.proposed) != 1 {
		t.Errorf("%d proposals, want 1", len(c.proposed))
	}
}

func TestRefusedBeats(t *testing.T) {
	for _, c := range []struct {
		name  string
		first *metasrvpb.HeartbeatRequest
		then  *metasrvpb.HeartbeatRequest
		err   error
		field string
	}{
		{name: "no peer", first: &metasrvpb.HeartbeatRequest{Node: info(1)}, err: metasrv.ErrInvalidArgument, field: "peer.id"},
		{name: "empty", first: &metasrvpb.HeartbeatRequest{}, err: metasrv.ErrInvalidArgument, field: "peer.id"},
		{name: "no address", first: &metasrvpb.HeartbeatRequest{Peer: &metasrvpb.Peer{Id: 1}}, err: metasrv.ErrInvalidArgument, field: "peer.addr"},
		{name: "incarnation without info", first: &metasrvpb.HeartbeatRequest{Peer: peer(1), Incarnation: 1}, err: metasrv.ErrInvalidArgument, field: "node"},
		{name: "incarnation never given", first: &metasrvpb.HeartbeatRequest{Peer: peer(1), Node: info(1), Incarnation: 1}, err: metasrv.ErrStaleIncarnation},
		{name: "another id", first: firstBeat(1, 1), then: &metasrvpb.HeartbeatRequest{Peer: peer(2), Sequence: 2}, err: metasrv.ErrInvalidArgument, field: "peer.id"},
		{name: "another incarnation", first: firstBeat(1, 1), then: &metasrvpb.HeartbeatRequest{Incarnation: 9, Sequence: 2}, err: metasrv.ErrStaleIncarnation},
	} {
		t.Run(c.name, func(t *testing.T) {
			cluster := newCluster(t)
			s := cluster.session(t)
			req := c.first
			if c.then != nil {
				mustBeat(t, s, c.first)
				req = c.then
			}
			_, err := s.HandleBeat(t.Context(), req)
			var e *metasrv.Error
			if !errors.Is(err, c.err) || !errors.As(err, &e) || e.Field != c.field {
				t.Errorf("got %v", err)
			}
			if c.then == nil && len(cluster.proposed) > 0 {
				t.Error("it was proposed")
			}
		})
	}
}

// TestStaleProcess: a process wakes up after another one took its id.
func TestStaleProcess(t *testing.T) {
	c := newCluster(t)
	old := c.session(t)
	mustBeat(t, old, firstBeat(1, 1))
	next := c.session(t)
	if resp := mustBeat(t, next, firstBeat(1, 2)); resp.Incarnation != 2 {
		t.Fatalf("incarnation %d", resp.Incarnation)
	}
	select {
	case <-old.Replaced():
	default:
		t.Error("the old stream isn't told")
	}
	for name, beat := range map[string]func() (*metasrvpb.HeartbeatResponse, error){
		"on its open stream": func() (*metasrvpb.HeartbeatResponse, error) {
			return old.HandleBeat(t.Context(), &metasrvpb.HeartbeatRequest{Sequence: 2, Incarnation: 1})
		},
		"before it knows its incarnation": func() (*metasrvpb.HeartbeatResponse, error) {
			return old.HandleBeat(t.Context(), &metasrvpb.HeartbeatRequest{Sequence: 2, Node: info(1)})
		},
		"on a new stream": func() (*metasrvpb.HeartbeatResponse, error) {
			return c.session(t).HandleBeat(t.Context(), &metasrvpb.HeartbeatRequest{Peer: peer(1), Node: info(1), Incarnation: 1, Sequence: 1})
		},
	} {
		if _, err := beat(); !errors.Is(err, metasrv.ErrStaleIncarnation) {
			t.Errorf("%s: %v", name, err)
		}
	}
	mustBeat(t, next, &metasrvpb.HeartbeatRequest{Sequence: 2, Incarnation: 2})
}

// TestNodeIDTaken: a process with other storage can't drive out a node that is there, only follow one that is not.
func TestNodeIDTaken(t *testing.T) {
	on := func(nonce uint64, storage string) *metasrvpb.HeartbeatRequest {
		req := firstBeat(1, nonce)
		req.Node.StorageUuid = storage
		return req
	}
	for _, step := range []struct {
		name     string
		present  *metasrvpb.HeartbeatRequest
		before   func(present *Session)
		newcomer *metasrvpb.HeartbeatRequest
		taken    bool
		warned   bool
	}{
		{name: "live", present: on(1, "a"), newcomer: on(2, "b"), taken: true},
		{name: "live, the newcomer names no storage", present: on(1, "a"), newcomer: on(2, ""), taken: true},
		{
			name: "live, the newcomer speaks the early public protocol", present: on(1, "a"),
			newcomer: &metasrvpb.HeartbeatRequest{Peer: peer(1)}, taken: true,
		},
		{name: "late but live", present: on(1, "a"), before: func(*Session) { time.Sleep(2 * time.Second) }, newcomer: on(2, "b"), taken: true},
		{name: "same storage", present: on(1, "a"), newcomer: on(2, "a")},
		{name: "unknown storage", present: on(1, ""), newcomer: on(2, "b")},
		{name: "same process", present: on(1, "a"), newcomer: on(1, "b")},
		{name: "gone", present: on(1, "a"), before: func(s *Session) { s.Close() }, newcomer: on(2, "b"), warned: true},
		{name: "silent", present: on(1, "a"), before: func(*Session) { time.Sleep(3 * time.Second) }, newcomer: on(2, "b"), warned: true},
	} {
		t.Run(step.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCluster(t)
				var log bytes.Buffer
				c.logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelWarn}))
				present, newcomer := c.session(t), c.session(t)
				step.present.RegionStats = regionStats(3)
				mustBeat(t, present, step.present)
				if step.before != nil {
					step.before(present)
				}
				_, err := newcomer.HandleBeat(t.Context(), step.newcomer)
				if !step.taken {
					if err != nil {
						t.Fatal(err)
					}
					warning := `node_id=1 incarnation=2 addr=127.0.0.1:4001 storage_uuid=b storage_uuid_before=a replicas_last_reported=3`
					if warned := strings.Contains(log.String(), warning); warned != step.warned {
						t.Errorf("logged %q", log.String())
					}
					return
				}
				want := "node 1 is live at 127.0.0.1:4001 with other storage: " +
					"give this process a --node-id of its own, or stop the other one first"
				if !errors.Is(err, metasrv.ErrNodeIDTaken) || err.Error() != want {
					t.Errorf("got %v", err)
				}
				mustBeat(t, present, &metasrvpb.HeartbeatRequest{Sequence: 2, Incarnation: 1})
			})
		})
	}
}

// TestStaleByRecordAlone: the newer registration was applied, but its answer never reached a session.
func TestStaleByRecordAlone(t *testing.T) {
	c := newCluster(t)
	old := c.session(t)
	mustBeat(t, old, firstBeat(1, 1))
	if _, err := registerCommand(t, c.Node, mustRegistration(t, c, firstBeat(1, 2))); err != nil {
		t.Fatal(err)
	}
	if _, err := old.HandleBeat(t.Context(), &metasrvpb.HeartbeatRequest{Sequence: 2}); !errors.Is(err, metasrv.ErrStaleIncarnation) {
		t.Errorf("got %v", err)
	}
}

func TestSecondStreamReplacesFirst(t *testing.T) {
	c := newCluster(t)
	first, second := c.session(t), c.session(t)
	mustBeat(t, first, firstBeat(1, 1))
	mustBeat(t, second, firstBeat(1, 1))
	if _, err := first.HandleBeat(t.Context(), &metasrvpb.HeartbeatRequest{Sequence: 2}); !errors.Is(err, metasrv.ErrStreamReplaced) {
		t.Errorf("got %v", err)
	}
	first.Close()
	mustBeat(t, second, &metasrvpb.HeartbeatRequest{Sequence: 2})
}

func TestLegacyNode(t *testing.T) {
	c := newCluster(t)
	c.rules.agree = dropEverything
	s := c.session(t)
	req := func() *metasrvpb.HeartbeatRequest {
		return &metasrvpb.HeartbeatRequest{Peer: peer(1), RegionStats: regionStats(3), FullReport: true}
	}
	resp := mustBeat(t, s, req())
	mustBeat(t, s, req())
	mustBeat(t, c.session(t), req())
	if len(c.proposed) != 1 || len(c.rules.judged) != 0 || len(resp.Payload) != 0 {
		t.Errorf("%d proposals, %d judged, answer %v", len(c.proposed), len(c.rules.judged), resp)
	}
	nodes, err := c.tracker.Nodes(c.View(), time.Now())
	if err != nil || !nodes[0].Record.Legacy || nodes[0].Role != metasrvpb.NodeRole_NODE_ROLE_DATANODE || nodes[0].Replicas != 3 {
		t.Errorf("%+v, %v", nodes, err)
	}
	moved := req()
	moved.Peer.Addr = "127.0.0.1:4999"
	if resp := mustBeat(t, c.session(t), moved); resp.Incarnation != 2 {
		t.Errorf("incarnation %d after a move", resp.Incarnation)
	}
}

// TestLegacyNodeIsDisplaced: an old process doesn't take the id back on a stream that was open before.
func TestLegacyNodeIsDisplaced(t *testing.T) {
	c := newCluster(t)
	old := c.session(t)
	mustBeat(t, old, &metasrvpb.HeartbeatRequest{Peer: peer(1)})
	mustBeat(t, c.session(t), firstBeat(1, 1))
	if _, err := old.HandleBeat(t.Context(), &metasrvpb.HeartbeatRequest{Peer: peer(1)}); !errors.Is(err, metasrv.ErrStaleIncarnation) {
		t.Errorf("got %v", err)
	}
	if len(c.proposed) != 2 {
		t.Errorf("%d proposals", len(c.proposed))
	}
}

// TestLateNodeInfo: a node that says what it is only in a later beat becomes a new one.
func TestLateNodeInfo(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	mustBeat(t, s, &metasrvpb.HeartbeatRequest{Peer: peer(1)})
	before := s.Replaced()
	if resp := mustBeat(t, s, firstBeat(1, 1)); resp.Incarnation != 2 {
		t.Errorf("incarnation %d", resp.Incarnation)
	}
	mustBeat(t, s, &metasrvpb.HeartbeatRequest{Sequence: 2, Incarnation: 2})
	select {
	case <-s.Replaced():
		t.Error("the session replaced itself")
	default:
	}
	if before == s.Replaced() {
		t.Error("the session is still the legacy node's stream")
	}
}

func TestFailedRegistration(t *testing.T) {
	c := newCluster(t)
	s := c.session(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.HandleBeat(ctx, firstBeat(1, 1)); !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	nodes, err := c.tracker.Nodes(c.View(), time.Now())
	if err != nil || len(nodes) != 0 || s.Replaced() != nil {
		t.Errorf("%v, %v", nodes, err)
	}
	s.Close()
}

// TestSilence follows a node by the clock, from its beats to its end.
func TestSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCluster(t)
		s := c.session(t)
		check := func(want metasrvpb.NodeState) {
			t.Helper()
			nodes, err := c.tracker.Nodes(c.View(), time.Now())
			if err != nil || nodes[0].State != want {
				t.Errorf("%v, %v; want %v", nodes[0].State, err, want)
			}
		}
		for i := range uint64(30) {
			req := firstBeat(1, 1)
			req.Sequence = i + 1
			mustBeat(t, s, req)
			check(live)
			time.Sleep(time.Second)
		}
		s.Close()
		check(live)
		time.Sleep(time.Second)
		check(suspect) // it was never silent for so long
		time.Sleep(time.Second)
		check(suspect)
		time.Sleep(7 * time.Second)
		check(down)
		mustBeat(t, c.session(t), firstBeat(1, 1))
		check(live)
	})
}

// A frontend that has ended leads nothing: failover needs not look after it for the rest of the term.
func TestFrontendsDoNotFail(t *testing.T) {
	c := newCluster(t)
	frontend := firstBeat(1, 1)
	frontend.Node.Role = metasrvpb.NodeRole_NODE_ROLE_FRONTEND
	mustBeat(t, c.session(t), frontend)
	mustBeat(t, c.session(t), firstBeat(2, 1))
	failed, next := c.tracker.Failed(time.Now().Add(time.Hour))
	if !slices.Equal(failed, []metasrv.NodeID{2}) || !next.IsZero() {
		t.Errorf("failed are %v, next is %s", failed, next)
	}
}

func mustRegistration(t *testing.T, c *cluster, req *metasrvpb.HeartbeatRequest) *storagepb.RegisterNode {
	t.Helper()
	cmd, err := c.session(t).registration(start, req)
	if err != nil {
		t.Fatal(err)
	}
	return cmd
}

// BenchmarkNodes is the reading of 1,000 nodes for a placement.
func BenchmarkNodes(b *testing.B) {
	c := newCluster(b)
	for id := range uint64(1000) {
		mustBeat(b, c.session(b), firstBeat(id+1, 1))
	}
	now := time.Now()
	view := c.View()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.tracker.Nodes(view, now); err != nil {
			b.Fatal(err)
		}
	}
}
