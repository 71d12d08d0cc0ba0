package procedure_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// cluster is a state with procedures in it; what they have done elsewhere is written down under keys of its own.
type cluster struct {
	*memory.Node
	t *testing.T
}

// outside stands for the packages that procedures change.
func outside() procedure.Effects {
	return procedure.Effects{
		ChangeRegions: func(tx state.Tx, cmd *storagepb.ChangeRegions) (*storagepb.ChangeRegionsResult, error) {
			c, result := cmd.Changes[0], &storagepb.RegionChangeResult{}
			if c.LeaderEpoch != 5 {
				result.Refusal = &storagepb.Refusal{Reason: metasrv.ErrRegionChanged.Reason, Message: "changed"}
			} else if c.GetAddReplica() != nil {
				result.ReplicaId = 33
			}
			tx.Put("changed", []byte("x"))
			return &storagepb.ChangeRegionsResult{Results: []*storagepb.RegionChangeResult{result}}, nil
		},
		SetDrain: func(tx state.Tx, id metasrv.NodeID, drain metasrvpb.NodeDrain) (metasrvpb.NodeDrain, error) {
			if id == 404 {
				return 0, metasrv.ErrNodeNotFound.With("no")
			}
			before, _ := tx.Get("drain/" + id.String())
			tx.Put("drain/"+id.String(), []byte(drain.String()))
			return metasrvpb.NodeDrain(metasrvpb.NodeDrain_value[string(before)]), nil
		},
		RemoveNode:  func(tx state.Tx, id metasrv.NodeID) error { tx.Put("removed/"+id.String(), []byte("x")); return nil },
		NodeRemoved: func(state.Tx, metasrv.NodeID) error { return nil },
		SetReplicas: func(tx state.Tx, _ metasrv.TableID, n uint32) (uint32, error) {
			tx.Put("replicas", []byte{byte(n)})
			return 2, nil
		},
	}
}

func newCluster(t *testing.T) cluster {
	return cluster{memory.New(procedure.NewApplier(outside()), adopter{}), t}
}

func (c cluster) propose(kind storagepb.CommandKind, cmd proto.Message) (*storagepb.ProcedureRecord, error) {
	c.t.Helper()
	before := c.View().Revision()
	r, err := c.Propose(context.Background(), state.Proposal{Kind: kind, Payload: cmd})
	if err != nil {
		if c.View().Revision() != before {
			c.t.Errorf("%s was refused (%v), but changed the state", kind, err)
		}
		return nil, err
	}
	result := &storagepb.ProcedureResult{}
	err = r.Decode(result)
	return result.Procedure, err
}

func (c cluster) create(spec *storagepb.ProcedureSpec) (*storagepb.ProcedureRecord, error) {
	c.t.Helper()
	return c.propose(storagepb.CommandKind_COMMAND_KIND_CREATE_PROCEDURE, &storagepb.CreateProcedure{Spec: spec, Step: procedure.FirstStep(spec.Kind)})
}

func (c cluster) mustCreate(spec *storagepb.ProcedureSpec) uint64 {
	c.t.Helper()
	r, err := c.create(spec)
	if err != nil {
		c.t.Fatal(err)
	}
	return r.Id
}

func (c cluster) get(id uint64) *storagepb.ProcedureRecord {
	c.t.Helper()
	r, err := procedure.Get(c.View(), id)
	if err != nil {
		c.t.Fatal(err)
	}
	return r
}

func (c cluster) step(id, version uint64, s metasrvpb.ProcedureState, change *storagepb.RegionChange) error {
	_, err := c.propose(storagepb.CommandKind_COMMAND_KIND_STEP_PROCEDURE, &storagepb.StepProcedure{
		Id: id, Version: version, State: s, Step: atCatchUp, Change: change, StepTimeoutMs: 9,
	})
	return err
}

func (c cluster) cancel(id uint64) error {
	_, err := c.propose(storagepb.CommandKind_COMMAND_KIND_CANCEL_PROCEDURE, &storagepb.CancelProcedure{Id: id, Reason: "why not"})
	return err
}

func (c cluster) want(err, want error) {
	c.t.Helper()
	if !errors.Is(err, want) {
		c.t.Errorf("got %v, want %v", err, want)
	}
}

func (c cluster) value(key string) string {
	v, _ := c.View().Get(key)
	return string(v)
}

func specOf(region uint64) *storagepb.ProcedureSpec {
	return &storagepb.ProcedureSpec{Kind: add, RegionId: region, TargetNodeId: 3}
}

