package heartbeat

import (
	"context"
	"errors"
	"testing"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Rule 21: a node that comes back with other storage has lost what it had; one that doesn't say, or says the same, hasn't.
func TestStorageGeneration(t *testing.T) {
	n := memory.New(NewApplier())
	for i, step := range []struct {
		storage    string
		legacy     bool
		generation uint64
	}{
		{storage: "", generation: 0},
		{storage: "a", generation: 0},
		{storage: "a", generation: 0},
		{storage: "b", generation: 1},
		{storage: "a", generation: 2}, // what it had is lost all the same: it was written to while it was away
		{storage: "", generation: 2},
		{storage: "a", generation: 2},
		{legacy: true, generation: 2},
		{legacy: true, generation: 2},
		{storage: "", generation: 2},
		{storage: "c", generation: 3},
	} {
		cmd := &storagepb.RegisterNode{Peer: peer(7), Legacy: step.legacy}
		if !step.legacy {
			cmd.Info = info(uint64(i + 1))
			cmd.Info.StorageUuid = step.storage
		}
		record, err := registerCommand(t, n, cmd)
		if err != nil || record.StorageGeneration != step.generation {
			t.Fatalf("step %d, storage %q: generation %d, %v, want %d", i, step.storage, record.GetStorageGeneration(), err, step.generation)
		}
		if r, _ := Registration(n.View(), 7); r.StorageGeneration != step.generation || uint64(r.Incarnation) != record.Incarnation {
			t.Fatalf("step %d: read %+v of %v", i, r, record)
		}
	}
	// The same process with other storage, too.
	cmd := &storagepb.RegisterNode{Peer: peer(7), Info: info(11), Incarnation: incarnationOf(n, 7)}
	cmd.Info.StorageUuid = "d"
	if record, err := registerCommand(t, n, cmd); err != nil || record.StorageGeneration != 4 {
		t.Errorf("the same process: %v, %v", record, err)
	}
}

func incarnationOf(n *memory.Node, id metasrv.NodeID) uint64 {
	r, _ := Registration(n.View(), id)
	return uint64(r.Incarnation)
}

// While members of an older build may be there, nothing is recorded that they would not understand, or would do otherwise.
func TestOlderMembersUnderstandRegistrations(t *testing.T) {
	n := memory.NewAt(1, NewApplier())
	for i, storage := range []string{"a", "b", ""} {
		cmd := &storagepb.RegisterNode{Peer: peer(7), Info: info(uint64(i + 1))}
		cmd.Info.StorageUuid = storage
		if record, err := registerCommand(t, n, cmd); err != nil || record.StorageGeneration != 0 || record.LastStorageUuid != "" {
			t.Errorf("at version 1 %v is recorded, %v", record, err)
		}
	}
	keeps := &storagepb.RegisterNode{Peer: peer(8), Info: &metasrvpb.NodeInfo{KeepsLeases: true}}
	if _, err := registerCommand(t, n, keeps); !errors.Is(err, metasrv.ErrClusterVersion) {
		t.Errorf("a registration that older members don't understand: %v", err)
	}
}

// versioned shows a cluster that is at a lower version than its state.
type versioned struct {
	*cluster
	version uint32
}

func (v *versioned) View() state.View { return versionedView{v.cluster.View(), v.version} }

func (v *versioned) Propose(ctx context.Context, p state.Proposal) (state.Result, error) {
	return v.cluster.Propose(ctx, p)
}

type versionedView struct {
	state.View
	version uint32
}

func (v versionedView) ClusterVersion() uint32 { return v.version }

// That a node keeps leases is recorded as soon as every member understands it, though the node says it only once.
func TestLeasesAreRecordedWhenTheVersionRises(t *testing.T) {
	c := newCluster(t)
	v := &versioned{c, 1}
	s := NewSession(SessionConfig{Tracker: c.tracker, Proposer: v, Viewer: v, Barrier: c, Dispatcher: c.dispatcher, Logger: c.logger})
	t.Cleanup(s.Close)
	first := firstBeat(7, 1)
	first.Node.KeepsLeases = true
	mustBeat(t, s, first)
	if r, _ := Registration(c.View(), 7); r.KeepsLeases || !first.Node.KeepsLeases {
		t.Errorf("at version 1 %+v is recorded, or the beat was changed", r)
	}
	beats := func() { mustBeat(t, s, &metasrvpb.HeartbeatRequest{Sequence: 2}) }
	beats()
	proposed := len(c.proposed)
	v.version = 2
	beats()
	beats()
	if r, _ := Registration(c.View(), 7); !r.KeepsLeases || len(c.proposed) != proposed+1 {
		t.Errorf("at version 2 %+v is recorded, by %d commands", r, len(c.proposed)-proposed)
	}
	if proposed != 1 {
		t.Errorf("at version 1 the node was registered %d times", proposed)
	}
}
