package server

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	simInterval = 10 * time.Millisecond
	simLease    = 300 * time.Millisecond
)

// simulated has a member beat fast, so that leases and procedures end within a test's patience.
func simulated(c *Config) {
	c.HeartbeatInterval, c.RegionLease = simInterval, simLease
	c.SuspectPhi = 0 // beats so close together are late at once where the machine is busy
}

// simCluster is datanodes that beat by themselves and do what they are told, on replicas that have no rows.
type simCluster struct {
	t *testing.T
	m *testMemberServer

	mu    sync.Mutex
	nodes map[uint64]*simNode
	// leases has who may acknowledge writes of a region, and until when.
	leases map[uint64]simHeld
}

type simHeld struct {
	node  uint64
	until time.Time
}

// simNode is one of them. Its fields are guarded by the cluster's mutex.
type simNode struct {
	*simCluster
	id          uint64
	storage     string
	nonce       uint64
	incarnation uint64
	replicas    map[uint64]*simReplica // by region
	// deaf nodes do nothing that they are told; stubborn ones don't stop leading; slow ones are never caught up; full ones
	// make no new replicas; old ones keep no leases.
	deaf, stubborn, slow, full, old bool

	zone string

	stop func()
}

// simReplica is a replica as its node knows it.
type simReplica struct {
	metasrvpb.RegionStat
	config *metasrvpb.RegionConfig
}

func newSimCluster(t *testing.T, m *testMemberServer, nodes int) *simCluster {
	c := &simCluster{t: t, m: m, nodes: map[uint64]*simNode{}, leases: map[uint64]simHeld{}}
	for i := range nodes {
		c.start(uint64(i + 1))
	}
	return c
}

// start starts a node with an empty disk, and waits until it is registered.
func (c *simCluster) start(id uint64) *simNode {
	c.t.Helper()
	n := &simNode{simCluster: c, id: id, storage: "disk", nonce: id, replicas: map[uint64]*simReplica{}}
	c.mu.Lock()
	c.nodes[id] = n
	c.mu.Unlock()
	n.run()
	eventually(c.t, "the node is registered", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return n.incarnation != 0
	})
	return n
}

// replaceDisk stops a node and starts it anew with an empty disk.
func (n *simNode) replaceDisk() {
	n.stop()
	n.change(func(n *simNode) {
		n.storage, n.nonce, n.incarnation, n.replicas = n.storage+"+", n.nonce+1000, 0, map[uint64]*simReplica{}
	})
	n.run()
}

// run has the node beat until it is stopped.
func (n *simNode) run() {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			_ = n.stream(ctx) // the term may have ended
			select {
			case <-ctx.Done():
			case <-time.After(simInterval):
			}
		}
	}()
	n.stop = sync.OnceFunc(func() { cancel(); <-done })
	n.t.Cleanup(n.stop)
}

// stream keeps one heartbeat stream.
func (n *simNode) stream(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := metasrvpb.NewHeartbeatClient(n.m.conn).Heartbeat(ctx)
	if err != nil {
		return err
	}
	sent := map[uint64]simSent{}
	received := make(chan error, 1)
	var receiving sync.WaitGroup
	defer receiving.Wait()
	defer cancel()
	var mu sync.Mutex // of sent
	receiving.Go(func() {
		for {
			resp, err := stream.Recv()
			if err != nil {
				received <- err
				return
			}
			mu.Lock()
			request := sent[resp.GetSequence()]
			mu.Unlock()
			n.take(resp, request)
		}
	})
	for sequence := uint64(1); ; sequence++ {
		req := n.beat(sequence)
		mu.Lock()
		sent[sequence] = simSent{at: time.Now(), leads: leadIn(req)}
		delete(sent, sequence-1000)
		mu.Unlock()
		if err := stream.Send(req); err != nil {
			return err
		}
		select {
		case err := <-received:
			return err
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(simInterval):
		}
	}
}

