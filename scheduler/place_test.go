package scheduler

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	live    = metasrvpb.NodeState_NODE_STATE_LIVE
	suspect = metasrvpb.NodeState_NODE_STATE_SUSPECT
	down    = metasrvpb.NodeState_NODE_STATE_DOWN
	unknown = metasrvpb.NodeState_NODE_STATE_UNKNOWN
)

func in(state metasrvpb.NodeState, ids ...metasrv.NodeID) []NodeLoad {
	nodes := make([]NodeLoad, len(ids))
	for i, id := range ids {
		nodes[i] = NodeLoad{
			ID: id, Incarnation: metasrv.Incarnation(100 + id), State: state, Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, Measured: true,
			RCUsPerSecond: 1000, WCUsPerSecond: 1000, CPUCores: 4, MemoryBytes: 8 << 30, DiskBytes: 100 << 30,
		}
	}
	return nodes
}

func with(nodes []NodeLoad, id metasrv.NodeID, change func(*NodeLoad)) []NodeLoad {
	for i := range nodes {
		if nodes[i].ID == id {
			change(&nodes[i])
		}
	}
	return nodes
}

// counts returns the replicas and region leaders of each node.
func counts(regions [][]Assignment) (replicas, leaders map[metasrv.NodeID]int) {
	replicas, leaders = map[metasrv.NodeID]int{}, map[metasrv.NodeID]int{}
	for _, region := range regions {
		leaders[region[0].Node]++
		for _, a := range region {
			replicas[a.Node]++
		}
	}
	return replicas, leaders
}

func mustPlace(t testing.TB, policy string, nodes []NodeLoad, req Request) [][]Assignment {
	t.Helper()
	p, err := PolicyByName(policy)
	if err != nil {
		t.Fatal(err)
	}
	regions, err := p.Place(nodes, req)
	if err != nil {
		t.Fatal(err)
	}
	return regions
}

func TestRefused(t *testing.T) {
	fullDisk := func(n *NodeLoad) { n.DiskUsed = n.DiskBytes }
	legacy := func(n *NodeLoad) { n.Legacy = true }
	frontend := func(n *NodeLoad) { n.Role = metasrvpb.NodeRole_NODE_ROLE_FRONTEND }
	join := func(lists ...[]NodeLoad) (all []NodeLoad) {
		for _, list := range lists {
			all = append(all, list...)
		}
		return all
	}
	for _, c := range []struct {
		name  string
		nodes []NodeLoad
		req   Request
		err   *metasrv.Error
		says  string
	}{
		{name: "no node", req: Request{Regions: 1}, err: metasrv.ErrNoLiveDatanode, says: "none is registered"},
		{name: "frontends only", nodes: with(in(live, 1), 1, frontend), req: Request{Regions: 1}, err: metasrv.ErrNoLiveDatanode, says: "none is registered"},
		{name: "silent nodes", nodes: join(in(suspect, 1, 2), in(down, 3)), req: Request{Regions: 1}, err: metasrv.ErrNoLiveDatanode, says: "3 registered: 0 live, 2 suspect, 1 down"},
		{name: "too few", nodes: join(in(live, 1, 2), in(down, 3)), req: Request{Regions: 1, Replicas: 3}, err: metasrv.ErrTooFewDatanodes, says: "3 replicas a region need as many datanodes, 2 can be chosen: 3 registered: 2 live, 1 down"},
		{name: "new leader", nodes: in(unknown, 1, 2), req: Request{Regions: 1}, err: metasrv.ErrNodesNotHeard, says: "2 not heard yet"},
		{name: "new leader, one heard", nodes: join(in(live, 1), in(unknown, 2)), req: Request{Regions: 1, Replicas: 2}, err: metasrv.ErrNodesNotHeard, says: "1 live, 1 not heard yet"},
		{name: "new leader, one heard, default replicas", nodes: join(in(live, 1), in(unknown, 2)), req: Request{Regions: 1}, err: metasrv.ErrNodesNotHeard},
		{name: "new leader, too few at any rate", nodes: join(in(live, 1), in(unknown, 2)), req: Request{Regions: 1, Replicas: 3}, err: metasrv.ErrTooFewDatanodes},
		{name: "full disks", nodes: with(in(live, 1, 2), 2, fullDisk), req: Request{Regions: 1, Replicas: 2}, err: metasrv.ErrTooFewDatanodes, says: "1 of the live with a full disk"},
		{name: "legacy", nodes: with(in(live, 1, 2), 2, legacy), req: Request{Regions: 1, Replicas: 2}, err: metasrv.ErrTooFewDatanodes, says: "early public protocol"},
		{name: "no region", nodes: in(live, 1), err: metasrv.ErrInvalidArgument, says: "regions"},
		{name: "negative", nodes: in(live, 1), req: Request{Regions: 1, Replicas: -1}, err: metasrv.ErrInvalidArgument, says: "replicas"},
	} {
		t.Run(c.name, func(t *testing.T) {
			regions, err := Policy{}.Place(c.nodes, c.req)
			if !errors.Is(err, c.err) || regions != nil || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v, %v; want %v saying %q", regions, err, c.err.Reason, c.says)
			}
		})
	}
}