// A step and the change of the region are one: both or neither.
func TestStep(t *testing.T) {
	c := newCluster(t)
	id := c.mustCreate(specOf(1))
	addition := func(epoch uint64) *storagepb.RegionChange {
		return &storagepb.RegionChange{LeaderEpoch: epoch, Change: &storagepb.RegionChange_AddReplica{AddReplica: &storagepb.AddReplica{}}}
	}
	c.want(c.step(id, 2, running, addition(5)), metasrv.ErrProcedureChanged)
	c.want(c.step(id, 1, running, addition(4)), metasrv.ErrRegionChanged)
	if r := c.get(id); r.Version != 1 || r.Step != atAdd || c.value("changed") != "" {
		t.Errorf("after refusals: %v", r)
	}
	c.want(c.step(id, 1, running, addition(5)), nil)
	if r := c.get(id); r.Version != 2 || r.Step != atCatchUp || r.TargetReplicaId != 33 || r.StepTimeoutMs != 9 || c.value("changed") == "" {
		t.Errorf("after the step: %v", r)
	}
	c.want(c.step(id, 1, running, addition(5)), metasrv.ErrProcedureChanged)
	c.want(c.step(99, 1, running, nil), metasrv.ErrProcedureNotFound)
	c.want(c.step(id, 2, done, nil), nil)
	c.want(c.step(id, 3, done, nil), metasrv.ErrProcedureEnded)
	c.want(c.cancel(id), metasrv.ErrProcedureEnded)
}

// A procedure has its locks from the command that creates it until the one that ends it.
func TestLocks(t *testing.T) {
	c := newCluster(t)
	drain := &storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: 1}
	resize := &storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS, TableId: 1, Replicas: 3}
	for _, spec := range []*storagepb.ProcedureSpec{specOf(1), drain, resize} {
		id := c.mustCreate(spec)
		_, err := c.create(spec)
		c.want(err, metasrv.ErrProcedureConflict)
		c.want(c.cancel(id), nil)
		_, err = c.create(spec)
		c.want(err, metasrv.ErrProcedureConflict)
		c.want(c.step(id, c.get(id).Version, cancelled, nil), nil)
		if id = c.mustCreate(spec); procedure.OfRegion(c.View(), 1)+procedure.OfNode(c.View(), 1)+procedure.OfTable(c.View(), 1) != id {
			t.Errorf("procedure %d has no lock", id)
		}
		c.want(c.step(id, 1, done, nil), nil)
	}
	for _, spec := range []*storagepb.ProcedureSpec{
		{}, {Kind: add}, {Kind: migrate, RegionId: 1, TargetNodeId: 2}, {Kind: transfer, RegionId: 1}, {Kind: remove, RegionId: 1},
		{Kind: drain.Kind}, {Kind: resize.Kind, TableId: 1},
	} {
		_, err := c.create(spec)
		c.want(err, metasrv.ErrInvalidArgument)
	}
	_, err := c.create(&storagepb.ProcedureSpec{Kind: drain.Kind, NodeId: 404})
	c.want(err, metasrv.ErrNodeNotFound)
	if procedure.AnyRunning(c.View()) {
		t.Error("something runs")
	}
}

// A procedure is cancelled together with its parts, and gets no new ones.
func TestCancelParts(t *testing.T) {
	c := newCluster(t)
	drain := c.mustCreate(&storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: 1})
	part := func(region uint64) *storagepb.ProcedureSpec {
		s := specOf(region)
		s.ParentId = drain
		return s
	}
	first, late, other := c.mustCreate(part(1)), c.mustCreate(part(2)), c.mustCreate(specOf(3))
	if _, err := c.propose(storagepb.CommandKind_COMMAND_KIND_STEP_PROCEDURE, &storagepb.StepProcedure{
		Id: late, Version: 1, State: running, Step: atPromotion,
	}); err != nil {
		t.Fatal(err)
	}
	c.want(c.cancel(late), metasrv.ErrProcedureEnded)
	c.want(c.cancel(drain), nil)
	for id, want := range map[uint64]metasrvpb.ProcedureState{drain: rollingBack, first: rollingBack, late: running, other: running} {
		if r := c.get(id); r.State != want || want == rollingBack && (!r.Cancelled || r.Error != "why not" || r.Step != atUndo) {
			t.Errorf("procedure %d is %v", id, r)
		}
	}
	_, err := c.create(part(4))
	c.want(err, metasrv.ErrProcedureEnded)
	version := c.get(drain).Version
	c.want(c.cancel(drain), nil)
	if c.get(drain).Version != version {
		t.Error("cancelled again, it changed")
	}
	c.want(c.step(drain, version, cancelled, nil), nil)
	if got := c.value("drain/1"); got != "NODE_DRAIN_UNSPECIFIED" {
		t.Errorf("the node is %s", got)
	}
}

