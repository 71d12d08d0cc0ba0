package router_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

const changeRegions = storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS

// change proposes changes and returns their results.
func (c *cluster) change(changes ...*storagepb.RegionChange) []*storagepb.RegionChangeResult {
	c.t.Helper()
	out, err := c.Propose(context.Background(), state.Proposal{Kind: changeRegions, Payload: &storagepb.ChangeRegions{Changes: changes}})
	if err != nil {
		c.t.Fatalf("%v: %v", changes, err)
	}
	result := &storagepb.ChangeRegionsResult{}
	if err := out.Decode(result); err != nil || len(result.Results) != len(changes) {
		c.t.Fatalf("%v: %v, %v", changes, result, err)
	}
	return result.Results
}

// refusalOf returns the error that a change was refused with, nil for one that was carried out.
func refusalOf(r *storagepb.RegionChangeResult) error {
	if r.Refusal == nil {
		return nil
	}
	return metasrv.ErrorOf(r.Refusal.Reason, r.Refusal.Message, r.Refusal.Field)
}

// to returns a change of a region as it is in a record.
func to(region *storagepb.RegionRecord, change any) *storagepb.RegionChange {
	c := &storagepb.RegionChange{RegionId: region.RegionId, LeaderEpoch: region.LeaderEpoch, ConfVersion: region.ConfVersion}
	switch change := change.(type) {
	case *storagepb.ElectReplica:
		c.Change = &storagepb.RegionChange_Elect{Elect: change}
	case *storagepb.BeginDemotion:
		c.Change = &storagepb.RegionChange_BeginDemotion{BeginDemotion: change}
	case *storagepb.SetInSync:
		c.Change = &storagepb.RegionChange_SetInSync{SetInSync: change}
	case *storagepb.AddReplica:
		c.Change = &storagepb.RegionChange_AddReplica{AddReplica: change}
	case *storagepb.RemoveReplica:
		c.Change = &storagepb.RegionChange_RemoveReplica{RemoveReplica: change}
	}
	return c
}

func (c *cluster) region(id metasrv.RegionID) *storagepb.RegionRecord {
	c.t.Helper()
	route, err := router.Route(c.View(), id.Table())
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	return route.Regions[id.Number()]
}

// The first region of the tests' table has replica 1 on node 1, which leads, 2 on node 2 and 3 on node 3, all in sync.
func threeReplicas(c *cluster, name string, options ...func(*storagepb.CreateTable)) *storagepb.RegionRecord {
	c.t.Helper()
	cmd := c.plan(name, 1, 1, 2)
	planned := cmd.Regions[0]
	planned.Replicas = append(planned.Replicas, &storagepb.PlannedReplica{NodeId: 3, Incarnation: c.incarnation(3)})
	for _, option := range options {
		option(cmd)
	}
	return c.must(commitTable, commitOf(c.must(createTable, cmd))).Route.Regions[0]
}

func unclean(cmd *storagepb.CreateTable) { cmd.UncleanFailover = true }

type regionCase struct {
	name   string
	unsafe bool // the table allows unclean failover
	// before are changes that must be carried out, each on the region as it is then.
	before []any
	nodes  func(*cluster)
	change any
	want   error
	// of the region afterwards, where the change is carried out.
	leader, epoch uint64
	inSync        []uint64
	learners      []uint64
	demoting      bool
	unchanged     bool
}