// simSent is what a request said.
type simSent struct {
	at    time.Time
	leads map[uint64]uint64 // epochs by region
}

func leadIn(req *metasrvpb.HeartbeatRequest) map[uint64]uint64 {
	leads := map[uint64]uint64{}
	for _, r := range req.GetRegionStats() {
		if r.GetRole() == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER && !r.GetDemoted() {
			leads[r.GetRegionId()] = r.GetLeaderEpoch()
		}
	}
	return leads
}

// beat returns a full report, in which region leaders ask for replicas that the other nodes have.
func (n *simNode) beat(sequence uint64) *metasrvpb.HeartbeatRequest {
	n.mu.Lock()
	defer n.mu.Unlock()
	req := &metasrvpb.HeartbeatRequest{
		Peer: &metasrvpb.Peer{Id: n.id, Addr: "127.0.0.1:1"},
		Node: &metasrvpb.NodeInfo{
			Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, RegistrationNonce: n.nonce, KeepsLeases: !n.old, StorageUuid: n.storage,
			Labels: map[string]string{"zone": n.zone},
		},
		Sequence: sequence, Incarnation: n.incarnation, FullReport: true,
	}
	for _, r := range n.replicas {
		req.RegionStats = append(req.RegionStats, proto.CloneOf(&r.RegionStat))
		if change := n.growth(r); change != nil {
			req.InSyncChanges = append(req.InSyncChanges, change)
		}
	}
	slices.SortFunc(req.RegionStats, func(a, b *metasrvpb.RegionStat) int { return int(a.RegionId) - int(b.RegionId) })
	req.Digest = proto.Uint64(digest.Of(req.RegionStats))
	return req
}

// growth asks for all replicas of a region to be in sync that are there.
func (n *simNode) growth(r *simReplica) *metasrvpb.InSyncChange {
	if r.Role != metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER || r.Demoted || r.config == nil {
		return nil
	}
	change := &metasrvpb.InSyncChange{RegionId: r.RegionId, ReplicaId: r.ReplicaId, LeaderEpoch: r.LeaderEpoch, ConfVersion: r.ConfVersion}
	grows := false
	for _, c := range r.config.GetReplicas() {
		other := n.nodes[c.GetPeer().GetId()]
		there := other != nil && !other.slow && other.replicas[r.RegionId].is(c.GetReplicaId())
		if c.GetInSync() || there {
			change.InSyncReplicaIds = append(change.InSyncReplicaIds, c.GetReplicaId())
		}
		grows = grows || there && !c.GetInSync()
	}
	if !grows {
		return nil
	}
	return change
}

func (r *simReplica) is(id uint64) bool { return r != nil && r.ReplicaId == id }

// take does what an answer says.
func (n *simNode) take(resp *metasrvpb.HeartbeatResponse, request simSent) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if resp.GetIncarnation() != 0 {
		n.incarnation = resp.GetIncarnation()
	}
	if n.deaf {
		return
	}
	for _, i := range instructions(n.t, resp) {
		n.do(i)
	}
	if resp.GetLeaseMs() == 0 || request.at.IsZero() {
		return
	}
	until := request.at.Add(time.Duration(resp.GetLeaseMs()) * time.Millisecond)
	for region, epoch := range request.leads {
		refused := slices.ContainsFunc(resp.GetUngranted(), func(r *metasrvpb.ReplicaRef) bool { return r.GetRegionId() == region })
		if r := n.replicas[region]; !refused && r != nil && r.LeaderEpoch == epoch && !r.Demoted {
			n.grant(region, until)
		}
	}
}

// grant notes a lease. No two nodes may have one of the same region at the same time.
func (n *simNode) grant(region uint64, until time.Time) {
	held := n.leases[region]
	if now := time.Now(); held.node != n.id && held.until.After(now) && until.After(now) {
		n.t.Errorf("nodes %d and %d have leases of region %d at the same time", held.node, n.id, region)
	}
	if held.node != n.id || until.After(held.until) {
		n.leases[region] = simHeld{node: n.id, until: until}
	}
}

