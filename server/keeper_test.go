package server

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// keeper is a datanode that keeps leases, beats by itself and does as it is told, without storing anything.
type keeper struct {
	t    testing.TB
	info *metasrvpb.NodeInfo
	id   uint64
	conn *grpc.ClientConn

	stop context.CancelFunc
	done chan struct{}
	wake chan struct{} // something has changed that is to be reported

	mu          sync.Mutex
	addr        string
	incarnation uint64
	replicas    map[uint64]*metasrvpb.RegionStat // by replica
	configs     map[uint64]*metasrvpb.RegionConfig
	// ignores has the replicas that don't follow instructions.
	ignores map[uint64]bool
	// hidden has the replicas that are not there when they are to be opened.
	hidden map[uint64]bool
	// leased is when the last lease ends, for all that was reported as led but for the ungranted ones.
	leased    time.Time
	ungranted map[uint64]bool
	// asks has changes of in-sync sets for the next beat.
	asks []*metasrvpb.InSyncChange
	// promoted is when each replica was told to lead, first.
	promoted map[uint64]time.Time
}

// startKeeper registers a datanode that beats until the test ends or it is killed.
func startKeeper(t testing.TB, conn *grpc.ClientConn, id uint64, change ...func(*metasrvpb.NodeInfo)) *keeper {
	t.Helper()
	k := &keeper{
		t: t, id: id, conn: conn, addr: "127.0.0.1:1", wake: make(chan struct{}, 1),
		info: &metasrvpb.NodeInfo{
			Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, RegistrationNonce: 1, KeepsLeases: true, StorageUuid: "disk",
		},
		replicas: map[uint64]*metasrvpb.RegionStat{}, configs: map[uint64]*metasrvpb.RegionConfig{},
		ignores: map[uint64]bool{}, hidden: map[uint64]bool{}, ungranted: map[uint64]bool{}, promoted: map[uint64]time.Time{},
	}
	for _, c := range change {
		c(k.info)
	}
	k.start()
	t.Cleanup(func() { k.kill() })
	eventually(t, "the registration of a datanode", func() bool { return k.registered() != 0 })
	return k
}

// start runs the datanode, again after kill: as another process with the same storage.
func (k *keeper) start() {
	ctx, cancel := context.WithCancel(context.Background())
	k.stop, k.done = cancel, make(chan struct{})
	go func() {
		defer close(k.done)
		for ctx.Err() == nil {
			k.stream(ctx)
			select {
			case <-ctx.Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
	}()
}

// restart runs it again as another process, after a change of what it is.
func (k *keeper) restart(change func(*metasrvpb.NodeInfo)) {
	k.kill()
	k.mu.Lock()
	k.info = proto.CloneOf(k.info)
	k.info.RegistrationNonce++
	k.incarnation = 0
	for _, r := range k.replicas {
		if r.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
			r.Role = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
		}
	}
	change(k.info)
	k.mu.Unlock()
	k.start()
}

// kill ends it without a word.
func (k *keeper) kill() time.Time {
	k.stop()
	<-k.done
	return time.Now()
}

func (k *keeper) registered() uint64 {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.incarnation
}

// stream beats until its stream ends.
func (k *keeper) stream(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := metasrvpb.NewHeartbeatClient(k.conn).Heartbeat(ctx)
	if err != nil {
		return
	}
	var receiver sync.WaitGroup
	defer receiver.Wait()
	defer cancel()
	sent := map[uint64]time.Time{}
	receiver.Go(func() {
		defer cancel()
		for {
			resp, err := stream.Recv()
			if err != nil {
				return
			}
			k.take(resp, sent)
		}
	})
	ticker := time.NewTicker(testInterval)
	defer ticker.Stop()
	for sequence := uint64(1); ; sequence++ {
		if stream.Send(k.request(sequence, sent)) != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		case <-k.wake:
		}
	}
}