func TestChangeRegions(t *testing.T) {
	elect := func(id uint64, failed ...uint64) *storagepb.ElectReplica {
		return &storagepb.ElectReplica{ReplicaId: id, FailedReplicaIds: failed}
	}
	desperate := func(id uint64, failed ...uint64) *storagepb.ElectReplica {
		return &storagepb.ElectReplica{ReplicaId: id, FailedReplicaIds: failed, Unclean: true}
	}
	set := func(incarnation uint64, ids ...uint64) *storagepb.SetInSync {
		return &storagepb.SetInSync{ReplicaIds: ids, Incarnation: incarnation}
	}
	demote := &storagepb.BeginDemotion{}
	learner := &storagepb.AddReplica{NodeId: 4, Incarnation: 4}
	loses := func(id uint64) func(*cluster) { return func(c *cluster) { c.registerStorage(id, 1) } }
	legacy := func(id uint64) func(*cluster) { return func(c *cluster) { c.registerLegacy(id) } }
	leaves := func(id uint64) func(*cluster) { return func(c *cluster) { c.unregister(id) } }
	remove := func(id uint64) *storagepb.RemoveReplica { return &storagepb.RemoveReplica{ReplicaId: id} }
	for _, tc := range []regionCase{
		{name: "elect", change: elect(2, 1), leader: 2, epoch: 2, inSync: []uint64{2, 3}},
		{name: "transfer", change: elect(2), leader: 2, epoch: 2, inSync: []uint64{1, 2, 3}},
		{name: "elect the present leader", before: []any{demote}, change: elect(1), leader: 1, epoch: 2, inSync: []uint64{1, 2, 3}},
		{name: "elect after demotion", before: []any{demote}, change: elect(3), leader: 3, epoch: 2, inSync: []uint64{1, 2, 3}},
		{name: "elect a stranger", change: elect(9), want: metasrv.ErrReplicaNotFound},
		{name: "elect one that failed", change: elect(2, 1, 2), want: metasrv.ErrInvalidArgument},
		{name: "a stranger failed", change: elect(2, 9), want: metasrv.ErrReplicaNotFound},
		{name: "elect out of sync", before: []any{set(0, 1, 3)}, change: elect(2, 1, 3), want: metasrv.ErrReplicaNotInSync},
		{name: "elect unclean, not allowed", before: []any{set(0, 1, 3)}, change: desperate(2, 1, 3), want: metasrv.ErrReplicaNotInSync},
		{name: "elect out of sync, not asked to", unsafe: true, before: []any{set(0, 1, 3)}, change: elect(2, 1, 3), want: metasrv.ErrReplicaNotInSync},
		{name: "elect unclean", unsafe: true, before: []any{set(0, 1, 3)}, change: desperate(2, 1, 3), leader: 2, epoch: 2, inSync: []uint64{2}},
		{name: "elect unclean beside an in-sync one", unsafe: true, before: []any{set(0, 1, 3)}, change: desperate(2, 1), want: metasrv.ErrReplicaNotInSync},
		{name: "elect unclean beside a lost one", unsafe: true, before: []any{set(0, 1, 3)}, nodes: loses(3), change: desperate(2, 1), leader: 2, epoch: 2, inSync: []uint64{2}},
		{name: "elect unclean though it is in sync", unsafe: true, change: desperate(2, 1), leader: 2, epoch: 2, inSync: []uint64{2, 3}},
		{name: "elect a learner", unsafe: true, before: []any{learner}, change: desperate(4, 1, 2, 3), want: metasrv.ErrReplicaNotInSync},
		{name: "elect a lost one", nodes: loses(2), change: elect(2, 1), want: metasrv.ErrReplicaLost},
		{name: "elect a lost one, unclean", unsafe: true, nodes: loses(2), change: desperate(2, 1, 3), want: metasrv.ErrReplicaLost},
		{name: "elect while another is lost", nodes: loses(3), change: elect(2, 1), leader: 2, epoch: 2, inSync: []uint64{2}},
		{name: "elect while the leader is lost", nodes: loses(1), change: elect(2), leader: 2, epoch: 2, inSync: []uint64{2, 3}},
		{name: "elect the lost leader", nodes: loses(1), change: elect(1), want: metasrv.ErrReplicaLost},
		{name: "elect from a node without leases", nodes: legacy(1), change: elect(2, 1), want: metasrv.ErrNodeKeepsNoLease},
		{name: "elect to a node without leases", nodes: legacy(2), change: elect(2, 1), want: metasrv.ErrNodeKeepsNoLease},
		{name: "elect again on a node without leases", nodes: legacy(1), change: elect(1), leader: 1, epoch: 2, inSync: []uint64{1, 2, 3}},
		{name: "elect from a removed node", nodes: leaves(1), change: elect(2, 1), leader: 2, epoch: 2, inSync: []uint64{2, 3}},
		{name: "elect to a removed node", nodes: leaves(2), change: elect(2, 1), want: metasrv.ErrNodeNotFound},

		{name: "demote", change: demote, leader: 1, epoch: 1, inSync: []uint64{1, 2, 3}, demoting: true},
		{name: "demote twice", before: []any{demote}, change: demote, leader: 1, epoch: 1, inSync: []uint64{1, 2, 3}, demoting: true, unchanged: true},

		{name: "demote a leader without leases", nodes: legacy(1), change: demote, want: metasrv.ErrNodeKeepsNoLease},

		{name: "shrink", change: set(1, 1, 3), leader: 1, epoch: 1, inSync: []uint64{1, 3}},
		{name: "shrink by metasrv", change: set(0, 3, 1), leader: 1, epoch: 1, inSync: []uint64{1, 3}},
		{name: "shrink while demoting", before: []any{demote}, change: set(0, 1, 3), leader: 1, epoch: 1, inSync: []uint64{1, 3}, demoting: true},
		{name: "grow", before: []any{set(0, 1)}, change: set(1, 1, 2, 3), leader: 1, epoch: 1, inSync: []uint64{1, 2, 3}},
		{name: "grow by a learner", before: []any{learner}, change: set(1, 1, 2, 3, 4), leader: 1, epoch: 1, inSync: []uint64{1, 2, 3, 4}},
		{name: "grow by metasrv", before: []any{set(0, 1, 3)}, change: set(0, 1, 2, 3), want: metasrv.ErrReplicaNotInSync},
		{name: "same set", change: set(1, 3, 2, 1), leader: 1, epoch: 1, inSync: []uint64{1, 2, 3}, unchanged: true},
		{name: "empty set", change: set(1), want: metasrv.ErrInvalidArgument},
		{name: "set without the leader", change: set(1, 2, 3), want: metasrv.ErrInvalidArgument},
		{name: "set with one twice", change: set(1, 1, 2, 2), want: metasrv.ErrInvalidArgument},
		{name: "set with a stranger", change: set(1, 1, 9), want: metasrv.ErrReplicaNotFound},
		{name: "set with a lost one", nodes: loses(2), change: set(0, 1, 2), want: metasrv.ErrReplicaLost},
		{name: "set without the lost one", nodes: loses(2), change: set(0, 1, 3), leader: 1, epoch: 1, inSync: []uint64{1, 3}},
		{name: "set with the lost leader", nodes: loses(1), change: set(0, 1, 2), want: metasrv.ErrReplicaLost},
		{name: "set by another incarnation", change: set(2, 1, 3), want: metasrv.ErrStaleIncarnation},
		{name: "set by the incarnation before", nodes: func(c *cluster) { c.register(1) }, change: set(1, 1, 3), want: metasrv.ErrStaleIncarnation},
		{name: "set by a removed node", nodes: leaves(1), change: set(1, 1, 3), want: metasrv.ErrNodeNotFound},
		{name: "set of a leader without leases", nodes: legacy(1), change: set(0, 1, 3), want: metasrv.ErrNodeKeepsNoLease},

		{name: "add", change: learner, leader: 1, epoch: 1, inSync: []uint64{1, 2, 3}, learners: []uint64{4}},
		{name: "add where one is", change: &storagepb.AddReplica{NodeId: 2, Incarnation: 2}, want: metasrv.ErrReplicaExists},
		{name: "add on a node that is gone", nodes: leaves(4), change: learner, want: metasrv.ErrNodeNotFound},
		{name: "add on a node that registered anew", nodes: func(c *cluster) { c.register(4) }, change: learner, want: metasrv.ErrStaleIncarnation},
		{name: "add on a node without leases", nodes: legacy(4), change: &storagepb.AddReplica{NodeId: 4, Incarnation: 5}, want: metasrv.ErrNodeKeepsNoLease},
		{name: "add under a leader without leases", nodes: legacy(1), change: learner, want: metasrv.ErrNodeKeepsNoLease},

		{name: "remove", change: remove(2), leader: 1, epoch: 1, inSync: []uint64{1, 3}},
		{name: "remove a learner", before: []any{learner}, change: remove(4), leader: 1, epoch: 1, inSync: []uint64{1, 2, 3}},
		{name: "remove a lost one", nodes: loses(3), change: remove(3), leader: 1, epoch: 1, inSync: []uint64{1, 2}},
		{name: "remove the leader", change: remove(1), want: metasrv.ErrReplicaLeads},
		{name: "remove the last that is not lost", before: []any{set(0, 1, 2)}, nodes: loses(1), change: remove(2), want: metasrv.ErrLastReplica},
		{name: "remove the last on a registered node", before: []any{set(0, 1, 2)}, nodes: leaves(1), change: remove(2), want: metasrv.ErrLastReplica},
		{name: "remove what is not in sync beside the lost leader", before: []any{set(0, 1, 2)}, nodes: loses(1), change: remove(3), leader: 1, epoch: 1, inSync: []uint64{1, 2}},
		{name: "remove a stranger", change: remove(9), want: metasrv.ErrReplicaNotFound},
		{name: "nothing", change: nil, want: metasrv.ErrInvalidArgument},
	} {
		t.Run(tc.name, func(t *testing.T) { checkRegionCase(t, tc) })
	}
}

