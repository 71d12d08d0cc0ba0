package router_test

import (
	"fmt"
	"slices"
	"testing"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// since returns the events of the revisions after one, in short form, as a watcher with the present view sees them.
func (c *cluster) since(t *testing.T, revision uint64) []string {
	t.Helper()
	if c.View().Revision() == revision {
		return nil
	}
	revisions, err := c.Read(t.Context(), revision+1)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, r := range revisions {
		changes, err := router.Changes(c.View(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, change := range changes {
			e := router.NewBuilder(address).Event(change)
			if e.Revision != r.Number {
				t.Errorf("event of revision %d says %d", r.Number, e.Revision)
			}
			got = append(got, short(e))
		}
	}
	return got
}

func short(e *metasrvpb.RouteEvent) string {
	if u := e.GetUpdated(); u != nil {
		return fmt.Sprintf("updated %s v%d schema %d", u.Table.TableName.TableName, u.RouteVersion, u.Table.SchemaVersion)
	}
	return fmt.Sprintf("removed %s %d", e.GetRemoved().TableName.TableName, e.GetRemoved().Id)
}

func TestChanges(t *testing.T) {
	c := newCluster(t)
	var creation, table router.Record
	steps := []struct {
		name string
		do   func()
		want []string
	}{
		{"reserve", func() { creation = c.create("t", 2, 1, 2) }, nil},
		{"abort", func() { c.must(abortTable, abortOf(creation)) }, nil},
		{"confirm the abort", func() {
			c.must(confirmDropped, c.confirmOf(creation, 1))
			c.must(confirmDropped, c.confirmOf(creation, 2))
		}, nil},
		{"commit", func() { table = c.public("t", 2, 1, 2) }, []string{"updated t v2 schema 1"}},
		{"commit again", func() { c.must(commitTable, commitOf(table)) }, nil},
		{"alter", func() {
			c.must(alterTable, &storagepb.AlterTable{TableId: table.Table.Id, ExpectedSchemaVersion: 1, Schema: schema()})
		}, []string{"updated t v2 schema 2"}},
		{"rename", func() {
			c.must(renameTable, &storagepb.RenameTable{Name: tableName("t"), NewTableName: "u"})
		}, []string{"updated u v2 schema 2"}},
		{"drop", func() { table = c.must(dropTable, dropOf("u")) }, []string{"removed u 1025"}},
		{"confirm the drop", func() {
			c.must(confirmDropped, c.confirmOf(table, 1))
			c.must(confirmDropped, c.confirmOf(table, 2))
		}, nil},
		{"create committed", func() {
			cmd := c.plan("w", 1, 1)
			cmd.Commit = true
			c.must(createTable, cmd)
		}, []string{"updated w v1 schema 1"}},
		{"node", func() { c.register(1) }, nil},
	}
	for _, s := range steps {
		before := c.View().Revision()
		s.do()
		if got := c.since(t, before); !slices.Equal(got, s.want) {
			t.Errorf("%s: events %q, want %q", s.name, got, s.want)
		}
	}
	// A watcher that lags sees nothing twice and is left with what is there.
	got := c.since(t, 0)
	if want := []string{"updated t v2 schema 1", "removed u 1025", "updated w v1 schema 1"}; !slices.Equal(got, want) {
		t.Errorf("all events afterwards %q, want %q", got, want)
	}
}

// A change of a route alone, as failover will make it, is an update of a public table only.
func TestChangeOfARouteAlone(t *testing.T) {
	c := newCluster(t)
	public, creating := c.public("public", 1, 1), c.create("creating", 1, 1)
	for _, tt := range []struct {
		record router.Record
		want   int
	}{{public, 1}, {creating, 0}} {
		tt.record.Route.RouteVersion = 9
		change := state.Change{Key: fmt.Sprintf("route/%016x", tt.record.Table.Id), Value: state.Encode(tt.record.Route)}
		changes, err := router.Changes(c.View(), state.Revision{Number: 99, Changes: []state.Change{change}})
		if err != nil || len(changes) != tt.want {
			t.Fatalf("changes = %v, %v, want %d", changes, err, tt.want)
		}
		if tt.want > 0 && changes[0].Updated.Route.RouteVersion != 9 {
			t.Errorf("change = %v", changes[0])
		}
	}
}
