package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// row is a write in the log of a node.
type row struct{ epoch, value uint64 }

// replicaGroup is a group of nodes that replicate by their own means: the writer copies each row to the others.
type replicaGroup struct {
	t     *testing.T
	cl    *client.Client
	nodes []*groupNode

	mu      sync.Mutex
	next    uint64
	acked   []row
	writers map[uint64]uint64 // by epochs
}

// groupNode is one node; its log and epoch outlive its processes.
type groupNode struct {
	group *replicaGroup
	id    uint64

	// gate is held by who pauses the process.
	gate sync.RWMutex
	// stop ends the process, nil where there is none.
	stop func()

	mu     sync.Mutex
	keeper *client.GroupKeeper
	up     bool
	epoch  uint64
	log    []row
	inSync map[uint64]bool // of followers, as the writer sees them
}

func newReplicaGroup(t *testing.T, cl *client.Client, n int) *replicaGroup {
	g := &replicaGroup{t: t, cl: cl, writers: map[uint64]uint64{}}
	for id := uint64(1); id <= uint64(n); id++ {
		g.nodes = append(g.nodes, &groupNode{group: g, id: id})
	}
	for _, n := range g.nodes {
		n.start()
	}
	t.Cleanup(func() {
		for _, n := range g.nodes {
			n.kill()
		}
	})
	return g
}

// start begins a process on what the node has stored.
func (n *groupNode) start() {
	n.mu.Lock()
	n.keeper, n.up, n.inSync = client.NewGroupKeeper(), true, map[uint64]bool{}
	n.mu.Unlock()
	task := client.NewHeartbeatTask(n.group.cl, client.HeartbeatConfig{
		Peer:        &metasrvpb.Peer{Id: n.id, Addr: fmt.Sprintf("127.0.0.1:%d", 4000+n.id)},
		NodeInfo:    &metasrvpb.NodeInfo{Group: "g", StorageUuid: fmt.Sprintf("disk %d", n.id)},
		GroupKeeper: n.keeper,
		OnGroup:     n.onGroup,
		Collect:     n.collect,
	})
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() {
		if err := task.Run(ctx); err != nil {
			n.group.t.Errorf("node %d: %v", n.id, err)
		}
	})
	work.Go(func() {
		for ctx.Err() == nil {
			n.write(ctx)
			time.Sleep(2 * time.Millisecond)
		}
	})
	n.stop = func() {
		cancel()
		work.Wait()
	}
}

// kill ends the process.
func (n *groupNode) kill() {
	if n.stop == nil {
		return
	}
	n.mu.Lock()
	n.up = false
	n.mu.Unlock()
	n.stop()
	n.stop = nil
}

// onGroup takes the office, after the epoch is durable.
func (n *groupNode) onGroup(_ context.Context, status *metasrvpb.GroupStatus) {
	n.running()
	n.mu.Lock()
	defer n.mu.Unlock()
	if status.GetWriter().GetId() != n.id || status.GetHandingOver() || status.GetEpoch() < n.epoch {
		return
	}
	n.epoch = status.GetEpoch()
	n.keeper.Lead(n.epoch)
}

// running waits while the process is paused.
func (n *groupNode) running() {
	n.gate.RLock()
	n.gate.RUnlock() //nolint:gocritic,staticcheck // it only waits
}

// collect reports the followers, and brings those up that are behind.
func (n *groupNode) collect(context.Context) (client.HeartbeatReport, error) {
	n.running()
	if _, err := n.keeper.BeginWrite(); err == nil {
		n.mu.Lock()
		for _, f := range n.group.nodes {
			if f != n && !n.inSync[f.id] {
				n.keeper.Require(f.id)
				if f.copyFrom(n) {
					n.inSync[f.id] = true
				} else {
					n.keeper.Waive(f.id)
				}
			}
		}
		n.mu.Unlock()
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	report := client.HeartbeatReport{LogSequence: uint64(len(n.log))}
	if len(n.log) > 0 {
		report.LogEpoch = n.log[len(n.log)-1].epoch
	}
	for _, f := range n.group.nodes {
		if f != n {
			report.ReplicaStats = append(report.ReplicaStats, &metasrvpb.ReplicaStat{Peer: &metasrvpb.Peer{Id: f.id}, InSync: n.inSync[f.id]})
		}
	}
	return report, nil
}

// copyFrom makes the log that of a writer, whose mutex is held. Locks are tried only, for two may think that they write.
func (n *groupNode) copyFrom(writer *groupNode) bool {
	if !n.mu.TryLock() {
		return false
	}
	defer n.mu.Unlock()
	if !n.up || n.epoch > writer.epoch {
		return false
	}
	n.epoch, n.log = writer.epoch, slices.Clone(writer.log)
	return true
}

// store appends a row that follows on the log as the writer has it.
func (n *groupNode) store(r row, at int) bool {
	for range 1000 { // it may be looking at others
		if n.mu.TryLock() {
			defer n.mu.Unlock()
			if !n.up || n.epoch > r.epoch || len(n.log) != at {
				return false
			}
			n.epoch, n.log = r.epoch, append(n.log, r)
			return true
		}
		time.Sleep(time.Millisecond)
	}
	return false
}

// write writes one row if the node may, and acknowledges it if it may.
func (n *groupNode) write(ctx context.Context) {
	n.running()
	n.mu.Lock()
	w, err := n.keeper.BeginWrite()
	if err != nil || w.Epoch() < n.epoch {
		n.mu.Unlock()
		return
	}
	r := row{w.Epoch(), n.group.value()}
	at := len(n.log)
	n.log = append(n.log, r)
	var stored []uint64
	for _, f := range n.group.nodes {
		if f != n && n.inSync[f.id] {
			if f.store(r, at) {
				stored = append(stored, f.id)
			} else {
				n.inSync[f.id] = false
				n.keeper.Waive(f.id)
			}
		}
	}
	n.mu.Unlock()
	n.running() // a pause may fall between the disk and the acknowledgement
	for ctx.Err() == nil {
		err := w.End(stored)
		if !errors.Is(err, metasrv.ErrNodeNotInSync) {
			if err == nil {
				n.group.acknowledge(n.id, r)
			}
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func (g *replicaGroup) value() uint64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.next++
	return g.next
}

func (g *replicaGroup) acknowledge(node uint64, r row) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if was, ok := g.writers[r.epoch]; ok && was != node {
		g.t.Errorf("epoch %d has acknowledgements of nodes %d and %d", r.epoch, was, node)
	}
	if n := len(g.acked); n > 0 && r.epoch < g.acked[n-1].epoch {
		g.t.Errorf("node %d acknowledged under epoch %d, after one under epoch %d", node, r.epoch, g.acked[n-1].epoch)
	}
	g.writers[r.epoch] = node
	g.acked = append(g.acked, r)
}

func (g *replicaGroup) acknowledged() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.acked)
}