func (k *keeper) request(sequence uint64, sent map[uint64]time.Time) *metasrvpb.HeartbeatRequest {
	k.mu.Lock()
	defer k.mu.Unlock()
	var stats []*metasrvpb.RegionStat
	for _, id := range slices.Sorted(maps.Keys(k.replicas)) {
		stats = append(stats, proto.CloneOf(k.replicas[id]))
	}
	sent[sequence] = time.Now()
	asks := k.asks
	k.asks = nil
	return &metasrvpb.HeartbeatRequest{
		Peer: &metasrvpb.Peer{Id: k.id, Addr: k.addr}, Node: k.info, Sequence: sequence, Incarnation: k.incarnation,
		FullReport: true, RegionStats: stats, Digest: proto.Uint64(digest.Of(stats)), InSyncChanges: asks,
	}
}

// take does what an answer says.
func (k *keeper) take(resp *metasrvpb.HeartbeatResponse, sent map[uint64]time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.incarnation = resp.GetIncarnation()
	if resp.GetLeaseMs() > 0 {
		k.leased = sent[resp.GetSequence()].Add(time.Duration(resp.GetLeaseMs()) * time.Millisecond) //nolint:gosec // milliseconds
		clear(k.ungranted)
		for _, u := range resp.GetUngranted() {
			k.ungranted[u.GetReplicaId()] = true
		}
	}
	changed := false
	for _, payload := range resp.GetPayload() {
		i := &metasrvpb.Instruction{}
		if err := proto.Unmarshal(payload, i); err != nil {
			k.t.Errorf("node %d: %v", k.id, err)
			return
		}
		changed = k.obey(i) || changed
	}
	if changed {
		select {
		case k.wake <- struct{}{}:
		default:
		}
	}
}

// obey follows one instruction, and says whether that changed anything. k.mu is held.
func (k *keeper) obey(i *metasrvpb.Instruction) bool {
	const leader, follower = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	switch i := i.GetInstruction().(type) {
	case *metasrvpb.Instruction_PromoteRegion:
		id := i.PromoteRegion.GetReplicaId()
		if k.promoted[id].IsZero() {
			k.promoted[id] = time.Now()
		}
		return k.become(id, i.PromoteRegion.GetConfig(), leader)
	case *metasrvpb.Instruction_CatchUpRegion:
		return k.become(i.CatchUpRegion.GetReplicaId(), i.CatchUpRegion.GetConfig(), follower)
	case *metasrvpb.Instruction_DemoteRegion:
		return k.become(i.DemoteRegion.GetReplicaId(), i.DemoteRegion.GetConfig(), follower)
	case *metasrvpb.Instruction_OpenRegion:
		if id := i.OpenRegion.GetReplicaId(); !k.hidden[id] {
			return k.become(id, i.OpenRegion.GetConfig(), follower)
		}
	case *metasrvpb.Instruction_DropRegion:
		delete(k.replicas, i.DropRegion.GetReplicaId())
		return true
	}
	return false
}

func (k *keeper) become(id uint64, c *metasrvpb.RegionConfig, role metasrvpb.ReplicaRole) bool {
	if k.ignores[id] {
		return false
	}
	k.configs[id] = c
	was := k.replicas[id]
	k.replicas[id] = &metasrvpb.RegionStat{
		RegionId: c.GetRegionId(), ReplicaId: id, LeaderEpoch: c.GetLeaderEpoch(), ConfVersion: c.GetConfVersion(), Role: role,
		LogEpoch: was.GetLogEpoch(), LogSequence: was.GetLogSequence(),
	}
	return true
}

// holds says whether the node has a lease for a replica that leads.
func (k *keeper) holds(replica uint64) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	r := k.replicas[replica]
	return r.GetRole() == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER && !k.ungranted[replica] && time.Now().Before(k.leased)
}