func checkRegionCase(t *testing.T, tc regionCase) {
	c := clusterFor(t)
	var options []func(*storagepb.CreateTable)
	if tc.unsafe {
		options = append(options, unclean)
	}
	before := threeReplicas(c, "t", options...)
	id := metasrv.RegionID(before.RegionId)
	for _, change := range tc.before {
		if err := refusalOf(c.change(to(c.region(id), change))[0]); err != nil {
			t.Fatalf("%v: %v", change, err)
		}
	}
	if tc.nodes != nil {
		tc.nodes(c)
	}
	before = c.region(id)
	route, _ := router.Route(c.View(), id.Table())
	revision := c.View().Revision()
	result := c.change(to(before, tc.change))[0]
	after := c.region(id)
	if !proto.Equal(result.Region, after) {
		t.Errorf("the result has region %v, the state %v", result.Region, after)
	}
	if tc.want != nil || tc.unchanged {
		if err := refusalOf(result); !errors.Is(err, tc.want) {
			t.Errorf("refused with %v, want %v", err, tc.want)
		}
		if !proto.Equal(before, after) || c.View().Revision() != revision {
			t.Errorf("it changed %v to %v", before, after)
		}
		if tc.want != nil {
			return
		}
	} else if err := refusalOf(result); err != nil || after.ConfVersion != before.ConfVersion+1 {
		t.Fatalf("refused with %v, conf_version went from %d to %d", err, before.ConfVersion, after.ConfVersion)
	} else if now, _ := router.Route(c.View(), id.Table()); now.RouteVersion != route.RouteVersion+1 {
		t.Errorf("the version of the route went from %d to %d", route.RouteVersion, now.RouteVersion)
	}
	var inSync, learners []uint64
	for _, r := range after.Replicas {
		if r.InSync {
			inSync = append(inSync, r.ReplicaId)
		}
		if r.Learner {
			learners = append(learners, r.ReplicaId)
		}
	}
	if after.LeaderReplicaId != tc.leader || after.LeaderEpoch != tc.epoch || after.Demoting != tc.demoting ||
		!slices.Equal(inSync, tc.inSync) || !slices.Equal(learners, tc.learners) {
		t.Errorf("the region is %v", after)
	}
}

