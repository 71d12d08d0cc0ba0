package server

import (
	"context"
	"errors"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// ledTables knows in which tables each node leads regions, while a node may be about to fail: it is counted once, which takes
// some 0.2 s with a million regions, and then follows the changes of the state, so that it is there when the last lease of the
// node ends. While all nodes are heard it is not kept: that took a twentieth of a metasrv leader's time where many tables are
// created. Tables that are not PUBLIC don't count: nobody serves them, and failover leaves them alone. It is not safe for
// concurrent use.
type ledTables struct {
	source placementSource
	// counted has the route that each table was counted by.
	counted map[metasrv.TableID][]byte
	// nodes has how many regions a node leads in a table; nil before it is counted.
	nodes map[metasrv.NodeID]map[metasrv.TableID]int32
	// sums has how many regions a node leads in all tables.
	sums     map[metasrv.NodeID]int
	revision uint64
	// changed are the nodes that lead regions of tables whose routes changed, recounted says that any may.
	changed   map[metasrv.NodeID]struct{}
	recounted bool
}

// takeChanged returns since its last call which nodes lead regions of tables whose routes changed, or that all may.
func (l *ledTables) takeChanged() (changed map[metasrv.NodeID]struct{}, all bool) {
	changed, all = l.changed, l.recounted
	l.changed, l.recounted = nil, false
	return changed, all
}

// advance brings it to the revision of a view.
func (l *ledTables) advance(ctx context.Context, v state.View) error {
	if l.nodes == nil {
		return l.recount(v)
	}
	if l.revision >= v.Revision() {
		return nil
	}
	touched := map[metasrv.TableID]struct{}{}
	revision := l.revision
	for revision < v.Revision() {
		revisions, err := l.source.Read(ctx, revision+1)
		if errors.Is(err, metasrv.ErrCompacted) {
			return l.recount(l.source.View())
		}
		if err != nil {
			return err
		}
		for _, r := range revisions {
			if err := touch(touched, r.Changes); err != nil {
				return err
			}
			revision = r.Number
		}
	}
	present := v
	if revision > v.Revision() {
		present = l.source.View()
	}
	for table := range touched {
		if err := l.set(table, router.PublicRoute(present, table)); err != nil {
			l.nodes = nil // some are counted
			return err
		}
	}
	l.revision = revision
	return nil
}

// touch adds the tables that changes concern.
func touch(touched map[metasrv.TableID]struct{}, changes []state.Change) error {
	for _, c := range changes {
		table, is, err := router.ChangedTable(c.Key)
		if err != nil {
			return err
		}
		if is {
			touched[table] = struct{}{}
		}
	}
	return nil
}

// set counts a table by another route than before; nil: not at all.
func (l *ledTables) set(table metasrv.TableID, route []byte) error {
	err := errors.Join(l.add(table, l.counted[table], -1), l.add(table, route, 1))
	if route == nil {
		delete(l.counted, table)
	} else {
		l.counted[table] = route
	}
	return err
}

func (l *ledTables) recount(v state.View) error {
	l.nodes, l.sums = make(map[metasrv.NodeID]map[metasrv.TableID]int32), make(map[metasrv.NodeID]int)
	l.counted = make(map[metasrv.TableID][]byte)
	for key := range v.Ascend(router.RoutePrefix, router.RouteStop) {
		table, err := router.TableOfRoute(key)
		if err == nil {
			err = l.set(table, router.PublicRoute(v, table))
		}
		if err != nil {
			l.nodes = nil
			return err
		}
	}
	l.revision, l.changed, l.recounted = v.Revision(), nil, true
	return nil
}

// add counts, times 1 or -1, what a stored route says; nil is no route.
func (l *ledTables) add(table metasrv.TableID, route []byte, times int32) error {
	return router.ReplicasIn(route, func(node uint64, leads bool) {
		if !leads {
			return
		}
		id := metasrv.NodeID(node)
		tables := l.nodes[id]
		if tables == nil {
			tables = make(map[metasrv.TableID]int32)
			l.nodes[id] = tables
		}
		l.sums[id] += int(times)
		if l.changed == nil {
			l.changed = make(map[metasrv.NodeID]struct{})
		}
		l.changed[id] = struct{}{}
		if tables[table] += times; tables[table] == 0 {
			delete(tables, table)
		}
		if len(tables) == 0 {
			delete(l.nodes, id)
			delete(l.sums, id)
		}
	})
}

// forget ends it until it is advanced again.
func (l *ledTables) forget() { l.nodes, l.sums, l.changed, l.counted = nil, nil, nil, nil }

// leads says whether a node leads a region.
func (l *ledTables) leads(node metasrv.NodeID) bool { return len(l.nodes[node]) > 0 }

// count returns how many regions a node leads.
func (l *ledTables) count(node metasrv.NodeID) int { return l.sums[node] }
