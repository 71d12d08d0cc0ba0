package router_test

import (
	"fmt"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// life is a random life of a cluster, with what must hold of it from one command to the next.
type life struct {
	*cluster
	// known are all tables ever created, as their creation answered.
	known []router.Record
	// states are those of the tables before the last command.
	states map[uint64]metasrvpb.TableState
	// regionOf and tokenOf remember who had a replica id or a table id first.
	regionOf map[uint64]uint64
	tokenOf  map[uint64]uint64
}

const gone = metasrvpb.TableState_TABLE_STATE_UNSPECIFIED

// steps are the only ways of a table through its states.
var steps = map[[2]metasrvpb.TableState]bool{
	{gone, creating}:     true,
	{gone, public}:       true,
	{creating, public}:   true,
	{creating, aborting}: true,
	{public, dropping}:   true,
	{aborting, gone}:     true,
	{dropping, gone}:     true,
}

// ofRemoved are the ways that there are besides where all nodes of the table were removed: nobody is waited for.
var ofRemoved = map[[2]metasrvpb.TableState]bool{{public, gone}: true, {creating, gone}: true}

func TestInvariants(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l := &life{
			cluster:  clusterFor(t),
			states:   make(map[uint64]metasrvpb.TableState),
			regionOf: make(map[uint64]uint64),
			tokenOf:  make(map[uint64]uint64),
		}
		t.Repeat(map[string]func(*rapid.T){
			"create":   l.randomCreate,
			"commit":   l.randomCommit,
			"abort":    l.randomAbort,
			"drop":     func(t *rapid.T) { l.try(dropTable, dropOf(anyName(t))) },
			"confirm":  l.randomConfirm,
			"report":   l.emptyReport,
			"rename":   l.randomRename,
			"register": func(t *rapid.T) { l.register(anyNode(t)) },
			"drop s": func(*rapid.T) {
				l.try(storagepb.CommandKind_COMMAND_KIND_DROP_SCHEMA, &storagepb.DropSchema{CatalogName: "c", SchemaName: "s"})
			},
			"create s": func(*rapid.T) {
				l.try(storagepb.CommandKind_COMMAND_KIND_CREATE_SCHEMA, &storagepb.CreateSchema{CatalogName: "c", SchemaName: "s"})
			},
			"unregister": func(t *rapid.T) { l.unregister(anyNode(t)) },
			"":           l.check,
		})
	})
}

func anyName(t *rapid.T) string { return rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "name") }
func anyNode(t *rapid.T) uint64 { return rapid.Uint64Range(1, 4).Draw(t, "node") }

func (l *life) try(kind storagepb.CommandKind, cmd proto.Message) (router.Record, bool) {
	before := l.View().Revision()
	record, err := l.propose(kind, cmd)
	if err != nil && l.View().Revision() != before {
		l.t.Fatalf("%s was refused (%v), but changed the state", kind, err)
	}
	return record, err == nil
}

func (l *life) randomCreate(t *rapid.T) {
	nodes := []uint64{1, 2, 3, 4}[:rapid.IntRange(1, 4).Draw(t, "nodes")]
	cmd := l.plan(anyName(t), rapid.IntRange(1, 3).Draw(t, "regions"), nodes...)
	cmd.Commit = rapid.IntRange(0, 4).Draw(t, "commit") == 0
	if rapid.IntRange(0, 9).Draw(t, "stale") == 0 {
		cmd.Regions[0].Replicas[0].Incarnation--
	}
	if record, ok := l.try(createTable, cmd); ok {
		l.known = append(l.known, record)
	}
}

// anyTable returns a table ever created.
func (l *life) anyTable(t *rapid.T) router.Record {
	if len(l.known) == 0 {
		t.Skip("no table yet")
	}
	// The latest ones are likelier to be in the states that matter.
	back := min(rapid.IntRange(0, len(l.known)-1).Draw(t, "back"), rapid.IntRange(0, 3).Draw(t, "nearer"))
	return l.known[len(l.known)-1-back]
}

func (l *life) randomCommit(t *rapid.T) {
	cmd := commitOf(l.anyTable(t))
	switch rapid.IntRange(0, 9).Draw(t, "fault") {
	case 0:
		cmd.CreationToken++
	case 1:
		cmd.Replicas = cmd.Replicas[1:]
	case 2:
		cmd.Replicas[0].Incarnation++
	}
	l.try(commitTable, cmd)
}

func (l *life) randomAbort(t *rapid.T) { l.try(abortTable, abortOf(l.anyTable(t))) }

func (l *life) randomConfirm(t *rapid.T) {
	l.try(confirmDropped, l.confirmOf(l.anyTable(t), anyNode(t)))
}

func (l *life) randomRename(t *rapid.T) {
	l.try(renameTable, &storagepb.RenameTable{Name: tableName(anyName(t)), NewTableName: anyName(t)})
}

// emptyReport lets a node say that it has nothing.
func (l *life) emptyReport(t *rapid.T) {
	node := anyNode(t)
	_, confirmed, err := router.ReplicasToDrop(l.View(), metasrv.NodeID(node), nil)
	if err != nil {
		t.Fatal(err)
	}
	l.try(confirmDropped, &storagepb.ConfirmDropped{NodeId: node, Incarnation: l.incarnation(node), Replicas: confirmed})
}