func TestDefaultReplicas(t *testing.T) {
	for live, want := range map[int]int{1: 1, 2: 2, 5: 2} {
		ids := []metasrv.NodeID{1, 2, 3, 4, 5}[:live]
		if got := len(mustPlace(t, "", in(metasrvpb.NodeState_NODE_STATE_LIVE, ids...), Request{Regions: 1})[0]); got != want {
			t.Errorf("%d nodes: %d replicas, want %d", live, got, want)
		}
	}
}

func TestAssignmentNamesIncarnation(t *testing.T) {
	got := mustPlace(t, "", in(live, 7), Request{Regions: 1})
	if diff := cmp.Diff([][]Assignment{{{Node: 7, Incarnation: 107}}}, got); diff != "" {
		t.Error(diff)
	}
}

func TestLegacyNodesAreForLegacyTables(t *testing.T) {
	nodes := with(in(live, 1, 2), 1, func(n *NodeLoad) { n.Legacy = true })
	replicas, _ := counts(mustPlace(t, "", nodes, Request{Regions: 4, Replicas: 1}))
	if replicas[1] != 0 {
		t.Errorf("chosen: %v", replicas)
	}
	replicas, _ = counts(mustPlace(t, "", nodes, Request{Regions: 4, Replicas: 1, AllowLegacy: true}))
	if replicas[1] != 2 {
		t.Errorf("not chosen: %v", replicas)
	}
}

// TestWhichNode places one table on three nodes of which node 2 is special.
func TestWhichNode(t *testing.T) {
	for _, c := range []struct {
		name   string
		policy string
		req    Request
		change func(*NodeLoad)
		want   int // replicas on node 2
	}{
		{name: "equal", req: Request{Regions: 6, Replicas: 1}, want: 2},
		{name: "disk nearly full", req: Request{Regions: 6, Replicas: 2}, change: func(n *NodeLoad) { n.DiskUsed = n.DiskBytes * 92 / 100 }, want: 0},
		{name: "disk nearly full but needed", req: Request{Regions: 6, Replicas: 3}, change: func(n *NodeLoad) { n.DiskUsed = n.DiskBytes * 92 / 100 }, want: 6},
		{name: "crowded", req: Request{Regions: 1, Replicas: 2}, change: func(n *NodeLoad) { n.Replicas = 5 }, want: 0},
		{name: "busy processor", req: Request{Regions: 1, Replicas: 2}, change: func(n *NodeLoad) { n.CPU = 0.9 }, want: 0},
		{name: "busy with writes", req: Request{Regions: 1, Replicas: 2}, change: func(n *NodeLoad) { n.WCUs = 800 }, want: 0},
		{name: "busy, large table", req: Request{Regions: 30, Replicas: 1}, change: func(n *NodeLoad) { n.CPU = 0.9 }, want: 6},
		{name: "twice the size", req: Request{Regions: 40, Replicas: 1}, change: func(n *NodeLoad) {
			n.CPUCores, n.MemoryBytes, n.DiskBytes, n.RCUsPerSecond, n.WCUsPerSecond = 8, 16<<30, 200<<30, 2000, 2000
		}, want: 20},
		{name: "load_based: busy", policy: PolicyLoadBased, req: Request{Regions: 6, Replicas: 1}, change: func(n *NodeLoad) { n.CPU = 0.9 }, want: 0},
		{name: "load_based: crowded but idle", policy: PolicyLoadBased, req: Request{Regions: 6, Replicas: 1}, change: func(n *NodeLoad) { n.Replicas = 50 }, want: 2},
		{name: "round_robin: busy", policy: PolicyRoundRobin, req: Request{Regions: 6, Replicas: 1}, change: func(n *NodeLoad) { n.CPU = 0.9; n.Replicas = 90 }, want: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			nodes := in(live, 1, 2, 3)
			if c.change != nil {
				nodes = with(nodes, 2, c.change)
			}
			replicas, _ := counts(mustPlace(t, c.policy, nodes, c.req))
			if replicas[2] != c.want {
				t.Errorf("%d replicas on node 2, want %d: %v", replicas[2], c.want, replicas)
			}
		})
	}
}

