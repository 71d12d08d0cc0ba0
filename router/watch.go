package router

import (
	"fmt"
	"strings"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Change is one change of a table's route: either Updated or Removed.
type Change struct {
	Revision uint64
	// Updated is the public table with its route, from now on.
	Updated *Record
	// Removed is the table that is no longer routed, as it was last.
	Removed *storagepb.TableRecord
}

// Changes returns what a revision changed for those who route: at most one change a table. A table that became PUBLIC,
// or is and changed, is updated; one that stopped being PUBLIC is removed.
//
// v must be at or after the revision. Of a table whose record changed without its route, or the other way
// round, the other half is taken from v and may be newer than the revision; the revision that changed it then
// brings its own change. Where v no longer has it, the change is left out: the removal follows.
func Changes(v state.View, revision state.Revision) ([]Change, error) {
	var order []metasrv.TableID
	changes := make(map[metasrv.TableID]*tableChange)
	for i := range revision.Changes {
		id, isTable, err := ChangedTable(revision.Changes[i].Key)
		if err != nil {
			return nil, err
		}
		if id == 0 {
			continue
		}
		if changes[id] == nil {
			changes[id] = &tableChange{}
			order = append(order, id)
		}
		if isTable {
			changes[id].table = &revision.Changes[i]
		} else {
			changes[id].route = &revision.Changes[i]
		}
	}
	var out []Change
	for _, id := range order {
		change, ok, err := changes[id].change(v, id)
		if err != nil {
			return nil, err
		}
		if ok {
			change.Revision = revision.Number
			out = append(out, change)
		}
	}
	return out, nil
}

// tableChange is what one revision changed of a table; nil is unchanged.
type tableChange struct {
	table, route *state.Change
}

// ChangedTable returns the table whose record or route a key holds, 0 for other keys.
func ChangedTable(key string) (id metasrv.TableID, isTable bool, err error) {
	switch {
	case strings.HasPrefix(key, catalog.TablePrefix):
		id, err = tableOf(key, catalog.TablePrefix)
		return id, true, err
	case strings.HasPrefix(key, RoutePrefix):
		id, err = tableOf(key, RoutePrefix)
		return id, false, err
	}
	return 0, false, nil
}

// change reports whether it is one for those who route, and returns it.
func (c *tableChange) change(v state.View, id metasrv.TableID) (Change, bool, error) {
	before, after, err := c.tables(v, id)
	if err != nil {
		return Change{}, false, err
	}
	if !isPublic(after) {
		if !isPublic(before) {
			return Change{}, false, nil
		}
		if after == nil {
			after = before
		}
		return Change{Removed: after}, true, nil
	}
	route, err := c.routeAfter(v, id)
	if isNotFound(err) {
		return Change{}, false, nil
	}
	return Change{Updated: &Record{Table: after, Route: route}}, err == nil, err
}

// tables returns the table's records around the revision, nil where there was none.
func (c *tableChange) tables(v state.View, id metasrv.TableID) (before, after *storagepb.TableRecord, err error) {
	if c.table == nil {
		after, err = catalog.GetTable(v, id)
		if isNotFound(err) {
			return nil, nil, nil
		}
		return nil, after, err
	}
	if before, err = decodeTable(c.table.Key, c.table.Prev); err != nil {
		return nil, nil, err
	}
	after, err = decodeTable(c.table.Key, c.table.Value)
	return before, after, err
}

func (c *tableChange) routeAfter(v state.View, id metasrv.TableID) (*storagepb.RouteRecord, error) {
	if c.route == nil {
		return Route(v, id)
	}
	if c.route.Value == nil {
		return nil, metasrv.ErrTableNotFound.With("table %d has no route", id)
	}
	return decodeRoute(c.route.Key, c.route.Value)
}

func decodeTable(key string, value []byte) (*storagepb.TableRecord, error) {
	if value == nil {
		return nil, nil
	}
	table := &storagepb.TableRecord{}
	if err := state.Decode(value, table); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return table, nil
}

func isPublic(table *storagepb.TableRecord) bool {
	return table != nil && table.State == metasrvpb.TableState_TABLE_STATE_PUBLIC
}