// Rule 19: whatever was planned on another leader_epoch or conf_version changes nothing.
func TestStaleChange(t *testing.T) {
	c := clusterFor(t)
	region := threeReplicas(c, "t")
	id := metasrv.RegionID(region.RegionId)
	for _, change := range []any{
		&storagepb.ElectReplica{ReplicaId: 2}, &storagepb.BeginDemotion{}, &storagepb.SetInSync{ReplicaIds: []uint64{1}},
		&storagepb.AddReplica{NodeId: 4, Incarnation: 4}, &storagepb.RemoveReplica{ReplicaId: 2},
	} {
		for _, offset := range [][2]uint64{{1, 0}, {^uint64(0), 0}, {0, 1}, {0, ^uint64(0)}, {1, 1}} {
			stale := to(region, change)
			stale.LeaderEpoch += offset[0]
			stale.ConfVersion += offset[1]
			revision := c.View().Revision()
			result := c.change(stale)[0]
			if err := refusalOf(result); !errors.Is(err, metasrv.ErrRegionChanged) {
				t.Errorf("%v at %d, %d: %v", change, stale.LeaderEpoch, stale.ConfVersion, err)
			}
			if c.View().Revision() != revision || !proto.Equal(result.Region, c.region(id)) {
				t.Errorf("%v at %d, %d changed the state, or was answered with another one", change, stale.LeaderEpoch, stale.ConfVersion)
			}
		}
	}
}

// Rule 24: nothing moves regions of a table that is not PUBLIC.
func TestOnlyRegionsOfPublicTablesChange(t *testing.T) {
	c := clusterFor(t)
	creation := c.create("creating", 1, 1, 2)
	aborted := c.create("aborting", 1, 1, 2)
	c.must(abortTable, abortOf(aborted))
	dropped := c.public("dropping", 1, 1, 2)
	c.must(dropTable, dropOf("dropping"))
	for _, r := range []router.Record{creation, aborted, dropped} {
		before := c.region(metasrv.RegionID(r.Route.Regions[0].RegionId))
		err := refusalOf(c.change(to(before, &storagepb.ElectReplica{ReplicaId: before.Replicas[1].ReplicaId}))[0])
		if !errors.Is(err, metasrv.ErrRegionNotFound) || !proto.Equal(before, c.region(metasrv.RegionID(before.RegionId))) {
			t.Errorf("%s: %v", catalog.Name(r.Table), err)
		}
	}
	for _, id := range []uint64{0, 99 << 32, creation.Route.Regions[0].RegionId + 1} {
		if err := refusalOf(c.change(&storagepb.RegionChange{RegionId: id})[0]); !errors.Is(err, metasrv.ErrRegionNotFound) {
			t.Errorf("region %d: %v", id, err)
		}
	}
}

