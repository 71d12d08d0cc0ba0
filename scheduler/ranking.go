package scheduler

import "container/heap"

// ranking is a heap of the nodes of one zone, the best by score and rank on top.
type ranking []*node

// rankings returns that of each zone.
func rankings(nodes []*node, zones int) []ranking {
	all := make([]ranking, zones)
	for _, n := range nodes {
		if all[n.zone] == nil {
			all[n.zone] = make(ranking, 0, n.zoneSize)
		}
		all[n.zone] = append(all[n.zone], n)
	}
	for i := range all {
		heap.Init(&all[i])
	}
	return all
}

// take removes the best node and returns it.
func (r *ranking) take() *node { return heap.Pop(r).(*node) } //nolint:forcetypeassert // it holds nothing else

func (r *ranking) add(n *node) { heap.Push(r, n) }

// Len implements heap.Interface.
func (r ranking) Len() int { return len(r) }

// Less implements heap.Interface.
func (r ranking) Less(i, j int) bool {
	if r[i].score != r[j].score {
		return r[i].score < r[j].score
	}
	return r[i].rank < r[j].rank
}

// Swap implements heap.Interface.
func (r ranking) Swap(i, j int) { r[i], r[j] = r[j], r[i] }

// Push implements heap.Interface.
func (r *ranking) Push(n any) { *r = append(*r, n.(*node)) } //nolint:forcetypeassert // it holds nothing else

// Pop implements heap.Interface.
func (r *ranking) Pop() any {
	last := len(*r) - 1
	n := (*r)[last]
	*r = (*r)[:last]
	return n
}
