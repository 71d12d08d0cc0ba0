package router

import (
	"fmt"
	"iter"
	"strconv"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	// RoutePrefix stands before the id of a table in the key of its route.
	RoutePrefix = "route/"
	// RouteStop is the first key behind all routes.
	RouteStop   = "route0"
	sequenceKey = "seq/replica"
)

// firstReplicaID leaves 0 for "none".
const firstReplicaID = 1

func routeKey(id metasrv.TableID) string { return state.IDKey(RoutePrefix, uint64(id)) }

// NextReplicaID returns the id of the replica that is planned next: every id below was given out.
func NextReplicaID(v state.View) metasrv.ReplicaID {
	return metasrv.ReplicaID(state.Peek(v, sequenceKey, firstReplicaID))
}

// Record is a table with its route.
type Record struct {
	Table *storagepb.TableRecord
	Route *storagepb.RouteRecord
}

// Find returns the public table that has a name. Errors are those of catalog.FindTable.
func Find(v state.View, name metasrv.TableName) (Record, error) {
	table, err := catalog.FindTable(v, name)
	if err != nil {
		return Record{}, err
	}
	return located(v, table)
}

// Get returns the public table that has an id, or ErrTableNotFound.
func Get(v state.View, id metasrv.TableID) (Record, error) {
	table, err := catalog.GetPublicTable(v, id)
	if err != nil {
		return Record{}, err
	}
	return located(v, table)
}

func located(v state.View, table *storagepb.TableRecord) (Record, error) {
	route, err := Route(v, metasrv.TableID(table.Id))
	if isNotFound(err) {
		return Record{}, fmt.Errorf("table %q (id %d) has no route", catalog.Name(table), table.Id)
	}
	return Record{Table: table, Route: route}, err
}

// Route returns the route of a table in any state, or ErrTableNotFound.
func Route(v state.View, id metasrv.TableID) (*storagepb.RouteRecord, error) {
	key := routeKey(id)
	value, ok := v.Get(key)
	if !ok {
		return nil, metasrv.ErrTableNotFound.With("table %d has no route", id)
	}
	return decodeRoute(key, value)
}

// routeValue returns the stored route of a table, nil where there is none.
func routeValue(v state.View, id metasrv.TableID) []byte {
	value, _ := v.Get(routeKey(id))
	return value
}

// PublicRoute returns the stored route of a PUBLIC table, nil where there is none.
func PublicRoute(v state.View, id metasrv.TableID) []byte {
	if tableState(v, id) != metasrvpb.TableState_TABLE_STATE_PUBLIC {
		return nil
	}
	return routeValue(v, id)
}

// Routes returns the routes of all tables in any state, in the order of their ids. After an error it ends.
func Routes(v state.View) iter.Seq2[*storagepb.RouteRecord, error] { return routesFrom(v, RoutePrefix) }

func routesFrom(v state.View, from string) iter.Seq2[*storagepb.RouteRecord, error] {
	return func(yield func(*storagepb.RouteRecord, error) bool) {
		for key, value := range v.Ascend(from, RouteStop) {
			route, err := decodeRoute(key, value)
			if !yield(route, err) || err != nil {
				return
			}
		}
	}
}

// Tables returns all tables in any state with their routes, in the order of their ids. After an error it ends.
func Tables(v state.View) iter.Seq2[Record, error] { return TablesBehind(v, 0) }

// TablesBehind returns what Tables does, from the first table behind an id on.
func TablesBehind(v state.View, id metasrv.TableID) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for route, err := range routesFrom(v, routeKey(id+1)) {
			record := Record{Route: route}
			if err == nil {
				record.Table, err = catalog.GetTable(v, metasrv.TableID(route.TableId))
			}
			if !yield(record, err) || err != nil {
				return
			}
		}
	}
}

func decodeRoute(key string, value []byte) (*storagepb.RouteRecord, error) {
	route := &storagepb.RouteRecord{}
	if err := state.Decode(value, route); err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return route, nil
}

func putRoute(tx state.Tx, route *storagepb.RouteRecord) {
	tx.Put(routeKey(metasrv.TableID(route.TableId)), state.Encode(route))
}

// TableOfRoute returns the table that the key of a route names.
func TableOfRoute(key string) (metasrv.TableID, error) { return tableOf(key, RoutePrefix) }

// tableOf returns the table id at the end of a key.
func tableOf(key, prefix string) (metasrv.TableID, error) {
	id, err := strconv.ParseUint(key[len(prefix):], 16, 64)
	if err != nil {
		return 0, fmt.Errorf("key %s has no table id", key)
	}
	return metasrv.TableID(id), nil
}

// replicas returns all replicas of a route with their regions.
func replicas(route *storagepb.RouteRecord) iter.Seq2[*storagepb.RegionRecord, *storagepb.ReplicaRecord] {
	return func(yield func(*storagepb.RegionRecord, *storagepb.ReplicaRecord) bool) {
		for _, region := range route.Regions {
			for _, replica := range region.Replicas {
				if !yield(region, replica) {
					return
				}
			}
		}
	}
}