func (n *simNode) do(i *metasrvpb.Instruction) {
	switch i := i.GetInstruction().(type) {
	case *metasrvpb.Instruction_AddLearner:
		if n.full {
			return
		}
		n.put(i.AddLearner.GetReplicaId(), i.AddLearner.GetConfig(), metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER)
	case *metasrvpb.Instruction_CatchUpRegion:
		n.put(i.CatchUpRegion.GetReplicaId(), i.CatchUpRegion.GetConfig(), metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER)
	case *metasrvpb.Instruction_PromoteRegion:
		n.put(i.PromoteRegion.GetReplicaId(), i.PromoteRegion.GetConfig(), metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER)
	case *metasrvpb.Instruction_DemoteRegion:
		r := n.replicas[i.DemoteRegion.GetConfig().GetRegionId()]
		if r.is(i.DemoteRegion.GetReplicaId()) && r.LeaderEpoch <= i.DemoteRegion.GetConfig().GetLeaderEpoch() && !n.stubborn {
			r.Demoted = true
			n.stopped(r.RegionId)
		}
	case *metasrvpb.Instruction_DropRegion:
		if r := n.replicas[i.DropRegion.GetRegionId()]; r.is(i.DropRegion.GetReplicaId()) {
			delete(n.replicas, r.RegionId)
			n.stopped(r.RegionId)
		}
	}
}

// stopped notes that the node acknowledges no more writes of a region.
func (n *simNode) stopped(region uint64) {
	if n.leases[region].node == n.id {
		delete(n.leases, region)
	}
}

// put takes a role in a configuration, unless it is older than what the replica knows.
func (n *simNode) put(replica uint64, config *metasrvpb.RegionConfig, role metasrvpb.ReplicaRole) {
	r := n.replicas[config.GetRegionId()]
	switch {
	case r == nil && role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER:
		r = &simReplica{}
	case !r.is(replica), config.GetLeaderEpoch() < r.LeaderEpoch,
		config.GetLeaderEpoch() == r.LeaderEpoch && config.GetConfVersion() < r.ConfVersion:
		return
	}
	for _, c := range config.GetReplicas() {
		if c.GetReplicaId() == replica && c.GetLearner() {
			role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
		}
	}
	if role != metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
		n.stopped(config.GetRegionId())
	}
	demoted := r.Demoted && r.LeaderEpoch == config.GetLeaderEpoch()
	n.replicas[config.GetRegionId()] = &simReplica{config: config, RegionStat: metasrvpb.RegionStat{
		RegionId: config.GetRegionId(), ReplicaId: replica, LeaderEpoch: config.GetLeaderEpoch(), ConfVersion: config.GetConfVersion(),
		Role: role, Demoted: demoted && role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, ApproximateSize: 1000, ApproximateRows: 10,
	}}
}

// createTable creates a table of one region on these nodes, and commits it.
func (c *simCluster) createTable(name string, regions, replicas int) []uint64 {
	c.t.Helper()
	created, err := c.m.router().Create(timeout(c.t), createRequest(name, func(r *metasrvpb.CreateRequest) {
		r.Replicas = uint32(replicas)
		r.PartitionRule = nil
		if regions == 3 {
			r.PartitionRule = rangeRule([]string{"host"}, bound(text("g")), bound(text("p")), bound(maxValue()))
		}
	}))
	if err != nil {
		c.t.Fatal(err)
	}
	route := created.GetTableRoutes()[0]
	incarnations := map[uint64]uint64{}
	c.mu.Lock()
	var ids []uint64
	for _, r := range route.GetRegionRoutes() {
		ids = append(ids, r.GetRegion().GetId())
		c.place(r.GetRegion().GetId(), created.GetPeers()[r.GetLeaderPeerIndex()].GetId(), r.GetLeaderReplicaId(), metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER)
		for i, peer := range r.GetFollowerPeerIndexes() {
			c.place(r.GetRegion().GetId(), created.GetPeers()[peer].GetId(), r.GetFollowerReplicaIds()[i], metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER)
		}
	}
	for id, n := range c.nodes {
		incarnations[id] = n.incarnation
	}
	c.mu.Unlock()
	if _, err := c.m.catalog().CommitTable(timeout(c.t), &metasrvpb.CommitTableRequest{
		TableId: route.GetTable().GetId(), CreationToken: route.GetCreationToken(), Replicas: createdBy(created, incarnations),
	}); err != nil {
		c.t.Fatal(err)
	}
	return ids
}

