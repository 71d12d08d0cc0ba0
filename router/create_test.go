package router_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router"
)

func TestCreateReserves(t *testing.T) {
	c := newCluster(t)
	c.Advance(3 * time.Second)
	got := c.create("t", 2, 1, 2)
	region := func(number uint32, leader, follower *storagepb.ReplicaRecord) *storagepb.RegionRecord {
		return &storagepb.RegionRecord{
			RegionId: uint64(metasrv.NewRegionID(1024, number)), PartitionNumber: number, LeaderEpoch: 1, ConfVersion: 1,
			LeaderReplicaId: leader.ReplicaId, Replicas: []*storagepb.ReplicaRecord{leader, follower},
		}
	}
	want := &storagepb.RouteRecord{TableId: 1024, RouteVersion: 1, Regions: []*storagepb.RegionRecord{
		region(0, &storagepb.ReplicaRecord{ReplicaId: 1, NodeId: 1, PlannedIncarnation: 1}, &storagepb.ReplicaRecord{ReplicaId: 2, NodeId: 2, PlannedIncarnation: 2}),
		region(1, &storagepb.ReplicaRecord{ReplicaId: 3, NodeId: 2, PlannedIncarnation: 2}, &storagepb.ReplicaRecord{ReplicaId: 4, NodeId: 1, PlannedIncarnation: 1}),
	}}
	if diff := cmp.Diff(want, got.Route, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if got.Table.Id != 1024 || got.Table.State != creating || got.Table.CreationDeadlineMs != 4000 {
		t.Errorf("table = %v", got.Table)
	}
	stored, err := router.Route(c.View(), 1024)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, stored, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	if next := router.NextReplicaID(c.View()); next != 5 {
		t.Errorf("next replica id %d, want 5", next)
	}
	if _, err := router.Find(c.View(), named("t")); err == nil {
		t.Error("a table being created is routed")
	}
}

func TestCreateCommittedIsPublicAtOnce(t *testing.T) {
	c := newCluster(t)
	cmd := c.plan("t", 1, 1, 2)
	cmd.Commit = true
	got := c.must(createTable, cmd)
	if got.Table.State != public {
		t.Errorf("state = %s, want PUBLIC", got.Table.State)
	}
	for _, replica := range got.Route.Regions[0].Replicas {
		if !replica.InSync {
			t.Errorf("replica %v is not in sync", replica)
		}
	}
	if _, err := router.Find(c.View(), named("t")); err != nil {
		t.Error(err)
	}
}

func TestCreateRefusals(t *testing.T) {
	tests := []struct {
		name   string
		before func(*cluster)
		change func(*storagepb.CreateTable)
		want   error
		names  string
	}{
		{"unknown catalog", nil, func(cmd *storagepb.CreateTable) { cmd.Name.CatalogName = "x" }, metasrv.ErrCatalogNotFound, `"x"`},
		{"unknown schema", nil, func(cmd *storagepb.CreateTable) { cmd.Name.SchemaName = "x" }, metasrv.ErrSchemaNotFound, `"x"`},
		{"existing table", func(c *cluster) { c.public("t", 1, 1) }, nil, metasrv.ErrTableExists, "c.s.t"},
		{"table being created", func(c *cluster) { c.create("t", 1, 1) }, nil, metasrv.ErrTableExists, "is being created"},
		{"node registered anew", func(c *cluster) { c.register(2) }, nil, metasrv.ErrStaleIncarnation, "node 2 "},
		{"node gone", func(c *cluster) { c.unregister(2) }, nil, metasrv.ErrStaleIncarnation, "node 2 "},
		{"no regions", nil, func(cmd *storagepb.CreateTable) { cmd.Regions, cmd.PartitionRule = nil, nil }, metasrv.ErrInvalidArgument, "regions"},
		{"fewer regions than partitions", nil, func(cmd *storagepb.CreateTable) { cmd.Regions = cmd.Regions[:1] }, metasrv.ErrInvalidArgument, "regions"},
		{"no replicas", nil, func(cmd *storagepb.CreateTable) { cmd.Regions[1].Replicas = nil }, metasrv.ErrInvalidArgument, "regions[1].replicas"},
		{"a node twice", nil, func(cmd *storagepb.CreateTable) { cmd.Regions[1].Replicas[1] = cmd.Regions[1].Replicas[0] }, metasrv.ErrInvalidArgument, "regions[1].replicas"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			cmd := c.plan("t", 2, 1, 2)
			if tt.before != nil {
				tt.before(c)
			}
			if tt.change != nil {
				tt.change(cmd)
			}
			tables, ids := catalog.NextTableID(c.View()), router.NextReplicaID(c.View())
			if err := c.refuse(tt.want, createTable, cmd); !strings.Contains(err.Error(), tt.names) {
				t.Errorf("message %q doesn't say %s", err, tt.names)
			}
			if catalog.NextTableID(c.View()) != tables || router.NextReplicaID(c.View()) != ids {
				t.Error("a refused creation used up ids")
			}
		})
	}
}

