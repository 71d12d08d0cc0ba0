package scheduler

import (
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func drawPolicy(t *rapid.T) Policy { return rapid.SampledFrom(policies).Draw(t, "policy") }

func drawNodes(t *rapid.T) []NodeLoad {
	nodes := make([]NodeLoad, rapid.IntRange(1, 12).Draw(t, "nodes"))
	for i := range nodes {
		nodes[i] = NodeLoad{
			ID: metasrv.NodeID(i + 1), Incarnation: metasrv.Incarnation(i + 50),
			Role:     rapid.SampledFrom([]metasrvpb.NodeRole{0, 1, 1, 1, 2}).Draw(t, "role"),
			State:    rapid.SampledFrom([]metasrvpb.NodeState{live, live, live, suspect, down, unknown}).Draw(t, "state"),
			Legacy:   rapid.IntRange(0, 5).Draw(t, "legacy") == 0,
			Zone:     rapid.SampledFrom([]string{"", "a", "b", "c"}).Draw(t, "zone"),
			Replicas: rapid.IntRange(0, 1000).Draw(t, "replicas"), Leaders: rapid.IntRange(0, 1000).Draw(t, "leaders"),
			Measured: rapid.Bool().Draw(t, "measured"),
			RCUs:     rapid.Float64().Draw(t, "rcus"), WCUs: rapid.Float64().Draw(t, "wcus"), CPU: rapid.Float64().Draw(t, "cpu"),
			RCUsPerSecond: rapid.Uint64().Draw(t, "rcu capacity"), WCUsPerSecond: rapid.Uint64().Draw(t, "wcu capacity"),
			CPUCores:   rapid.Uint32().Draw(t, "cores"),
			MemoryUsed: rapid.Uint64().Draw(t, "memory used"), MemoryBytes: rapid.Uint64().Draw(t, "memory"),
			DiskUsed: rapid.Uint64Range(0, 100).Draw(t, "disk used"), DiskBytes: rapid.Uint64Range(0, 100).Draw(t, "disk"),
		}
	}
	return nodes
}

// TestAnyCluster: whatever the nodes say, a placement is one that may be.
func TestAnyCluster(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, p := drawNodes(t), drawPolicy(t)
		req := Request{
			Regions: rapid.IntRange(1, 40).Draw(t, "regions"), Replicas: rapid.IntRange(0, 5).Draw(t, "replicas"),
			Rotation: rapid.Uint64().Draw(t, "rotation"), AllowLegacy: rapid.Bool().Draw(t, "allow legacy"),
		}
		regions, err := p.Place(nodes, req)
		shuffled := append([]NodeLoad(nil), nodes...)
		rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "shuffle"), 0)).Shuffle(len(shuffled), func(i, j int) { //nolint:gosec // drawn by rapid
			shuffled[i], shuffled[j] = shuffled[j], shuffled[i]
		})
		again, errAgain := p.Place(shuffled, req)
		if !reflect.DeepEqual(regions, again) || (err == nil) != (errAgain == nil) {
			t.Fatalf("another order, another answer:\n%v %v\n%v %v", regions, err, again, errAgain)
		}
		if err != nil {
			return
		}
		checkRegions(t, nodes, regions, req)
	})
}

func checkRegions(t *rapid.T, nodes []NodeLoad, regions [][]Assignment, req Request) {
	if len(regions) != req.Regions {
		t.Fatalf("%d regions, want %d", len(regions), req.Regions)
	}
	for i, region := range regions {
		if req.Replicas != 0 && len(region) != req.Replicas || len(region) == 0 {
			t.Fatalf("region %d has %d replicas, want %d", i, len(region), req.Replicas)
		}
		seen := map[metasrv.NodeID]bool{}
		for _, a := range region {
			n := nodes[a.Node-1]
			switch {
			case seen[a.Node]:
				t.Fatalf("region %d has two replicas on node %d", i, a.Node)
			case n.State != live, n.Role == metasrvpb.NodeRole_NODE_ROLE_FRONTEND, n.Legacy && !req.AllowLegacy:
				t.Fatalf("region %d is on %+v", i, n)
			case n.Incarnation != a.Incarnation:
				t.Fatalf("incarnation %d of node %d, want %d", a.Incarnation, a.Node, n.Incarnation)
			}
			seen[a.Node] = true
		}
	}
}

