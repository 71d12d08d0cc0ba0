package scheduler

import (
	"cmp"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Elector chooses the nodes that lead regions next, one region after the other: each choice counts in those that follow, so
// what a node led is spread over all that can lead it.
type Elector struct {
	nodes map[metasrv.NodeID]*node
	// average is how many regions a node of average weight leads, at least 1.
	average int64
}

// NewElector returns an elector over the registered nodes.
func NewElector(nodes []NodeLoad) *Elector {
	e := &Elector{nodes: make(map[metasrv.NodeID]*node, len(nodes))}
	var list []*node
	leaders := int64(0)
	for i := range nodes {
		if nodes[i].Role == metasrvpb.NodeRole_NODE_ROLE_FRONTEND {
			continue
		}
		n := &node{load: &nodes[i], leaders: nodes[i].Leaders}
		e.nodes[n.load.ID] = n
		list = append(list, n)
		leaders += int64(n.leaders)
	}
	if len(list) == 0 {
		return e
	}
	weigh(list)
	measure(list)
	e.average = max(1, leaders/int64(len(list)))
	return e
}

// Choose returns which of some nodes is to lead a region that another one led, -1 where none can. In this order it prefers:
// nodes that are heard regularly and not being drained; the failure domain farthest from the node that led, by the labels zone, rack and host; the
// fewest regions led, relative to what the node can serve, and the least load.
func (e *Elector) Choose(led metasrv.NodeID, among []metasrv.NodeID) int {
	best, from := -1, e.nodes[led]
	var found rank
	for i, id := range among {
		n := e.nodes[id]
		if n == nil || !canLead(n.load.State) {
			continue
		}
		if r := e.rank(n, from); best < 0 || r.compare(found) < 0 {
			best, found = i, r
		}
	}
	if best >= 0 {
		e.nodes[among[best]].leaders++
	}
	return best
}

// canLead says whether a node in a state can be expected to serve a region soon.
func canLead(s metasrvpb.NodeState) bool {
	return s == metasrvpb.NodeState_NODE_STATE_LIVE || s == metasrvpb.NodeState_NODE_STATE_SUSPECT
}

// rank orders the nodes that could lead a region: the lowest does.
type rank struct {
	unfit int
	// near is how much of a failure domain the node shares with the one that led: 1 the zone, 2 the rack, 3 the host.
	near int
	cost int64
	id   metasrv.NodeID
}

func (e *Elector) rank(n, from *node) rank {
	return rank{
		unfit: unfit(n.load),
		near:  nearness(n, from),
		cost:  int64(n.leaders)*unit*unit/(n.model.weight*e.average) + n.model.load,
		id:    n.load.ID,
	}
}

// unfit says how little a node is fit to lead: one that is drained serves at least.
func unfit(n *NodeLoad) int {
	switch {
	case n.State != metasrvpb.NodeState_NODE_STATE_LIVE:
		return 2
	case n.Draining:
		return 1
	}
	return 0
}

func (r rank) compare(o rank) int {
	return cmp.Or(cmp.Compare(r.unfit, o.unfit), cmp.Compare(r.near, o.near), cmp.Compare(r.cost, o.cost), cmp.Compare(r.id, o.id))
}

// nearness compares labels; one that is missing is shared with nobody.
func nearness(n, from *node) int {
	if from == nil {
		return 0
	}
	same := func(a, b string) bool { return a != "" && a == b }
	switch {
	case same(n.load.Host, from.load.Host):
		return 3
	case same(n.load.Rack, from.load.Rack):
		return 2
	case same(n.load.Zone, from.load.Zone):
		return 1
	}
	return 0
}
