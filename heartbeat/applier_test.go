package heartbeat

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func registerCommand(t testing.TB, n *memory.Node, cmd *storagepb.RegisterNode) (*storagepb.NodeRecord, error) {
	t.Helper()
	out, err := n.Propose(t.Context(), state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE, Payload: cmd})
	if err != nil {
		return nil, err
	}
	result := &storagepb.RegisterNodeResult{}
	if err := state.Decode(out.Payload, result); err != nil {
		t.Fatal(err)
	}
	return result.Node, nil
}

// TestRegister runs a life of node 7, step after step on one state.
func TestRegister(t *testing.T) {
	frontend := info(1)
	frontend.Role = metasrvpb.NodeRole_NODE_ROLE_FRONTEND
	moved := proto.CloneOf(peer(7))
	moved.Addr = "127.0.0.1:4999"
	relabelled := info(0)
	relabelled.Labels["zone"] = "b"
	huge := info(1)
	huge.Attrs = map[string]string{"a": strings.Repeat("x", MaxNodeInfoBytes)}

	n := memory.New(NewApplier())
	for _, step := range []struct {
		name      string
		cmd       *storagepb.RegisterNode
		want      uint64
		unchanged bool // of the state
		err       error
		field     string
	}{
		{name: "no id", cmd: &storagepb.RegisterNode{Peer: peer(0), Info: info(1)}, err: metasrv.ErrInvalidArgument, field: "peer.id"},
		{name: "no peer", cmd: &storagepb.RegisterNode{Info: info(1)}, err: metasrv.ErrInvalidArgument, field: "peer.id"},
		{name: "no address", cmd: &storagepb.RegisterNode{Peer: &metasrvpb.Peer{Id: 7}, Info: info(1)}, err: metasrv.ErrInvalidArgument, field: "peer.addr"},
		{name: "no info", cmd: &storagepb.RegisterNode{Peer: peer(7)}, err: metasrv.ErrInvalidArgument, field: "node"},
		{name: "huge info", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: huge}, err: metasrv.ErrInvalidArgument, field: "node"},
		{name: "unknown role", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: &metasrvpb.NodeInfo{Role: 99}}, err: metasrv.ErrInvalidArgument, field: "node.role"},
		{name: "incarnation never given", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(1), Incarnation: 3}, err: metasrv.ErrStaleIncarnation},
		{name: "first", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(1), WallTimeMs: 5}, want: 1},
		{name: "sent again", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(1), WallTimeMs: 6}, want: 1, unchanged: true},
		{name: "with its incarnation", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(1), Incarnation: 1}, want: 1, unchanged: true},
		{name: "changed labels keep the nonce", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: relabelled, Incarnation: 1}, want: 1},
		{name: "sent again after the change", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(1)}, want: 1},
		{name: "changed address", cmd: &storagepb.RegisterNode{Peer: moved, Info: info(1), Incarnation: 1}, want: 1},
		{name: "too high", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(1), Incarnation: 2}, err: metasrv.ErrStaleIncarnation},
		{name: "another process", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(2)}, want: 2},
		{name: "the first wakes up", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(1), Incarnation: 1}, err: metasrv.ErrStaleIncarnation},
		{name: "a frontend takes the id", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: frontend}, err: metasrv.ErrInvalidArgument, field: "node.role"},
		{name: "another node", cmd: &storagepb.RegisterNode{Peer: peer(8), Info: frontend}, want: 3},
		{name: "without nonce", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(0)}, want: 4},
		{name: "without nonce again", cmd: &storagepb.RegisterNode{Peer: peer(7), Info: info(0)}, want: 5},
		{name: "legacy", cmd: &storagepb.RegisterNode{Peer: peer(7), Legacy: true}, want: 6},
		{name: "legacy again", cmd: &storagepb.RegisterNode{Peer: peer(7), Legacy: true}, want: 6, unchanged: true},
		{name: "legacy moved", cmd: &storagepb.RegisterNode{Peer: moved, Legacy: true}, want: 7},
		{name: "legacy's incarnation claimed", cmd: &storagepb.RegisterNode{Peer: moved, Info: info(1), Incarnation: 7}, err: metasrv.ErrStaleIncarnation},
		{name: "upgraded", cmd: &storagepb.RegisterNode{Peer: moved, Info: info(9)}, want: 8},
	} {
		before := n.View().Revision()
		got, err := registerCommand(t, n, step.cmd)
		after := n.View().Revision()
		if !errors.Is(err, step.err) {
			t.Fatalf("%s: error %v, want %v", step.name, err, step.err)
		}
		if got.GetIncarnation() != step.want {
			t.Fatalf("%s: incarnation %d, want %d", step.name, got.GetIncarnation(), step.want)
		}
		if changed := after != before; changed != (err == nil && !step.unchanged) {
			t.Fatalf("%s: state changed: %v", step.name, changed)
		}
		if step.err != nil {
			var e *metasrv.Error
			if !errors.As(err, &e) || e.Field != step.field {
				t.Fatalf("%s: field %q, want %q (%v)", step.name, e.Field, step.field, err)
			}
			if errors.Is(err, metasrv.ErrStaleIncarnation) && !strings.Contains(err.Error(), "node 7") {
				t.Fatalf("%s: the message doesn't name the node: %v", step.name, err)
			}
			continue
		}
		read, err := Node(n.View(), metasrv.NodeID(step.cmd.Peer.Id))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(got, read, protocmp.Transform()); diff != "" {
			t.Fatalf("%s: answered and stored differ:\n%s", step.name, diff)
		}
	}

	nodes, err := Nodes(n.View())
	if err != nil || len(nodes) != 2 || nodes[0].Peer.Id != 7 || nodes[1].Peer.Id != 8 {
		t.Fatalf("nodes: %v, %v", nodes, err)
	}
	if r, ok := Registration(n.View(), 7); !ok || r != (metasrv.Registration{Incarnation: 8}) {
		t.Fatalf("registration of node 7: %v, %v", r, ok)
	}
	if _, ok := Registration(n.View(), 9); ok {
		t.Fatal("node 9 is registered")
	}
	if _, err := Node(n.View(), 9); !errors.Is(err, metasrv.ErrNodeNotFound) {
		t.Fatalf("node 9: %v", err)
	}
}

