package router

import (
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Numbers of the fields that an Encoder writes or reads.
const (
	peersField           = 2 // of RouteResponse
	tableRoutesField     = 3 // of RouteResponse
	regionRoutesField    = 2 // of TableRoute
	leaderPeerField      = 2 // of RegionRoute
	followerPeersField   = 3 // of RegionRoute
	firstFieldBehindPeer = followerPeersField + 1
)

// NodeRecords lets an Encoder see the records of package heartbeat.
type NodeRecords struct {
	// Value returns the stored record of a node, nil where it is not registered.
	Value func(v state.View, id metasrv.NodeID) []byte
	// Address returns the address in a stored record.
	Address func(value []byte) string
}

// Encoder answers Router.Route with the bytes that a Builder's answer would have on the wire. It encodes the route of
// a table once a version and keeps it; an answer is put together from those. It is safe for concurrent use.
//
// What it keeps it knows to be right by the stored records that it was made from: they are never modified, so where a
// view has the very same ones, nothing has changed.
type Encoder struct {
	nodes NodeRecords
	cache cache
}

// NewEncoder returns an Encoder that keeps about the given number of bytes at most.
func NewEncoder(nodes NodeRecords, bytes int) *Encoder {
	return &Encoder{nodes: nodes, cache: cache{limit: bytes}}
}

// encodedRoute is a TableRoute whose regions name nodes by their index in nodes.
type encodedRoute struct {
	table, route []byte // the stored records
	bytes        []byte
	nodes        []metasrv.NodeID
	checked      checked
}

// Encode returns the fields peers and table_routes of the RouteResponse for tables in state PUBLIC: those asked for by
// name, then those by id. Errors are those of Find and Get for the first table that is missing.
func (e *Encoder) Encode(v state.View, names []*metasrvpb.TableName, ids []uint64) ([]byte, error) {
	a := answer{routes: make([]*encodedRoute, 0, len(names)+len(ids))}
	for _, name := range names {
		r, err := e.find(v, catalog.NameOf(name))
		if err != nil {
			return nil, err
		}
		a.add(r)
	}
	for _, id := range ids {
		r, err := e.get(v, metasrv.TableID(id))
		if err != nil {
			return nil, err
		}
		a.add(r)
	}
	b := make([]byte, 0, a.size())
	for _, id := range a.nodes.ids {
		b = append(b, e.peer(v, id)...)
	}
	for _, r := range a.routes {
		b = a.appendRoute(b, r)
	}
	return b, nil
}

func (e *Encoder) find(v state.View, name metasrv.TableName) (*encodedRoute, error) {
	if id, ok := e.cache.id(v, name); ok {
		return e.get(v, id)
	}
	if id, value, ok := catalog.NamedTable(v, name); ok {
		if r, err := e.get(v, id); err == nil {
			e.cache.keepName(v, name, id, value)
			return r, nil
		}
	}
	table, err := catalog.FindTable(v, name) // it says best what is missing
	if err != nil {
		return nil, err
	}
	return e.get(v, metasrv.TableID(table.Id))
}

func (e *Encoder) get(v state.View, id metasrv.TableID) (*encodedRoute, error) {
	if r := e.cache.route(v, id); r != nil {
		return r, nil
	}
	record, err := Get(v, id)
	if err != nil {
		return nil, err
	}
	r := encodeRoute(record)
	r.table, r.route = catalog.TableValue(v, id), routeValue(v, id)
	e.cache.keepRoute(v, id, r)
	return r, nil
}

// encodeRoute encodes a route as the only one of an answer.
func encodeRoute(record Record) *encodedRoute {
	b := NewBuilder(func(metasrv.NodeID) string { return "" })
	r := &encodedRoute{bytes: state.Encode(b.Add(record))}
	for _, peer := range b.Peers() {
		r.nodes = append(r.nodes, metasrv.NodeID(peer.Id))
	}
	return r
}

// peer returns the field peers of a RouteResponse for one node.
func (e *Encoder) peer(v state.View, id metasrv.NodeID) []byte {
	if p := e.cache.peer(v, id, e.nodes.Value); p != nil {
		return p
	}
	peer := &metasrvpb.Peer{Id: uint64(id)}
	value := e.nodes.Value(v, id)
	if value != nil {
		peer.Addr = e.nodes.Address(value)
	}
	b := protowire.AppendTag(nil, peersField, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(proto.Size(peer)))
	b = append(b, state.Encode(peer)...)
	e.cache.keepPeer(v, id, value, b)
	return b
}