// place makes a replica as a frontend would have it made. c.mu is held.
func (c *simCluster) place(region, node, replica uint64, role metasrvpb.ReplicaRole) {
	c.nodes[node].replicas[region] = &simReplica{RegionStat: metasrvpb.RegionStat{
		RegionId: region, ReplicaId: replica, LeaderEpoch: 1, ConfVersion: 1, Role: role, ApproximateSize: 1000, ApproximateRows: 10,
	}}
}

// change changes how a node behaves.
func (n *simNode) change(f func(n *simNode)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f(n)
}

func (c *simCluster) region(id uint64) *metasrvpb.RegionInfo {
	c.t.Helper()
	resp, err := c.m.cluster().GetRegion(timeout(c.t), &metasrvpb.GetRegionRequest{RegionId: id})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.GetRegion()
}

// simRegion is what a test compares of a region.
type simRegion struct {
	leader  uint64
	inSync  []uint64
	others  []uint64
	holding bool // the node of the leader has a lease
}

func (c *simCluster) look(id uint64) simRegion {
	c.t.Helper()
	var r simRegion
	for _, replica := range c.region(id).GetReplicas() {
		node := replica.GetPeer().GetId()
		switch {
		case replica.GetInSync():
			r.inSync = append(r.inSync, node)
		default:
			r.others = append(r.others, node)
		}
		if replica.GetRole() == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
			r.leader = node
		}
	}
	slices.Sort(r.inSync)
	slices.Sort(r.others)
	c.mu.Lock()
	defer c.mu.Unlock()
	held := c.leases[id]
	r.holding = held.node == r.leader && held.until.After(time.Now())
	return r
}

// run starts a procedure.
func (c *simCluster) run(req *metasrvpb.StartProcedureRequest) (*metasrvpb.Procedure, error) {
	c.t.Helper()
	resp, err := c.m.cluster().StartProcedure(timeout(c.t), req)
	return resp.GetProcedure(), err
}

func (c *simCluster) mustRun(req *metasrvpb.StartProcedureRequest) *metasrvpb.Procedure {
	c.t.Helper()
	p, err := c.run(req)
	if err != nil {
		c.t.Fatal(err)
	}
	return p
}

func (c *simCluster) procedure(id uint64) *metasrvpb.Procedure {
	c.t.Helper()
	resp, err := c.m.cluster().GetProcedure(timeout(c.t), &metasrvpb.GetProcedureRequest{ProcedureId: id})
	if err != nil {
		c.t.Fatal(err)
	}
	return resp.GetProcedure()
}

// ended waits for the end of a procedure.
func (c *simCluster) ended(id uint64) *metasrvpb.Procedure {
	c.t.Helper()
	var p *metasrvpb.Procedure
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(time.Millisecond) {
		p = c.procedure(id)
		if p.GetState() != metasrvpb.ProcedureState_PROCEDURE_STATE_RUNNING && p.GetState() != metasrvpb.ProcedureState_PROCEDURE_STATE_ROLLING_BACK {
			return p
		}
		if time.Now().After(deadline) {
			c.t.Fatalf("procedure does not end: %v", p)
		}
	}
}

var _ grpc.ClientConnInterface