// TestUnknownLoadIsAverage: a node that has said nothing yet is not the idlest one.
func TestUnknownLoadIsAverage(t *testing.T) {
	nodes := in(live, 1, 2, 3)
	nodes = with(nodes, 1, func(n *NodeLoad) { n.CPU = 0.6 })
	nodes = with(nodes, 2, func(n *NodeLoad) { *n = NodeLoad{ID: 2, State: live} })
	nodes = with(nodes, 3, func(n *NodeLoad) { n.CPU = 0.2 })
	got := mustPlace(t, PolicyLoadBased, nodes, Request{Regions: 1, Replicas: 2})
	if got[0][0].Node == 1 || got[0][1].Node == 1 {
		t.Errorf("%v", got)
	}
	got = mustPlace(t, PolicyLoadBased, nodes, Request{Regions: 1, Replicas: 1})
	if got[0][0].Node != 3 {
		t.Errorf("%v", got)
	}
}

// TestSmallTables creates many tables, each seeing the counts of those before.
func TestSmallTables(t *testing.T) {
	for _, policy := range PolicyNames() {
		if policy == PolicyLoadBased {
			continue // it follows what is measured, and here nothing is
		}
		t.Run(policy, func(t *testing.T) {
			nodes := in(live, 1, 2, 3, 4, 5)
			for table := range 50 {
				got := mustPlace(t, policy, nodes, Request{Regions: 1, Replicas: 2, Rotation: uint64(2 * table)})
				for id, n := range first(counts(got)) {
					nodes[id-1].Replicas += n
				}
				nodes[got[0][0].Node-1].Leaders++
			}
			for _, n := range nodes {
				if n.Replicas < 18 || n.Replicas > 22 || n.Leaders < 8 || n.Leaders > 12 {
					t.Errorf("node %d has %d replicas and %d leaders of 100 and 50", n.ID, n.Replicas, n.Leaders)
				}
			}
		})
	}
}

func first(replicas, _ map[metasrv.NodeID]int) map[metasrv.NodeID]int { return replicas }

// TestEmptyNodeIsNotFlooded: a node that joined has room, but a table on it alone would be slow.
func TestEmptyNodeIsNotFlooded(t *testing.T) {
	nodes := in(live, 1, 2, 3, 4)
	for i := range nodes[:3] {
		nodes[i].Replicas, nodes[i].Leaders = 100, 50
	}
	replicas, leaders := counts(mustPlace(t, "", nodes, Request{Regions: 16, Replicas: 2}))
	if replicas[4] <= 8 || replicas[4] > 13 || leaders[4] < 4 || leaders[4] > 8 {
		t.Errorf("%d replicas, %d leaders of 32, 16", replicas[4], leaders[4])
	}
}

func TestPolicies(t *testing.T) {
	if _, err := PolicyByName("magic"); !errors.Is(err, metasrv.ErrInvalidArgument) || !strings.Contains(err.Error(), "default, load_based, round_robin") {
		t.Errorf("got %v", err)
	}
	for _, name := range PolicyNames() {
		if p, err := PolicyByName(name); err != nil || p.Name() != name {
			t.Errorf("%s: %v, %v", name, p.Name(), err)
		}
	}
	if p, err := PolicyByName(""); err != nil || p.Name() != PolicyDefault {
		t.Errorf("%v, %v", p, err)
	}
}

func BenchmarkPlace(b *testing.B) {
	for _, size := range []struct{ nodes, regions int }{{10, 100}, {1000, 10}, {1000, 100}, {1000, 1000}} {
		b.Run(fmt.Sprintf("nodes=%d/regions=%d", size.nodes, size.regions), func(b *testing.B) {
			ids := make([]metasrv.NodeID, size.nodes)
			for i := range ids {
				ids[i] = metasrv.NodeID(i + 1)
			}
			nodes := in(live, ids...)
			for i := range nodes {
				nodes[i].Zone = fmt.Sprint("zone", i%3)
				nodes[i].Replicas = i % 7
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (Policy{}).Place(nodes, Request{Regions: size.regions, Replicas: 2}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