func TestCommitMakesPublic(t *testing.T) {
	c := newCluster(t)
	cmd := commitOf(c.create("t", 2, 1, 2))
	cmd.Schema = schema()
	cmd.Schema.Columns = append(cmd.Schema.Columns, &metasrvpb.Column{Name: "v", Type: metasrvpb.DataType_DATA_TYPE_BOOL})
	got := c.must(commitTable, cmd)
	if got.Table.State != public || got.Table.SchemaVersion != 2 || got.Route.RouteVersion != 2 {
		t.Errorf("table %v, route version %d", got.Table, got.Route.RouteVersion)
	}
	for _, region := range got.Route.Regions {
		if region.LeaderEpoch != 1 || region.ConfVersion != 2 {
			t.Errorf("epoch %d, conf version %d, want 1 and 2", region.LeaderEpoch, region.ConfVersion)
		}
		for _, replica := range region.Replicas {
			if !replica.InSync {
				t.Errorf("replica %v is not in sync", replica)
			}
		}
	}
	found, err := router.Find(c.View(), named("t"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(got, found, protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
}

// The answer of a commit can be lost: the token says that the retry belongs to the same creation.
func TestCommitAndAbortAreIdempotent(t *testing.T) {
	c := newCluster(t)
	for kind, cmd := range map[storagepb.CommandKind]proto.Message{
		commitTable: commitOf(c.create("committed", 2, 1, 2)),
		abortTable:  abortOf(c.create("aborted", 2, 1, 2)),
	} {
		first := c.must(kind, cmd)
		before := c.View().Revision()
		second := c.must(kind, cmd)
		if diff := cmp.Diff(first, second, protocmp.Transform()); diff != "" {
			t.Errorf("second %s: %s", kind, diff)
		}
		if after := c.View().Revision(); after != before {
			t.Errorf("second %s changed the state", kind)
		}
	}
}

// Rule 24: in-sync replicas are those that the planned incarnations created, and those are still there.
func TestCommitRefusals(t *testing.T) {
	tests := []struct {
		name   string
		before func(*cluster)
		change func(*storagepb.CommitTable)
		want   error
		names  string
	}{
		{"replica missing", nil, func(cmd *storagepb.CommitTable) { cmd.Replicas = cmd.Replicas[1:] }, metasrv.ErrReplicaNotCreated, "replica 1 of region 1024/0 on node 1"},
		{"other node", nil, func(cmd *storagepb.CommitTable) { cmd.Replicas[1].NodeId = 3 }, metasrv.ErrReplicaNotCreated, "created on node 3"},
		{"other region", nil, func(cmd *storagepb.CommitTable) { cmd.Replicas[1].RegionId++ }, metasrv.ErrReplicaNotCreated, "region 1024/1"},
		{"other incarnation", nil, func(cmd *storagepb.CommitTable) { cmd.Replicas[1].Incarnation = 77 }, metasrv.ErrReplicaNotCreated, "incarnation 77"},
		{"node registered anew", func(c *cluster) { c.register(2) }, nil, metasrv.ErrReplicaNotCreated, "registered anew"},
		{"registered anew, created by the new one", func(c *cluster) { c.register(2) }, func(cmd *storagepb.CommitTable) {
			cmd.Replicas[1].Incarnation = 5
		}, metasrv.ErrReplicaNotCreated, "incarnation 5"},
		{"node gone", func(c *cluster) { c.unregister(2) }, nil, metasrv.ErrReplicaNotCreated, "no longer registered"},
		{"unknown replica", nil, func(cmd *storagepb.CommitTable) {
			cmd.Replicas = append(cmd.Replicas, &storagepb.CommittedReplica{ReplicaId: 99})
		}, metasrv.ErrInvalidArgument, "99"},
		{"wrong token", nil, func(cmd *storagepb.CommitTable) { cmd.CreationToken++ }, metasrv.ErrCreationEnded, "token"},
		{"unknown table", nil, func(cmd *storagepb.CommitTable) { cmd.TableId = 5000 }, metasrv.ErrCreationEnded, "5000"},
		{"other partition column", nil, func(cmd *storagepb.CommitTable) {
			cmd.Schema = schema()
			cmd.Schema.Columns[0].Type = metasrvpb.DataType_DATA_TYPE_INT64
		}, metasrv.ErrInvalidArgument, "host"},
		{"dropped", func(c *cluster) {
			cmd := commitOf(router.Record{Table: mustTable(c, 1024), Route: mustRoute(c, 1024)})
			c.must(commitTable, cmd)
			c.must(dropTable, dropOf("t"))
		}, nil, metasrv.ErrCreationEnded, "was dropped"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c := newCluster(t)
			cmd := commitOf(c.create("t", 2, 1, 2))
			if tt.before != nil {
				tt.before(c)
			}
			if tt.change != nil {
				tt.change(cmd)
			}
			if err := c.refuse(tt.want, commitTable, cmd); !strings.Contains(err.Error(), tt.names) {
				t.Errorf("message %q doesn't say %s", err, tt.names)
			}
		})
	}
}

// Rule 24: after an abort, a late commit fails, whether the records are still there, gone, or another table has
// taken the name.
func TestLateCommit(t *testing.T) {
	c := newCluster(t)
	created := c.create("t", 1, 1, 2)
	c.must(abortTable, abortOf(created))
	if err := c.refuse(metasrv.ErrCreationEnded, commitTable, commitOf(created)); !strings.Contains(err.Message, "a test") {
		t.Errorf("message %q doesn't say why", err)
	}
	again := c.create("t", 1, 1, 2)
	c.refuse(metasrv.ErrCreationEnded, commitTable, commitOf(created))
	c.must(confirmDropped, c.confirmOf(created, 1))
	c.must(confirmDropped, c.confirmOf(created, 2))
	c.refuse(metasrv.ErrCreationEnded, commitTable, commitOf(created))
	c.refuse(metasrv.ErrCreationEnded, abortTable, abortOf(created))
	c.must(commitTable, commitOf(again))
	c.refuse(metasrv.ErrCreationEnded, abortTable, abortOf(again))
}

func mustTable(c *cluster, id metasrv.TableID) *storagepb.TableRecord {
	table, err := catalog.GetTable(c.View(), id)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	return table
}

func mustRoute(c *cluster, id metasrv.TableID) *storagepb.RouteRecord {
	route, err := router.Route(c.View(), id)
	if err != nil {
		c.t.Fatalf("%v", err)
	}
	return route
}
