package router

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/metasrv/metasrv"
)

// answer is the routes of one answer, which share its list of peers.
type answer struct {
	routes []*encodedRoute
	nodes  dictionary
}

func (a *answer) add(r *encodedRoute) {
	a.routes = append(a.routes, r)
	for _, id := range r.nodes {
		a.nodes.index(id)
	}
}

// size returns about how many bytes the answer has.
func (a *answer) size() int {
	size := 48 * len(a.nodes.ids)
	for _, r := range a.routes {
		size += len(r.bytes) + len(r.bytes)/8 + 16
	}
	return size
}

// appendRoute writes the field table_routes for one table.
func (a *answer) appendRoute(b []byte, r *encodedRoute) []byte {
	b = protowire.AppendTag(b, tableRoutesField, protowire.BytesType)
	if a.numberedAlike(r) {
		return protowire.AppendBytes(b, r.bytes)
	}
	// Other indexes may have another length, so that of the whole is known last.
	const room = 5
	start := len(b)
	b = append(b, make([]byte, room)...)
	b = a.appendRegions(b, r)
	length := len(b) - start - room
	n := protowire.SizeVarint(uint64(length)) //nolint:gosec // never negative
	copy(b[start+n:], b[start+room:])
	protowire.AppendVarint(b[start:start], uint64(length)) //nolint:gosec // never negative
	return b[:start+n+length]
}

// numberedAlike reports whether the nodes of a route have the same indexes in the answer as in the route.
func (a *answer) numberedAlike(r *encodedRoute) bool {
	for i, id := range r.nodes {
		if a.nodes.index(id) != uint64(i) { //nolint:gosec // never negative
			return false
		}
	}
	return true
}

// appendRegions writes a TableRoute with the indexes of the answer. Nothing but what encodeRoute wrote is read, so
// there is nothing to refuse.
func (a *answer) appendRegions(b []byte, r *encodedRoute) []byte {
	for rest := r.bytes; len(rest) > 0; {
		number, kind, n := protowire.ConsumeTag(rest)
		if number != regionRoutesField {
			m := n + protowire.ConsumeFieldValue(number, kind, rest[n:])
			b, rest = append(b, rest[:m]...), rest[m:]
			continue
		}
		region, m := protowire.ConsumeBytes(rest[n:])
		b = append(b, rest[:n]...)
		b = a.appendRegion(b, r, region)
		rest = rest[n+m:]
	}
	return b
}

// appendRegion writes a RegionRoute with its length.
func (a *answer) appendRegion(b []byte, r *encodedRoute, region []byte) []byte {
	// The parts before and behind the fields with indexes stay as they are.
	_, _, n := protowire.ConsumeTag(region)
	head := n + protowire.ConsumeFieldValue(1, protowire.BytesType, region[n:])
	tail, leader, followers := head, uint64(0), []byte(nil)
	for tail < len(region) {
		number, kind, n := protowire.ConsumeTag(region[tail:])
		if number >= firstFieldBehindPeer {
			break
		}
		if number == leaderPeerField {
			leader, _ = protowire.ConsumeVarint(region[tail+n:])
		} else {
			followers, _ = protowire.ConsumeBytes(region[tail+n:])
		}
		tail += n + protowire.ConsumeFieldValue(number, kind, region[tail+n:])
	}
	if leader != NoLeader {
		leader = a.nodes.index(r.nodes[leader])
	}
	var room [64]byte
	packed := room[:0]
	for len(followers) > 0 {
		i, n := protowire.ConsumeVarint(followers)
		packed = protowire.AppendVarint(packed, a.nodes.index(r.nodes[i]))
		followers = followers[n:]
	}
	length := head + len(region) - tail
	if leader != 0 {
		length += 1 + protowire.SizeVarint(leader)
	}
	if len(packed) > 0 {
		length += 1 + protowire.SizeBytes(len(packed))
	}
	b = protowire.AppendVarint(b, uint64(length)) //nolint:gosec // never negative
	b = append(b, region[:head]...)
	if leader != 0 {
		b = protowire.AppendTag(b, leaderPeerField, protowire.VarintType)
		b = protowire.AppendVarint(b, leader)
	}
	if len(packed) > 0 {
		b = protowire.AppendTag(b, followerPeersField, protowire.BytesType)
		b = protowire.AppendBytes(b, packed)
	}
	return append(b, region[tail:]...)
}

// dictionary numbers the nodes of an answer in the order in which they come.
type dictionary struct {
	ids []metasrv.NodeID
	// byID is used where there are many.
	byID map[metasrv.NodeID]uint64
}

const manyNodes = 32

func (d *dictionary) index(id metasrv.NodeID) uint64 {
	if d.byID != nil {
		if i, ok := d.byID[id]; ok {
			return i
		}
	} else {
		for i, have := range d.ids {
			if have == id {
				return uint64(i) //nolint:gosec // never negative
			}
		}
	}
	i := uint64(len(d.ids))
	d.ids = append(d.ids, id)
	if d.byID == nil && len(d.ids) > manyNodes {
		d.byID = make(map[metasrv.NodeID]uint64, 2*len(d.ids))
		for i, id := range d.ids {
			d.byID[id] = uint64(i) //nolint:gosec // never negative
		}
	}
	if d.byID != nil {
		d.byID[id] = i
	}
	return i
}
