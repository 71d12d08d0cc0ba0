package scheduler

import (
	"cmp"
	"slices"

	"github.com/metasrv/metasrv"
)

// Request says what is to be placed.
type Request struct {
	// Regions of the new table, at least 1.
	Regions int
	// Replicas of each region, the region leader included. 0 means 1 where a single datanode can be chosen,
	// else 2.
	Replicas int
	// Rotation shifts the order in which equal nodes are taken, so that small tables don't all begin at the
	// same one. A number that differs from table to table, such as the next table id.
	Rotation uint64
	// AllowLegacy lets nodes be chosen that speak only the early public protocol. They can neither tell which
	// incarnation created a replica nor take instructions, so they serve only tables that are public at once:
	// those created by callers of that protocol.
	AllowLegacy bool
}

// Assignment puts one replica on a node.
type Assignment struct {
	Node        metasrv.NodeID
	Incarnation metasrv.Incarnation
}

// Place chooses the nodes of each region's replicas, the region leader's first. Nodes may come in any order.
//
// No two replicas of a region are on one node, and no more of them than needed in one zone. Replicas and
// region leaders of the table are spread over the nodes as the policy has it.
//
// The zero Policy is the default one.
//
// ErrNoLiveDatanode, ErrTooFewDatanodes: the live datanodes don't suffice. ErrNodesNotHeard: they don't yet,
// because the metasrv leader is new; retry.
func (p Policy) Place(nodes []NodeLoad, req Request) ([][]Assignment, error) {
	if req.Regions < 1 {
		return nil, metasrv.InvalidArgument("regions", "%d: a table has at least one", req.Regions)
	}
	if req.Replicas < 0 {
		return nil, metasrv.InvalidArgument("replicas", "%d is negative", req.Replicas)
	}
	chosen, replicas, err := admit(nodes, req)
	if err != nil {
		return nil, err
	}
	if p.score == nil {
		p = policies[0]
	}
	t := newTable(p, chosen, req, replicas)
	t.placeReplicas()
	t.chooseLeaders()
	return t.assignments(), nil
}

// admit returns the nodes to choose from and the number of replicas a region.
func admit(nodes []NodeLoad, req Request) ([]*NodeLoad, int, error) {
	fit, tight, found := candidates(nodes, req.AllowLegacy)
	usable := len(fit) + len(tight)
	replicas := req.Replicas
	if replicas == 0 {
		replicas = min(2, max(1, usable))
		if usable == 1 && found.unknown > 0 {
			// It is not the cluster that has a single datanode, but its new metasrv leader that knows one yet.
			replicas = 2
		}
	}
	switch {
	case usable >= replicas:
	case usable+found.unknown >= replicas:
		return nil, 0, metasrv.ErrNodesNotHeard.With("%d replicas a region need as many datanodes, and the metasrv leader is new: %s",
			replicas, found)
	case found.live == 0:
		return nil, 0, metasrv.ErrNoLiveDatanode.With("no live datanode: %s", found)
	default:
		return nil, 0, metasrv.ErrTooFewDatanodes.With("%d replicas a region need as many datanodes, %d can be chosen: %s",
			replicas, usable, found)
	}
	if len(fit) < replicas {
		slices.SortStableFunc(tight, func(a, b *NodeLoad) int { return cmp.Compare(a.diskUse(), b.diskUse()) })
		fit = append(fit, tight[:replicas-len(fit)]...)
		sortByID(fit)
	}
	return fit, replicas, nil
}

// table is a placement under way.
type table struct {
	policy   Policy
	nodes    []*node
	zones    []int // replicas of this table in each zone
	regions  [][]*node
	replicas int
}

// node is a candidate.
type node struct {
	load     *NodeLoad
	rank     int // order among equals
	index    int
	holder   int // among the nodes that have replicas of this table
	zone     int
	zoneSize int
	model    model
	replicas int   // of this table
	leaders  int   // of this table
	score    int64 // by the policy, for one more replica; the lowest wins
}

func newTable(p Policy, chosen []*NodeLoad, req Request, replicas int) *table {
	t := &table{policy: p, replicas: replicas, regions: make([][]*node, req.Regions), nodes: make([]*node, len(chosen))}
	zones := map[string]int{}
	first := int(req.Rotation % uint64(len(chosen))) //nolint:gosec // below the number of nodes
	candidates := make([]node, len(chosen))
	for i, load := range chosen {
		zone, ok := zones[load.Zone]
		if !ok {
			zone = len(zones)
			zones[load.Zone] = zone
		}
		rank := (i - first + len(chosen)) % len(chosen)
		candidates[i] = node{load: load, index: i, rank: rank, zone: zone}
		t.nodes[i] = &candidates[i]
	}
	t.zones = make([]int, len(zones))
	sizes := make([]int, len(zones))
	for _, n := range t.nodes {
		sizes[n.zone]++
	}
	for _, n := range t.nodes {
		n.zoneSize = sizes[n.zone]
	}
	estimate(t.nodes, req.Regions*replicas)
	for _, n := range t.nodes {
		n.score = p.score(n)
	}
	return t
}

// placeReplicas gives each region, one replica after the other, the best node: first by the zones that the
// region already uses, then by the policy's score, then by what keeps equal nodes in step. The best of each zone is
// at the top of a heap, for there may be thousands of nodes.
func (t *table) placeReplicas() {
	zones := rankings(t.nodes, len(t.zones))
	used := make([]int, len(t.zones)) // replicas of the region in each zone
	chosen := make([]*node, len(t.regions)*t.replicas)
	for i := range t.regions {
		clear(used)
		region := chosen[i*t.replicas : (i+1)*t.replicas]
		for j := range region {
			best := -1
			for zone, r := range zones {
				if len(r) > 0 && (best < 0 || t.compare(used, r[0], zones[best][0]) < 0) {
					best = zone
				}
			}
			n := zones[best].take()
			n.replicas++
			t.zones[best]++
			used[best]++
			region[j] = n
		}
		// Only now, so that a region has no node twice.
		for _, n := range region {
			n.score = t.policy.score(n)
			zones[n.zone].add(n)
		}
		t.regions[i] = region
	}
}

func (t *table) compare(used []int, a, b *node) int {
	if c := cmp.Compare(used[a.zone], used[b.zone]); c != 0 {
		return c
	}
	if c := cmp.Compare(a.score, b.score); c != 0 {
		return c
	}
	// Replicas a node in the zone: else the choice among equals could leave one zone behind, and the regions
	// that follow, which need it, would pile up elsewhere.
	if c := cmp.Compare(t.zones[a.zone]*b.zoneSize, t.zones[b.zone]*a.zoneSize); c != 0 {
		return c
	}
	return cmp.Compare(a.rank, b.rank)
}

func (t *table) assignments() [][]Assignment {
	out := make([][]Assignment, len(t.regions))
	for i, region := range t.regions {
		out[i] = make([]Assignment, len(region))
		for j, n := range region {
			out[i][j] = Assignment{Node: n.load.ID, Incarnation: n.load.Incarnation}
		}
	}
	return out
}

func sortByID(nodes []*NodeLoad) {
	slices.SortFunc(nodes, func(a, b *NodeLoad) int { return cmp.Compare(a.ID, b.ID) })
}
