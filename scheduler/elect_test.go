package scheduler_test

import (
	"testing"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/scheduler"
)

func TestElectorPrefers(t *testing.T) {
	live := func(id metasrv.NodeID, change func(*scheduler.NodeLoad)) scheduler.NodeLoad {
		n := scheduler.NodeLoad{ID: id, State: metasrvpb.NodeState_NODE_STATE_LIVE}
		if change != nil {
			change(&n)
		}
		return n
	}
	at := func(zone, rack, host string) func(*scheduler.NodeLoad) {
		return func(n *scheduler.NodeLoad) { n.Zone, n.Rack, n.Host = zone, rack, host }
	}
	in := func(s metasrvpb.NodeState) func(*scheduler.NodeLoad) {
		return func(n *scheduler.NodeLoad) { n.State = s }
	}
	led := live(9, func(n *scheduler.NodeLoad) {
		n.State = metasrvpb.NodeState_NODE_STATE_DOWN
		n.Zone, n.Rack, n.Host = "a", "a1", "h1"
	})
	for name, c := range map[string]struct {
		nodes []scheduler.NodeLoad
		want  int // index in nodes
	}{
		"none":                          {nil, -1},
		"only a silent one":             {[]scheduler.NodeLoad{live(1, in(metasrvpb.NodeState_NODE_STATE_DOWN))}, -1},
		"a suspect one, if need be":     {[]scheduler.NodeLoad{live(1, in(metasrvpb.NodeState_NODE_STATE_SUSPECT))}, 0},
		"a live one before":             {[]scheduler.NodeLoad{live(1, in(metasrvpb.NodeState_NODE_STATE_SUSPECT)), live(2, at("a", "a1", "h1"))}, 1},
		"a drained one serves at least": {[]scheduler.NodeLoad{live(1, in(metasrvpb.NodeState_NODE_STATE_SUSPECT)), live(2, func(n *scheduler.NodeLoad) { n.Draining = true })}, 1},
		"one that is not drained":       {[]scheduler.NodeLoad{live(1, func(n *scheduler.NodeLoad) { n.Leaders = 9 }), live(2, func(n *scheduler.NodeLoad) { n.Draining = true })}, 0},
		"another zone":                  {[]scheduler.NodeLoad{live(1, at("a", "a2", "h2")), live(2, at("b", "b1", "h3"))}, 1},
		"another rack":                  {[]scheduler.NodeLoad{live(1, at("a", "a1", "h2")), live(2, at("a", "a2", "h3"))}, 1},
		"another host":                  {[]scheduler.NodeLoad{live(1, at("a", "a1", "h1")), live(2, at("a", "a1", "h2"))}, 1},
		"unlabelled: fewest led":        {[]scheduler.NodeLoad{live(1, func(n *scheduler.NodeLoad) { n.Leaders = 3 }), live(2, func(n *scheduler.NodeLoad) { n.Leaders = 2 })}, 1},
		"as many led: the less loaded":  {[]scheduler.NodeLoad{live(1, func(n *scheduler.NodeLoad) { n.Measured, n.CPU = true, .9 }), live(2, func(n *scheduler.NodeLoad) { n.Measured, n.CPU = true, .2 })}, 1},
		"what it can serve counts": {[]scheduler.NodeLoad{
			live(1, func(n *scheduler.NodeLoad) { n.Leaders, n.CPUCores = 3, 2 }),
			live(2, func(n *scheduler.NodeLoad) { n.Leaders, n.CPUCores = 4, 8 }),
		}, 1},
	} {
		e := scheduler.NewElector(append([]scheduler.NodeLoad{led}, c.nodes...))
		if name == "what it can serve counts" {
			e = scheduler.NewElector(c.nodes) // a capacity counts only if it is known of all
		}
		var among []metasrv.NodeID
		for _, n := range c.nodes {
			among = append(among, n.ID)
		}
		if got := e.Choose(9, among); got != c.want {
			t.Errorf("%s: chose %d, want %d", name, got, c.want)
		}
	}
}

// What one node led does not all go to the node that led least.
func TestElectorSpreads(t *testing.T) {
	nodes := []scheduler.NodeLoad{{ID: 9, Leaders: 300, State: metasrvpb.NodeState_NODE_STATE_DOWN}}
	var among []metasrv.NodeID
	for id := metasrv.NodeID(1); id <= 4; id++ {
		nodes = append(nodes, scheduler.NodeLoad{ID: id, Leaders: 300, State: metasrvpb.NodeState_NODE_STATE_LIVE})
		among = append(among, id)
	}
	e, chosen := scheduler.NewElector(nodes), map[int]int{}
	for range 300 {
		chosen[e.Choose(9, among)]++
	}
	for i := range among {
		if chosen[i] != 75 {
			t.Errorf("node %d gets %d of 300 regions, want 75", among[i], chosen[i])
		}
	}
}
