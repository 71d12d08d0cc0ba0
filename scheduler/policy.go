package scheduler

import (
	"math"
	"strings"

	"github.com/metasrv/metasrv"
)

// Policy says what makes one live datanode better than another.
type Policy struct {
	name  string
	score func(n *node) int64
}

// The names of the policies.
const (
	// PolicyDefault weighs the table's own spread, the replicas in the cluster, and the measured load, each
	// relative to what a node can serve.
	PolicyDefault = "default"
	// PolicyLoadBased follows the measured load alone: a replica is taken to cost what the cluster's replicas
	// cost on average.
	PolicyLoadBased = "load_based"
	// PolicyRoundRobin deals replicas out evenly, whatever the nodes have or can serve.
	PolicyRoundRobin = "round_robin"
)

var policies = []Policy{
	{name: PolicyDefault, score: (*node).defaultScore},
	{name: PolicyLoadBased, score: (*node).loadScore},
	{name: PolicyRoundRobin, score: func(n *node) int64 { return int64(n.replicas) }},
}

// PolicyByName returns a policy; the empty name means the default one. ErrInvalidArgument lists the names.
func PolicyByName(name string) (Policy, error) {
	if name == "" {
		name = PolicyDefault
	}
	for _, p := range policies {
		if p.name == name {
			return p, nil
		}
	}
	return Policy{}, metasrv.InvalidArgument("placement_policy", "%q is unknown; there are %s", name, strings.Join(PolicyNames(), ", "))
}

// PolicyNames returns the names of all policies, the default one first.
func PolicyNames() []string {
	names := make([]string, len(policies))
	for i, p := range policies {
		names[i] = p.name
	}
	return names
}

// Name returns the policy's name.
func (p Policy) Name() string { return p.name }

// unit is 1 in the fixed-point numbers of this package. Integers, because sums of floats depend on their
// order, and a person must be able to follow a score.
const unit = 1000

// model is what the scores of a node are made of, in thousandths.
type model struct {
	// weight is what the node can serve, relative to the average.
	weight int64
	// fair is the node's share of this table's replicas, at least one.
	fair int64
	// crowd is the replicas that the cluster already placed on it, relative to the average a weight.
	crowd int64
	// load is how busy it is: half the mean, half the maximum over all dimensions.
	load int64
	// step is the load that one more replica is taken to bring.
	step int64
}

// defaultScore grows with each replica of the table: at its fair share a node has 2 for the table, 1 for the
// replicas it has if they are average, and 2 for load if it is wholly busy. So a node that is new and empty
// takes up to half more than its share of a table, not all of it; a busy one takes less, and none of a small
// table.
func (n *node) defaultScore() int64 {
	table := 2 * int64(n.replicas) * unit * unit / n.model.fair
	return table + n.model.crowd + 2*n.model.load
}

func (n *node) loadScore() int64 { return n.model.load + int64(n.replicas)*n.model.step }

// estimate fills the models of all candidates for a table with that many replicas in all.
func estimate(nodes []*node, total int) {
	weigh(nodes)
	measure(nodes)
	var weights, replicas, load int64
	for _, n := range nodes {
		weights += n.model.weight
		replicas += int64(n.load.Replicas)
		load += n.model.load
	}
	// With few replicas in the cluster what is measured is mostly something else: no more than a tenth of a
	// node is put down to one replica.
	step := min(max(unit/50, load/max(1, replicas)), unit/10)
	if replicas == 0 {
		step = unit / 50
	}
	for _, n := range nodes {
		m := &n.model
		m.fair = max(unit, int64(total)*unit*m.weight/weights)
		m.step = step * unit / m.weight
		if replicas > 0 {
			m.crowd = min(3*unit, int64(n.load.Replicas)*unit*weights/(replicas*m.weight))
		}
	}
}

// weigh compares what the nodes can serve, in the dimensions that are known of all of them.
func weigh(nodes []*node) {
	dimensions := [](func(*NodeLoad) float64){
		func(l *NodeLoad) float64 { return float64(l.RCUsPerSecond) },
		func(l *NodeLoad) float64 { return float64(l.WCUsPerSecond) },
		func(l *NodeLoad) float64 { return float64(l.CPUCores) },
		func(l *NodeLoad) float64 { return float64(l.MemoryBytes) },
		func(l *NodeLoad) float64 { return float64(l.DiskBytes) },
	}
	known := int64(0)
	for _, capacity := range dimensions {
		total := 0.0
		for _, n := range nodes {
			c := capacity(n.load)
			if c <= 0 {
				total = 0
				break
			}
			total += c
		}
		if total == 0 {
			continue
		}
		known++
		for _, n := range nodes {
			n.model.weight += int64(capacity(n.load) / total * float64(len(nodes)) * unit)
		}
	}
	for _, n := range nodes {
		if known == 0 {
			n.model.weight = unit
			continue
		}
		n.model.weight = min(max(n.model.weight/known, unit/4), 4*unit)
	}
}

// measure computes how busy each node is. Dimensions whose capacity is not known of all nodes are left out:
// a node must not look idle because it says less. A node that has not reported is taken for an average one.
func measure(nodes []*node) {
	dimensions := [](func(*NodeLoad) (used, capacity float64)){
		func(l *NodeLoad) (float64, float64) { return l.CPU, 1 },
		func(l *NodeLoad) (float64, float64) { return l.RCUs, float64(l.RCUsPerSecond) },
		func(l *NodeLoad) (float64, float64) { return l.WCUs, float64(l.WCUsPerSecond) },
		func(l *NodeLoad) (float64, float64) { return float64(l.MemoryUsed), float64(l.MemoryBytes) },
		func(l *NodeLoad) (float64, float64) { return float64(l.DiskUsed), float64(l.DiskBytes) },
	}
	var measured, sum int64
	for _, n := range nodes {
		if n.load.Measured {
			measured++
		}
	}
	if measured == 0 {
		return
	}
	counted := int64(0)
	peaks := make([]int64, len(nodes))
	for _, dimension := range dimensions {
		if !knownOfAll(nodes, dimension) {
			continue
		}
		counted++
		for i, n := range nodes {
			s := share(dimension(n.load))
			n.model.load += s
			peaks[i] = max(peaks[i], s)
		}
	}
	for i, n := range nodes {
		n.model.load = (n.model.load/counted + peaks[i]) / 2
		if n.load.Measured {
			sum += n.model.load
		}
	}
	for _, n := range nodes {
		if !n.load.Measured {
			n.model.load = sum / measured
		}
	}
}

func knownOfAll(nodes []*node, dimension func(*NodeLoad) (used, capacity float64)) bool {
	for _, n := range nodes {
		if _, capacity := dimension(n.load); n.load.Measured && capacity <= 0 {
			return false
		}
	}
	return true
}

// share returns used/capacity in thousandths, between 0 and 2; 0 where a number is missing or is none.
func share(used, capacity float64) int64 {
	s := used / capacity * unit
	if capacity <= 0 || math.IsNaN(s) || s < 0 {
		return 0
	}
	return int64(min(s, 2*unit))
}