func TestEffects(t *testing.T) {
	c := newCluster(t)
	id := c.mustCreate(&storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: 1})
	if got := c.value("drain/1"); got != "NODE_DRAIN_DRAINING" {
		t.Errorf("the node is %s", got)
	}
	c.want(c.step(id, 1, done, nil), nil)
	if got := c.value("drain/1"); got != "NODE_DRAIN_DRAINED" {
		t.Errorf("the node is %s", got)
	}
	id = c.mustCreate(&storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE, NodeId: 1})
	c.want(c.step(id, 1, done, nil), nil)
	if c.value("removed/1") == "" {
		t.Error("the node is there")
	}
	id = c.mustCreate(&storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_SET_REPLICAS, TableId: 1, Replicas: 5})
	if c.value("replicas") != "\x05" {
		t.Errorf("the table has %q replicas", c.value("replicas"))
	}
	c.want(c.step(id, 1, failed, nil), nil)
	if c.value("replicas") != "\x02" {
		t.Errorf("after the failure, the table has %q replicas", c.value("replicas"))
	}
}

// What is taken back leaves a node drained that was, unless it is to get replicas again.
func TestDrainedBefore(t *testing.T) {
	removal := &storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_REMOVE_NODE, NodeId: 1}
	drain := &storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: 1}
	for name, test := range map[string]struct {
		before  bool
		spec    *storagepb.ProcedureSpec
		cancels []bool // with undrain?
		want    metasrvpb.NodeDrain
	}{
		"a removal":                     {true, removal, []bool{false}, metasrvpb.NodeDrain_NODE_DRAIN_DRAINED},
		"a drain":                       {true, drain, []bool{false}, metasrvpb.NodeDrain_NODE_DRAIN_DRAINED},
		"of a node that was not":        {false, removal, []bool{false}, metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED},
		"to get replicas":               {true, removal, []bool{true}, metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED},
		"to get replicas, afterthought": {true, removal, []bool{false, true, true}, metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED},
	} {
		c := newCluster(t)
		if test.before {
			c.want(c.step(c.mustCreate(drain), 1, done, nil), nil)
		}
		id := c.mustCreate(test.spec)
		for _, undrain := range test.cancels {
			_, err := c.propose(storagepb.CommandKind_COMMAND_KIND_CANCEL_PROCEDURE, &storagepb.CancelProcedure{Id: id, Undrain: undrain})
			c.want(err, nil)
		}
		c.want(c.step(id, c.get(id).Version, cancelled, nil), nil)
		if got := c.value("drain/1"); got != test.want.String() {
			t.Errorf("%s: the node is %s, want %s", name, got, test.want)
		}
	}
}

// The last procedures that ended are remembered, and no more than some run at once.
func TestBounds(t *testing.T) {
	c := newCluster(t)
	for region := range uint64(procedure.KeptEnded + 5) {
		c.want(c.step(c.mustCreate(specOf(region+1)), 1, done, nil), nil)
	}
	n, first := 0, uint64(0)
	for r, err := range procedure.Ended(c.View()) {
		if err != nil {
			t.Fatal(err)
		}
		if n++; first == 0 {
			first = r.Id
		}
	}
	if n != procedure.KeptEnded || first != 6 {
		t.Errorf("%d are remembered from %d on", n, first)
	}
	for region := range uint64(procedure.MaxRunning) {
		if _, err := c.create(specOf(region + 1)); err != nil {
			t.Fatal(err)
		}
	}
	_, err := c.create(specOf(5000))
	c.want(err, metasrv.ErrTooManyProcedures)
}

// A drain that had more parts than procedures are remembered is found when it has ended.
func TestPartsAreForgottenFirst(t *testing.T) {
	c := newCluster(t)
	drain := c.mustCreate(&storagepb.ProcedureSpec{Kind: metasrvpb.ProcedureKind_PROCEDURE_KIND_DRAIN_NODE, NodeId: 1})
	for region := range uint64(procedure.KeptEnded + 5) {
		part := specOf(region + 1)
		part.ParentId = drain
		c.want(c.step(c.mustCreate(part), 1, done, nil), nil)
	}
	c.want(c.step(drain, 1, done, nil), nil)
	c.get(drain)
	c.want(c.step(c.mustCreate(specOf(1)), 1, done, nil), nil)
	c.get(drain)
}

// In a restored state nothing goes on: the regions may be far ahead of it.
func TestAdopt(t *testing.T) {
	c := newCluster(t)
	id := c.mustCreate(specOf(1))
	if _, err := c.Propose(context.Background(), state.Proposal{Kind: adoptKind, Payload: &storagepb.CreateTable{}}); err != nil {
		t.Fatal(err)
	}
	if r := c.get(id); r.State != failed || procedure.AnyRunning(c.View()) || procedure.OfRegion(c.View(), 1) != 0 {
		t.Errorf("after a restore: %v", r)
	}
	if next := c.mustCreate(specOf(1)); next < 1<<40 {
		t.Errorf("the next one is %d", next)
	}
}

const adoptKind = storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE

// adopter stands for the restore of a state.
type adopter struct{}

func (adopter) Kinds() []storagepb.CommandKind { return []storagepb.CommandKind{adoptKind} }

func (adopter) Apply(tx state.Tx, _ storagepb.CommandKind, _ []byte) (proto.Message, error) {
	return &storagepb.ProcedureResult{}, procedure.Adopt(tx)
}