func (l *life) check(t *rapid.T) {
	v := l.View()
	present := make(map[uint64]metasrvpb.TableState)
	names := make(map[string]uint64)
	for r, err := range router.Tables(v) {
		if err != nil {
			t.Fatal(err)
		}
		id := r.Table.Id
		present[id] = r.Table.State
		if r.Table.State == creating || r.Table.State == public {
			key := "table_name/" + strings.ReplaceAll(catalog.Name(r.Table).String(), ".", "/")
			if other, taken := names[key]; taken {
				t.Fatalf("tables %d and %d share the name %s", id, other, key)
			}
			names[key] = id
			if _, err := catalog.GetSchema(v, "c", "s"); err != nil {
				t.Fatalf("table %d is in no schema: %v", id, err)
			}
		}
		l.checkIDs(t, r)
		l.checkReplicas(t, r)
	}
	l.checkIndexes(t, v, present, names)
	l.checkSteps(t, present)
	l.states = present
}

// checkIDs finds ids that were used twice, now or ever.
func (l *life) checkIDs(t *rapid.T, r router.Record) {
	if token, ok := l.tokenOf[r.Table.Id]; ok && token != r.Table.CreationToken {
		t.Fatalf("table id %d was used twice", r.Table.Id)
	}
	l.tokenOf[r.Table.Id] = r.Table.CreationToken
	for i, region := range r.Route.Regions {
		if region.RegionId != uint64(metasrv.NewRegionID(metasrv.TableID(r.Table.Id), uint32(i))) {
			t.Fatalf("region %d of table %d has id %d", i, r.Table.Id, region.RegionId)
		}
		for _, replica := range region.Replicas {
			if first, ok := l.regionOf[replica.ReplicaId]; ok && first != region.RegionId {
				t.Fatalf("replica id %d was used in regions %d and %d", replica.ReplicaId, first, region.RegionId)
			}
			l.regionOf[replica.ReplicaId] = region.RegionId
		}
	}
}

// checkReplicas compares the flags of replicas with the table's state.
func (l *life) checkReplicas(t *rapid.T, r router.Record) {
	left := false
	for _, region := range r.Route.Regions {
		for _, replica := range region.Replicas {
			left = left || !replica.Dropped
			if s := r.Table.State; s == public && !replica.InSync || s == creating && replica.InSync ||
				replica.Dropped && (s == public || s == creating) {
				t.Fatalf("table %d is %s with replica %v", r.Table.Id, s, replica)
			}
			becomesPublic := r.Table.State == public && l.states[r.Table.Id] == creating
			if becomesPublic && l.incarnation(replica.NodeId) != replica.PlannedIncarnation {
				t.Fatalf("table %d was committed, but node %d has incarnation %d and not the planned one, %d",
					r.Table.Id, replica.NodeId, l.incarnation(replica.NodeId), replica.PlannedIncarnation)
			}
		}
	}
	if !left {
		t.Fatalf("table %d is %s, though all its replicas were dropped", r.Table.Id, r.Table.State)
	}
}

// checkIndexes compares the keys of tables, names and pending tables with the records.
func (l *life) checkIndexes(t *rapid.T, v state.View, present map[uint64]metasrvpb.TableState, names map[string]uint64) {
	count := func(from, to string, ok func(key string) bool) (n int) {
		for key := range v.Ascend(from, to) {
			if n++; !ok(key) {
				t.Fatalf("key %s agrees with no record", key)
			}
		}
		return n
	}
	tables := count("table/", "table0", func(string) bool { return true })
	if tables != len(present) {
		t.Fatalf("%d tables, %d routes", tables, len(present))
	}
	if n := count("table_name/", "table_name0", func(key string) bool { return names[key] != 0 }); n != len(names) {
		t.Fatalf("%d names, want %d", n, len(names))
	}
	pending := make(map[string]bool)
	for id, s := range present {
		if s != public {
			pending[fmt.Sprintf("table_pending/%016x", id)] = true
		}
	}
	if n := count("table_pending/", "table_pending0", func(key string) bool { return pending[key] }); n != len(pending) {
		t.Fatalf("%d pending tables, want %d", n, len(pending))
	}
}

// allRemoved reports whether no node is registered that a table was created on.
func (l *life) allRemoved(id uint64) bool {
	for _, record := range l.known {
		if record.Table.Id != id {
			continue
		}
		for _, region := range record.Route.Regions {
			for _, replica := range region.Replicas {
				if l.incarnation(replica.NodeId) != 0 {
					return false
				}
			}
		}
	}
	return true
}

func (l *life) checkSteps(t *rapid.T, present map[uint64]metasrvpb.TableState) {
	for id, s := range present {
		if from := l.states[id]; from != s && !steps[[2]metasrvpb.TableState{from, s}] {
			t.Fatalf("table %d went from %s to %s", id, from, s)
		}
	}
	for id, from := range l.states {
		way := [2]metasrvpb.TableState{from, gone}
		if _, ok := present[id]; !ok && !steps[way] && (!ofRemoved[way] || !l.allRemoved(id)) {
			t.Fatalf("table %d vanished from %s", id, from)
		}
	}
}