// TestEqualNodes: neither replicas nor region leaders of equal nodes differ by more than one. Zones, where
// there are, have the same size, and there are enough for all replicas.
func TestEqualNodes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPolicy(t)
		zones := rapid.IntRange(1, 5).Draw(t, "zones")
		size := rapid.IntRange(1, 4).Draw(t, "nodes a zone")
		most := zones
		if zones == 1 {
			most = size
		}
		replicas := rapid.IntRange(1, most).Draw(t, "replicas")
		common := NodeLoad{
			State: live, Measured: true, CPU: rapid.Float64Range(0, 1).Draw(t, "cpu"), CPUCores: 4,
			Replicas: rapid.IntRange(0, 100).Draw(t, "have"), Leaders: rapid.IntRange(0, 100).Draw(t, "lead"),
		}
		var nodes []NodeLoad
		for i := range zones * size {
			n := common
			n.ID, n.Zone = metasrv.NodeID(i+1), string(rune('a'+i%zones))
			nodes = append(nodes, n)
		}
		regions, err := p.Place(nodes, Request{
			Regions: rapid.IntRange(1, 60).Draw(t, "regions"), Replicas: replicas, Rotation: rapid.Uint64().Draw(t, "rotation"),
		})
		if err != nil {
			t.Fatal(err)
		}
		all, leaders := counts(regions)
		for what, counted := range map[string]map[metasrv.NodeID]int{"replicas": all, "leaders": leaders} {
			lowest, highest := counted[1], counted[1]
			for _, n := range nodes {
				lowest, highest = min(lowest, counted[n.ID]), max(highest, counted[n.ID])
			}
			if highest-lowest > 1 {
				t.Fatalf("%s: %v", what, counted)
			}
		}
	})
}

// TestZones: a region's replicas are in as many zones as there can be, and evenly so far as they have nodes.
func TestZones(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, p := drawNodes(t), drawPolicy(t)
		zones := map[string]int{}
		for i := range nodes {
			nodes[i].Role, nodes[i].State, nodes[i].Legacy, nodes[i].DiskUsed = 1, live, false, 0
			zones[nodes[i].Zone]++
		}
		replicas := rapid.IntRange(1, len(nodes)).Draw(t, "replicas")
		regions, err := p.Place(nodes, Request{Regions: rapid.IntRange(1, 20).Draw(t, "regions"), Replicas: replicas})
		if err != nil {
			t.Fatal(err)
		}
		for i, region := range regions {
			used := map[string]int{}
			for _, a := range region {
				used[nodes[a.Node-1].Zone]++
			}
			for zone, size := range zones {
				for other, count := range used {
					if used[zone] < size && count > used[zone]+1 {
						t.Fatalf("region %d has %d replicas in zone %q and %d in %q with %d nodes", i, count, other, used[zone], zone, size)
					}
				}
			}
		}
	})
}

// TestLeadersAreBest compares with all possible choices of leaders.
func TestLeadersAreBest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		count := rapid.IntRange(2, 5).Draw(t, "nodes")
		var nodes []*node
		for i := range count {
			nodes = append(nodes, &node{
				index: i, load: &NodeLoad{Leaders: rapid.IntRange(0, 4).Draw(t, "have")},
				model: model{weight: rapid.SampledFrom([]int64{unit, unit, 2 * unit}).Draw(t, "weight")},
			})
		}
		replicas := rapid.IntRange(1, count).Draw(t, "replicas")
		tab := &table{nodes: nodes, replicas: replicas}
		for range rapid.IntRange(1, 6).Draw(t, "regions") {
			order := rapid.Permutation(nodes).Draw(t, "region")
			tab.regions = append(tab.regions, append([]*node(nil), order[:replicas]...))
		}
		best := cheapest(tab.regions, make([]int, count), 0)
		tab.chooseLeaders()
		got := int64(0)
		check := make([]int, count)
		for _, region := range tab.regions {
			n := region[0]
			got += n.leaderCost(check[n.index])
			check[n.index]++
		}
		for _, n := range nodes {
			if check[n.index] != n.leaders {
				t.Fatalf("node %d leads %d, counted %d", n.index, check[n.index], n.leaders)
			}
		}
		if got != best {
			t.Fatalf("cost %d, the best is %d", got, best)
		}
	})
}

func cheapest(regions [][]*node, leaders []int, i int) int64 {
	if i == len(regions) {
		return 0
	}
	best := int64(-1)
	for _, n := range regions[i] {
		cost := n.leaderCost(leaders[n.index])
		leaders[n.index]++
		cost += cheapest(regions, leaders, i+1)
		leaders[n.index]--
		if best < 0 || cost < best {
			best = cost
		}
	}
	return best
}

// TestEachReplicaGetsTheBestNode compares with a search among all nodes for each replica.
func TestEachReplicaGetsTheBestNode(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nodes, p := drawNodes(t), drawPolicy(t)
		req := Request{
			Regions: rapid.IntRange(1, 40).Draw(t, "regions"), Replicas: rapid.IntRange(1, 4).Draw(t, "replicas"), Rotation: rapid.Uint64().Draw(t, "rotation"),
		}
		chosen, replicas, err := admit(nodes, req)
		if err != nil {
			return
		}
		tab, plain := newTable(p, chosen, req, replicas), newTable(p, chosen, req, replicas)
		tab.placeReplicas()
		plain.search()
		if got, want := tab.assignments(), plain.assignments(); !reflect.DeepEqual(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

// search places as placeReplicas does, without heaps.
func (t *table) search() {
	for i := range t.regions {
		used := make([]int, len(t.zones))
		for range t.replicas {
			var best *node
			for _, n := range t.nodes {
				if !slices.Contains(t.regions[i], n) && (best == nil || t.compare(used, n, best) < 0) {
					best = n
				}
			}
			best.replicas++
			best.score = t.policy.score(best)
			t.zones[best.zone]++
			used[best.zone]++
			t.regions[i] = append(t.regions[i], best)
		}
	}
}
