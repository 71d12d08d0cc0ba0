package scheduler

import "slices"

// chooseLeaders moves the region leader of each region to the front of its replicas.
//
// Leaders cost more the more a node has of them: of this table first, then of the cluster, each relative to
// what the node can serve. A greedy choice begins; then leadership is handed on along chains of regions
// (a leads a region that b holds, b leads one that c holds, …) as long as that makes it cheaper. As the costs
// are convex, no better choice exists for the given replicas when no chain is left.
func (t *table) chooseLeaders() {
	for _, region := range t.regions {
		best := 0
		for i, n := range region {
			if n.leaderCost(n.leaders) < region[best].leaderCost(region[best].leaders) {
				best = i
			}
		}
		lead(region, best)
		region[0].leaders++
	}
	h := t.holders()
	for improved := true; improved; {
		improved = false
		for _, from := range h.nodes {
			for from.leaders > 0 && t.handOn(from, h) {
				improved = true
			}
		}
	}
}

// holders are the nodes that have replicas of a table, few among those of a large cluster. A node's holder is its index.
type holders struct {
	nodes []*node
	// led has the indexes of the regions that each leads.
	led [][]int
	// reached has the step by which each was reached in the search of that number, searches counts them.
	reached  []step
	searches int
}

// step is one of a chain along which leadership is handed on.
type step struct {
	by     *node // who hands on
	region int
	search int
}

func (t *table) holders() *holders {
	h := &holders{}
	for _, region := range t.regions {
		h.nodes = append(h.nodes, region...)
	}
	slices.SortFunc(h.nodes, func(a, b *node) int { return a.index - b.index })
	h.nodes = slices.Compact(h.nodes)
	for i, n := range h.nodes {
		n.holder = i
	}
	h.led, h.reached = make([][]int, len(h.nodes)), make([]step, len(h.nodes))
	for i, region := range t.regions {
		h.led[region[0].holder] = append(h.led[region[0].holder], i)
	}
	return h
}

// leaderCost is the cost of one more region leader on a node that has some of this table.
func (n *node) leaderCost(leaders int) int64 {
	const tableFirst = 1 << 20
	table := int64(2*leaders+1) * tableFirst
	cluster := int64(min(2*(leaders+n.load.Leaders)+1, tableFirst))
	return (table + cluster) * unit / n.model.weight
}

// handOn takes one leadership from a node, along the chain to the node where that is cheapest, and says
// whether there was one where it is cheaper.
func (t *table) handOn(from *node, h *holders) bool {
	cost := from.leaderCost(from.leaders - 1)
	if !slices.ContainsFunc(h.nodes, func(n *node) bool { return n.leaderCost(n.leaders) < cost }) {
		return false
	}
	h.searches++
	h.reached[from.holder].search = h.searches
	best, bestCost := (*node)(nil), cost
	for queue := []*node{from}; len(queue) > 0; queue = queue[1:] {
		for _, i := range h.led[queue[0].holder] {
			for _, n := range t.regions[i][1:] {
				if h.reached[n.holder].search == h.searches {
					continue
				}
				h.reached[n.holder] = step{by: queue[0], region: i, search: h.searches}
				queue = append(queue, n)
				if cost := n.leaderCost(n.leaders); cost < bestCost {
					best, bestCost = n, cost
				}
			}
		}
	}
	if best == nil {
		return false
	}
	best.leaders++
	from.leaders--
	for n := best; n != from; {
		s := h.reached[n.holder]
		lead(t.regions[s.region], slices.Index(t.regions[s.region], n))
		h.led[n.holder] = append(h.led[n.holder], s.region)
		i := slices.Index(h.led[s.by.holder], s.region)
		h.led[s.by.holder] = slices.Delete(h.led[s.by.holder], i, i+1)
		n = s.by
	}
	return true
}

// lead moves the replica with an index to the front.
func lead(region []*node, i int) { region[0], region[i] = region[i], region[0] }