// progress waits until more rows are acknowledged, and returns the group then, with all nodes in sync.
func (g *replicaGroup) progress() *metasrvpb.GroupInfo {
	g.t.Helper()
	before := g.acknowledged()
	var info *metasrvpb.GroupInfo
	eventually(g.t, "rows are acknowledged with all nodes in sync", func() bool {
		resp, err := g.cl.Cluster().ListGroups(g.t.Context(), &metasrvpb.ListGroupsRequest{})
		if err != nil || len(resp.GetGroups()) != 1 {
			return false
		}
		info = resp.GetGroups()[0]
		for _, m := range info.GetStatus().GetMembers() {
			if !m.GetInSync() {
				return false
			}
		}
		return info.GetWriting() && g.acknowledged() > before+10
	})
	return info
}

func (g *replicaGroup) node(id uint64) *groupNode { return g.nodes[id-1] }

// The writer of a group is replaced when it dies, hangs or hands over, and metasrv leaders die meanwhile: no row that was
// acknowledged is lost, and one node acknowledges an epoch's.
func TestWriterOfGroupIsReplaced(t *testing.T) {
	c := newCluster(t, "--heartbeat-interval", "200ms", "--region-lease", "1s", "--suspect-after", "2s", "--down-after", "5s")
	cl := c.client()
	g := newReplicaGroup(t, cl, 3)
	writer := g.progress().GetStatus().GetWriter().GetId()

	g.node(writer).kill()
	died := time.Now()
	before := g.acknowledged()
	eventually(t, "another node writes", func() bool { return g.acknowledged() > before })
	t.Logf("written again %s after the writer died", time.Since(died).Round(time.Millisecond))
	g.node(writer).start()
	next := g.progress().GetStatus().GetWriter().GetId()
	if next == writer {
		t.Fatalf("node %d writes, which was dead", writer)
	}

	hung := g.node(next)
	hung.gate.Lock()
	epochs := len(g.writers)
	eventually(t, "another node writes", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return len(g.writers) > epochs
	})
	hung.gate.Unlock()
	writer = g.progress().GetStatus().GetWriter().GetId()

	successor := writer%3 + 1
	if _, err := cl.Cluster().ElectGroupWriter(within(t), &metasrvpb.ElectGroupWriterRequest{Group: "g", NodeId: successor}); err != nil {
		t.Fatal(err)
	}
	leader := c.leader()
	c.kill(leader)
	eventually(t, "the successor writes", func() bool {
		resp, err := cl.Cluster().ListGroups(t.Context(), &metasrvpb.ListGroupsRequest{})
		return err == nil && resp.GetGroups()[0].GetStatus().GetWriter().GetId() == successor && resp.GetGroups()[0].GetWriting()
	})
	c.start(leader)
	writer = g.progress().GetStatus().GetWriter().GetId()
	g.check(writer)
}

// check stops all nodes, and looks for what was acknowledged in the log of the writer.
func (g *replicaGroup) check(writer uint64) {
	g.t.Helper()
	for _, n := range g.nodes {
		n.kill()
	}
	log := g.node(writer).log
	for _, r := range g.acked {
		i := slices.Index(log, r)
		if i < 0 {
			g.t.Errorf("row %v was acknowledged, and is lost", r)
			return
		}
		log = log[i+1:]
	}
	g.t.Logf("%d rows acknowledged in %d epochs", len(g.acked), len(g.writers))
}
