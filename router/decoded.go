package router

import (
	"maps"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Decoded keeps tables with their routes decoded for who reads some again and again: a route of 10,000 regions takes milliseconds.
// It is not safe for concurrent use.
type Decoded struct {
	tables map[metasrv.TableID]decodedTable
}

// decodedTable is a table with the stored values that it was decoded from.
type decodedTable struct {
	table, route []byte
	record       Record
}

// Get returns what the function of this name does. The record is shared: it must not be modified.
func (d *Decoded) Get(v state.View, id metasrv.TableID) (Record, error) {
	table, route := catalog.TableValue(v, id), routeValue(v, id)
	if kept, ok := d.tables[id]; ok && same(kept.table, table) && same(kept.route, route) {
		return kept.record, nil
	}
	delete(d.tables, id)
	record, err := Get(v, id)
	if err != nil {
		return Record{}, err
	}
	if d.tables == nil {
		d.tables = make(map[metasrv.TableID]decodedTable)
	}
	d.tables[id] = decodedTable{table, route, record}
	return record, nil
}

// Keep forgets all tables but those that are wanted.
func (d *Decoded) Keep(wanted func(metasrv.TableID) bool) {
	maps.DeleteFunc(d.tables, func(id metasrv.TableID, _ decodedTable) bool { return !wanted(id) })
}