// TestStaleMessages: a person reads them where one of two processes has ended.
func TestStaleMessages(t *testing.T) {
	n := memory.New(NewApplier())
	claim := func(incarnation uint64) *storagepb.RegisterNode {
		return &storagepb.RegisterNode{Peer: peer(1), Info: info(1), Incarnation: incarnation}
	}
	if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(2), Info: info(1)}); err != nil {
		t.Fatal(err)
	}
	refused := func(incarnation uint64, want string) {
		t.Helper()
		_, err := registerCommand(t, n, claim(incarnation))
		if !errors.Is(err, metasrv.ErrStaleIncarnation) || err.Error() != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	refused(12, "node 1 claims incarnation 12, but this cluster has never registered it: "+
		"its data was removed, or it is another cluster")
	if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(1), Info: info(1)}); err != nil {
		t.Fatal(err)
	}
	refused(1, "incarnation 1 of node 1 is over: another process registered as incarnation 2")
	refused(12, "node 1 claims incarnation 12, which was never given to it: its last is 2")
}

func TestRegisteredAtStays(t *testing.T) {
	n := memory.New(NewApplier())
	if _, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(1), Info: info(1), WallTimeMs: 5}); err != nil {
		t.Fatal(err)
	}
	changed := info(1)
	changed.Version = "2"
	got, err := registerCommand(t, n, &storagepb.RegisterNode{Peer: peer(1), Info: changed, Incarnation: 1, WallTimeMs: 9})
	if err != nil || got.RegisteredAtMs != 5 || got.Info.Version != "2" {
		t.Fatalf("%v, %v", got, err)
	}
}