// Each change of a batch is carried out or refused by itself, and sees those before it.
func TestBatchOfChanges(t *testing.T) {
	c := clusterFor(t)
	one, other := threeReplicas(c, "one"), c.public("other", 3, 1, 2).Route.Regions
	again := to(one, &storagepb.ElectReplica{ReplicaId: 3})
	again.LeaderEpoch, again.ConfVersion = again.LeaderEpoch+1, again.ConfVersion+1
	revision := c.View().Revision()
	results := c.change(
		to(one, &storagepb.ElectReplica{ReplicaId: 2}),
		to(one, &storagepb.ElectReplica{ReplicaId: 3}), // stale by then
		again,
		to(other[0], &storagepb.BeginDemotion{}),
		to(other[1], &storagepb.RemoveReplica{ReplicaId: other[1].LeaderReplicaId}), // refused
		to(other[2], &storagepb.BeginDemotion{}),
	)
	for i, want := range []error{nil, metasrv.ErrRegionChanged, nil, nil, metasrv.ErrReplicaLeads, nil} {
		if err := refusalOf(results[i]); !errors.Is(err, want) {
			t.Errorf("change %d: %v, want %v", i, err, want)
		}
	}
	if r := c.region(metasrv.RegionID(one.RegionId)); r.LeaderEpoch != 3 || r.LeaderReplicaId != 3 {
		t.Errorf("region %v", r)
	}
	for i, r := range other {
		if got := c.region(metasrv.RegionID(r.RegionId)); got.Demoting != (i != 1) {
			t.Errorf("region %d of the other table: %v", i, got)
		}
	}
	if now := c.View().Revision(); now != revision+1 {
		t.Errorf("one command made the revision go from %d to %d", revision, now)
	}
	many := &storagepb.ChangeRegions{Changes: make([]*storagepb.RegionChange, router.MaxRegionChanges+1)}
	for i := range many.Changes {
		many.Changes[i] = &storagepb.RegionChange{}
	}
	c.refuse(metasrv.ErrInvalidArgument, changeRegions, many)
}

// Until every member knows them, changes of regions and what came with them are refused before the log.
func TestChangesNeedTheirVersion(t *testing.T) {
	c := &cluster{memory.NewAt(1, catalog.NewApplier(), router.NewApplier(registered), nodes{}), t}
	for name, payload := range map[string]proto.Message{
		"change": &storagepb.ChangeRegions{}, "replicas": &storagepb.CreateTable{Replicas: 2}, "unclean": &storagepb.CreateTable{UncleanFailover: true},
	} {
		kind := createTable
		if name == "change" {
			kind = changeRegions
		}
		if _, err := c.propose(kind, payload); !errors.Is(err, metasrv.ErrClusterVersion) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := c.propose(createTable, &storagepb.CreateTable{}); errors.Is(err, metasrv.ErrClusterVersion) {
		t.Errorf("a creation without them: %v", err)
	}
}

// What a table wants is remembered before its replicas are no longer as many, and a record is not made larger without need.
func TestWantedReplicasAreRemembered(t *testing.T) {
	c := clusterFor(t)
	asked := c.plan("asked", 1, 1, 2)
	asked.Replicas = 2
	if r := c.must(createTable, asked); r.Route.Replicas != 2 {
		t.Errorf("2 replicas were asked for, recorded are %d", r.Route.Replicas)
	}
	region := threeReplicas(c, "t")
	id := metasrv.RegionID(region.RegionId)
	wanted := func() uint32 {
		route, err := router.Route(c.View(), id.Table())
		if err != nil {
			t.Fatal(err)
		}
		return route.Replicas
	}
	c.change(to(c.region(id), &storagepb.ElectReplica{ReplicaId: 2, FailedReplicaIds: []uint64{1}}))
	if n := wanted(); n != 0 {
		t.Errorf("%d are recorded, though it still has as many as it was created with", n)
	}
	c.change(to(c.region(id), &storagepb.RemoveReplica{ReplicaId: region.Replicas[2].ReplicaId}))
	if n := wanted(); n != 3 {
		t.Errorf("%d are recorded, it was created with 3", n)
	}
}