// change changes what the node is, and has it report that.
func (k *keeper) change(f func(k *keeper)) {
	k.mu.Lock()
	f(k)
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// testInterval is the heartbeat interval of clusters of keepers, testLease their lease: long enough for a busy machine.
const (
	testInterval = 100 * time.Millisecond
	testLease    = time.Second
)

func shortLeases(c *Config) {
	c.HeartbeatInterval, c.RegionLease = testInterval, testLease
}

// keeperCluster is a member with datanodes 1 to n, which keep leases.
type keeperCluster struct {
	*testMemberServer
	t     testing.TB
	nodes map[uint64]*keeper
}

func startKeepers(t *testing.T, n int, change ...func(*Config)) *keeperCluster {
	t.Helper()
	c := &keeperCluster{testMemberServer: startLeader(t, append([]func(*Config){shortLeases}, change...)...), t: t, nodes: map[uint64]*keeper{}}
	for id := uint64(1); id <= uint64(n); id++ { //nolint:gosec // small
		c.nodes[id] = startKeeper(t, c.conn, id)
	}
	return c
}

// table creates a table as created does, and waits until each region is led under a lease.
func (c *keeperCluster) table(name string, change ...func(*metasrvpb.CreateRequest)) metasrv.TableID {
	c.t.Helper()
	id := c.created(name, change...)
	c.eventuallyServed(id)
	return id
}

// created creates a public table, whose replicas its nodes have from then on.
func (c *keeperCluster) created(name string, change ...func(*metasrvpb.CreateRequest)) metasrv.TableID {
	c.t.Helper()
	created, err := c.router().Create(timeout(c.t), createRequest(name, change...))
	if err != nil {
		c.t.Fatal(err)
	}
	incarnations := map[uint64]uint64{}
	for id, k := range c.nodes {
		incarnations[id] = k.registered()
	}
	route := created.GetTableRoutes()[0]
	const leader, follower = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	for _, r := range route.GetRegionRoutes() {
		at := func(peer, replica uint64, role metasrvpb.ReplicaRole) {
			c.nodes[created.GetPeers()[peer].GetId()].change(func(k *keeper) {
				k.become(replica, &metasrvpb.RegionConfig{
					RegionId: r.GetRegion().GetId(), LeaderEpoch: r.GetLeaderEpoch(), ConfVersion: r.GetConfVersion(),
				}, role)
			})
		}
		at(r.GetLeaderPeerIndex(), r.GetLeaderReplicaId(), leader)
		for i, peer := range r.GetFollowerPeerIndexes() {
			at(peer, r.GetFollowerReplicaIds()[i], follower)
		}
	}
	if _, err := c.catalog().CommitTable(timeout(c.t), &metasrvpb.CommitTableRequest{
		TableId: route.GetTable().GetId(), CreationToken: route.GetCreationToken(), Replicas: createdBy(created, incarnations),
	}); err != nil {
		c.t.Fatal(err)
	}
	return metasrv.TableID(route.GetTable().GetId())
}

// regions returns the regions of a table as they are shown.
func (c *keeperCluster) regions(id metasrv.TableID) []*metasrvpb.RegionInfo {
	c.t.Helper()
	resp, err := c.cluster().ListRegions(timeout(c.t), &metasrvpb.ListRegionsRequest{})
	if err != nil {
		c.t.Fatal(err)
	}
	return slices.DeleteFunc(resp.GetRegions(), func(r *metasrvpb.RegionInfo) bool { return metasrv.RegionID(r.GetRegionId()).Table() != id })
}

func leaderOf(r *metasrvpb.RegionInfo) *metasrvpb.Replica {
	for _, replica := range r.GetReplicas() {
		if replica.GetRole() == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
			return replica
		}
	}
	return nil
}

// eventuallyServed waits until each region is led under a lease.
func (c *keeperCluster) eventuallyServed(id metasrv.TableID) {
	c.t.Helper()
	eventually(c.t, "each region is led under a lease", func() bool {
		return !slices.ContainsFunc(c.regions(id), func(r *metasrvpb.RegionInfo) bool {
			leader := leaderOf(r)
			return leader == nil || !c.nodes[leader.GetPeer().GetId()].holds(leader.GetReplicaId())
		})
	})
}

// ledBy returns how many regions of a table each node leads.
func (c *keeperCluster) ledBy(id metasrv.TableID) map[uint64]int {
	led := map[uint64]int{}
	for _, r := range c.regions(id) {
		led[leaderOf(r).GetPeer().GetId()]++
	}
	return led
}
