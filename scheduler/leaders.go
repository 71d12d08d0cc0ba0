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
	led := t.ledRegions()
	for improved := true; improved; {
		improved = false
		for _, from := range t.nodes {
			for from.leaders > 0 && t.handOn(from, led) {
				improved = true
				led = t.ledRegions()
			}
		}
	}
}

// ledRegions returns the indexes of the regions that each node leads.
func (t *table) ledRegions() [][]int {
	led := make([][]int, len(t.nodes))
	for i, region := range t.regions {
		led[region[0].index] = append(led[region[0].index], i)
	}
	return led
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
func (t *table) handOn(from *node, led [][]int) bool {
	cost := from.leaderCost(from.leaders - 1)
	if !slices.ContainsFunc(t.nodes, func(n *node) bool { return n.leaderCost(n.leaders) < cost }) {
		return false
	}
	type step struct {
		by     *node // who hands on
		region int
	}
	reached := make([]step, len(t.nodes))
	seen := make([]bool, len(t.nodes))
	seen[from.index] = true
	best, bestCost := (*node)(nil), cost
	for queue := []*node{from}; len(queue) > 0; queue = queue[1:] {
		for _, i := range led[queue[0].index] {
			for _, n := range t.regions[i][1:] {
				if seen[n.index] {
					continue
				}
				seen[n.index] = true
				reached[n.index] = step{by: queue[0], region: i}
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
	for n := best; n != from; n = reached[n.index].by {
		region := t.regions[reached[n.index].region]
		lead(region, slices.Index(region, n))
	}
	return true
}

// lead moves the replica with an index to the front.
func lead(region []*node, i int) { region[0], region[i] = region[i], region[0] }
