package server

import (
	"context"
	"errors"
	"strings"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// ledTables knows in which tables each node leads regions, while a node may be about to fail: it is counted once, which takes
// some 0.2 s with a million regions, and then follows the changes of the state, so that it is there when the last lease of the
// node ends. While all nodes are heard it is not kept: that took a twentieth of a metasrv leader's time where many tables are
// created. It is not safe for concurrent use.
type ledTables struct {
	source placementSource
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
	for l.revision < v.Revision() {
		revisions, err := l.source.Read(ctx, l.revision+1)
		if errors.Is(err, metasrv.ErrCompacted) {
			return l.recount(l.source.View())
		}
		if err != nil {
			return err
		}
		for _, r := range revisions {
			if err := l.change(r); err != nil {
				l.nodes = nil // half of a revision is in it
				return err
			}
		}
	}
	return nil
}

func (l *ledTables) change(r state.Revision) error {
	for _, c := range r.Changes {
		if !strings.HasPrefix(c.Key, router.RoutePrefix) {
			continue
		}
		table, err := router.TableOfRoute(c.Key)
		if err != nil {
			return err
		}
		if err := errors.Join(l.add(table, c.Prev, -1), l.add(table, c.Value, 1)); err != nil {
			return err
		}
	}
	l.revision = r.Number
	return nil
}

func (l *ledTables) recount(v state.View) error {
	l.nodes, l.sums = make(map[metasrv.NodeID]map[metasrv.TableID]int32), make(map[metasrv.NodeID]int)
	for key, route := range v.Ascend(router.RoutePrefix, router.RouteStop) {
		table, err := router.TableOfRoute(key)
		if err == nil {
			err = l.add(table, route, 1)
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
func (l *ledTables) forget() { l.nodes, l.sums, l.changed = nil, nil, nil }

// leads says whether a node leads a region.
func (l *ledTables) leads(node metasrv.NodeID) bool { return len(l.nodes[node]) > 0 }

// count returns how many regions a node leads.
func (l *ledTables) count(node metasrv.NodeID) int { return l.sums[node] }
