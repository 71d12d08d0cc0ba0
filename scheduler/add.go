package scheduler

import (
	"errors"
	"slices"
	"strings"

	"github.com/metasrv/metasrv"
)

// Addition asks for one more replica of a region.
type Addition struct {
	// Have are the nodes that the region has replicas on, which get no second one.
	Have []metasrv.NodeID
	// Leaves is the node whose replica the new one replaces, 0 for none: its zone counts as free.
	Leaves metasrv.NodeID
	// Table counts the replicas of the region's table on each node.
	Table map[metasrv.NodeID]int
	// Rotation is that of Request.
	Rotation uint64
}

// Add chooses the node for one more replica of a region as Place does for those of a new table: first by zones, then by the
// policy's score. metasrv.ErrTooFewDatanodes: none can take it, or metasrv.ErrNodesNotHeard as for Place.
func (p Policy) Add(nodes []NodeLoad, a Addition) (Assignment, error) {
	others := slices.DeleteFunc(slices.Clone(nodes), func(n NodeLoad) bool { return slices.Contains(a.Have, n.ID) })
	chosen, _, err := admit(others, Request{Regions: 1, Replicas: 1})
	if errors.Is(err, metasrv.ErrNoLiveDatanode) || errors.Is(err, metasrv.ErrTooFewDatanodes) {
		_, _, found := candidates(others, false)
		return Assignment{}, metasrv.ErrTooFewDatanodes.With("no datanode can take a replica beside those that have one (%s): of the others %s",
			list(a.Have), found)
	}
	if err != nil {
		return Assignment{}, err
	}
	if p.score == nil {
		p = policies[0]
	}
	t := newTable(p, chosen, Request{Regions: 1, Rotation: a.Rotation}, 1)
	inZone := map[string]int{}
	for _, n := range nodes {
		if n.ID != a.Leaves && slices.Contains(a.Have, n.ID) {
			inZone[n.Zone]++
		}
	}
	used := make([]int, len(t.zones))
	for _, n := range t.nodes {
		used[n.zone] = inZone[n.load.Zone]
		n.replicas = a.Table[n.load.ID]
		n.score = p.score(n)
	}
	best := t.nodes[0]
	for _, n := range t.nodes[1:] {
		if t.compare(used, n, best) < 0 {
			best = n
		}
	}
	return Assignment{Node: best.load.ID, Incarnation: best.load.Incarnation}, nil
}

// list names nodes: "node 1, node 2".
func list(ids []metasrv.NodeID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = "node " + id.String()
	}
	return strings.Join(names, ", ")
}
