package scheduler

import (
	"errors"
	"strings"
	"testing"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestAdd(t *testing.T) {
	node := func(id metasrv.NodeID, zone string, replicas int) NodeLoad {
		return NodeLoad{ID: id, Incarnation: 1, State: metasrvpb.NodeState_NODE_STATE_LIVE, Zone: zone, Replicas: replicas}
	}
	ids := func(list ...metasrv.NodeID) []metasrv.NodeID { return list }
	drained := node(4, "b", 0)
	drained.Draining = true
	nodes := []NodeLoad{node(1, "a", 5), node(2, "a", 5), node(3, "b", 9), drained, node(5, "a", 3)}
	for _, test := range []struct {
		name string
		a    Addition
		want metasrv.NodeID
	}{
		{"another zone", Addition{Have: ids(1)}, 3},
		{"the least in the only zone left", Addition{Have: ids(1, 3)}, 5},
		{"the zone of the one that leaves is free", Addition{Have: ids(1, 3), Leaves: 3}, 5},
		{"so it is where the other leaves", Addition{Have: ids(1, 2), Leaves: 2}, 3},
		{"the spread of the table counts", Addition{Have: ids(3), Table: map[metasrv.NodeID]int{5: 9, 1: 9}}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got, err := (Policy{}).Add(nodes, test.a); err != nil || got.Node != test.want {
				t.Errorf("chose %d, %v; want %d", got.Node, err, test.want)
			}
		})
	}
	for _, test := range []struct {
		name  string
		nodes []NodeLoad
		have  []metasrv.NodeID
		says  string
	}{
		{"only a drained node is left", nodes, ids(1, 2, 3, 5),
			"beside those that have one (node 1, node 2, node 3, node 5): of the others 1 registered: 1 live, 1 of the live drained, or being drained"},
		{"all have one", nodes[:2], ids(1, 2), "(node 1, node 2): of the others none is registered"},
	} {
		_, err := (Policy{}).Add(test.nodes, Addition{Have: test.have})
		if !errors.Is(err, metasrv.ErrTooFewDatanodes) || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: %v, want %q", test.name, err, test.says)
		}
	}
}
