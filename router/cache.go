package router

import (
	"sync"
	"sync/atomic"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// cache keeps what an Encoder has encoded, in two generations: what is used moves to the young one, and where that is
// full it becomes the old one, whose predecessor is dropped.
type cache struct {
	limit int

	mu         sync.RWMutex
	young, old generation
	peers      map[metasrv.NodeID]*encodedPeer
}

type generation struct {
	routes map[metasrv.TableID]*encodedRoute
	names  map[metasrv.TableName]*namedTable
	bytes  int
}

// namedTable is the table that holds a name.
type namedTable struct {
	value   []byte
	id      metasrv.TableID
	checked checked
}

// encodedPeer is a node as an answer names it.
type encodedPeer struct {
	value   []byte
	bytes   []byte
	checked checked
}

// Overheads of what is kept, in bytes, about.
const (
	routeOverhead = 300
	nameOverhead  = 200
)

// maxPeers bounds the nodes that are kept; nobody has that many.
const maxPeers = 100_000

// checked is the last revision + 1 at which something that is kept was found right: at the same revision it still is.
type checked struct{ revision atomic.Uint64 }

func (c *checked) at(v state.View) bool { return c.revision.Load() == v.Revision()+1 }
func (c *checked) set(v state.View)     { c.revision.Store(v.Revision() + 1) }

// same reports whether two stored values are the very same one.
func same(a, b []byte) bool { return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0]) }

// route returns what is kept of a table, nil where that is nothing or not that of the view.
func (c *cache) route(v state.View, id metasrv.TableID) *encodedRoute {
	c.mu.RLock()
	r, young := c.young.routes[id], true
	if r == nil {
		r, young = c.old.routes[id], false
	}
	c.mu.RUnlock()
	if r == nil {
		return nil
	}
	if !r.checked.at(v) {
		if !same(r.table, catalog.TableValue(v, id)) || !same(r.route, routeValue(v, id)) {
			return nil
		}
		r.checked.set(v)
	}
	if !young {
		c.keepRoute(v, id, r)
	}
	return r
}

func (c *cache) keepRoute(v state.View, id metasrv.TableID, r *encodedRoute) {
	r.checked.set(v)
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.room()
	if was := g.routes[id]; was != nil {
		g.bytes -= was.size()
	}
	g.routes[id] = r
	g.bytes += r.size()
}

// size returns about the bytes that are kept for the route; the stored records are the state's.
func (r *encodedRoute) size() int { return routeOverhead + len(r.bytes) + 8*len(r.nodes) }

// id returns the table that holds a name, false where that is not known.
func (c *cache) id(v state.View, name metasrv.TableName) (metasrv.TableID, bool) {
	c.mu.RLock()
	n, young := c.young.names[name], true
	if n == nil {
		n, young = c.old.names[name], false
	}
	c.mu.RUnlock()
	if n == nil {
		return 0, false
	}
	if !n.checked.at(v) {
		if !same(n.value, catalog.NameValue(v, name)) {
			return 0, false
		}
		n.checked.set(v)
	}
	if !young {
		c.keepName(v, name, n.id, n.value)
	}
	return n.id, true
}

func (c *cache) keepName(v state.View, name metasrv.TableName, id metasrv.TableID, value []byte) {
	n := &namedTable{value: value, id: id}
	n.checked.set(v)
	c.mu.Lock()
	defer c.mu.Unlock()
	g := c.room()
	if g.names[name] == nil {
		g.bytes += nameOverhead + len(name.Catalog) + len(name.Schema) + len(name.Table)
	}
	g.names[name] = n
}

// room returns the young generation, after it has become old where it is full.
func (c *cache) room() *generation {
	if c.young.bytes >= c.limit/2 {
		c.old = c.young
		c.young = generation{}
	}
	if c.young.routes == nil {
		c.young.routes = make(map[metasrv.TableID]*encodedRoute)
		c.young.names = make(map[metasrv.TableName]*namedTable)
	}
	return &c.young
}

func (c *cache) peer(v state.View, id metasrv.NodeID, value func(state.View, metasrv.NodeID) []byte) []byte {
	c.mu.RLock()
	p := c.peers[id]
	c.mu.RUnlock()
	if p == nil {
		return nil
	}
	if !p.checked.at(v) {
		if !same(p.value, value(v, id)) {
			return nil
		}
		p.checked.set(v)
	}
	return p.bytes
}

func (c *cache) keepPeer(v state.View, id metasrv.NodeID, value, bytes []byte) {
	p := &encodedPeer{value: value, bytes: bytes}
	p.checked.set(v)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.peers == nil || len(c.peers) >= maxPeers {
		c.peers = make(map[metasrv.NodeID]*encodedPeer)
	}
	c.peers[id] = p
}
