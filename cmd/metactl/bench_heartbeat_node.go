package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/internal/loadgen"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// busyBeats is how many beats the same replicas of a node are the ones that are written.
const busyBeats = 60

// wcusABeat is how much is written to a replica from beat to beat.
const wcusABeat = 10

// beatingNode is a simulated datanode with replicas. It speaks by the client library, over a connection of its own.
type beatingNode struct {
	bench  *heartbeatBench
	id     uint64
	client *client.Client
	task   *client.HeartbeatTask
	keeper *client.RegionKeeper

	mu sync.Mutex
	// replicas are replaced, not changed, except by collect.
	replicas []*metasrvpb.RegionStat
	// busy is the first of the replicas that are written, collected counts the reports.
	busy, collected int
	figures         beatFigures
	// pending has when requests were sent that are not answered.
	pending map[uint64]time.Time
	// answered is when the last answer came.
	answered time.Time
}

// beatFigures are what one node, or all of them, have counted.
type beatFigures struct {
	latency loadgen.Histogram
	errors  map[string]uint64
	// silence is the longest time between two answers.
	silence                                  time.Duration
	lines, full, fullWanted, pushed, refused uint64
	instructions                             uint64
}

func (f *beatFigures) add(o *beatFigures) {
	f.latency.Merge(&o.latency)
	if f.errors == nil {
		f.errors = map[string]uint64{}
	}
	for reason, n := range o.errors {
		f.errors[reason] += n
	}
	f.silence = max(f.silence, o.silence)
	f.lines += o.lines
	f.full += o.full
	f.fullWanted += o.fullWanted
	f.pushed += o.pushed
	f.refused += o.refused
	f.instructions += o.instructions
}

// placedReplicas are the replicas that the creation of tables put on a node.
type placedReplicas struct {
	mu       sync.Mutex
	replicas []*metasrvpb.RegionStat
}

func newPlaced(nodes int) []*placedReplicas {
	placed := make([]*placedReplicas, nodes)
	for i := range placed {
		placed[i] = &placedReplicas{}
	}
	return placed
}

func (p *placedReplicas) add(r *metasrvpb.RegionStat) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.replicas = append(p.replicas, r)
}

func (b *heartbeatBench) newNode(endpoints []string, id uint64, replicas []*metasrvpb.RegionStat) (*beatingNode, error) {
	n := &beatingNode{bench: b, id: id, replicas: replicas, keeper: client.NewRegionKeeper(), pending: map[uint64]time.Time{}}
	for _, r := range replicas {
		n.lead(r)
	}
	var err error
	n.client, err = client.New(client.Config{
		Endpoints: endpoints, Logger: discardLogger,
		DialOptions: []grpc.DialOption{
			grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(), grpc.WithStreamInterceptor(n.intercept),
		},
	})
	if err != nil {
		return nil, err
	}
	info := benchNodeInfo(id)
	info.KeepsLeases = true
	n.task = client.NewHeartbeatTask(n.client, client.HeartbeatConfig{
		Peer: &metasrvpb.Peer{Id: id, Addr: benchNodeName(id)}, NodeInfo: info, Keeper: n.keeper, Logger: discardLogger,
		Collect: n.collect, OnInstruction: n.execute, Interval: b.interval,
	})
	return n, nil
}

func (n *beatingNode) lead(r *metasrvpb.RegionStat) {
	if r.Role == metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
		n.keeper.Lead(metasrv.RegionID(r.RegionId), metasrv.ReplicaID(r.ReplicaId), r.LeaderEpoch)
	}
}

// collect reports the replicas, some of which were written.
func (n *beatingNode) collect(context.Context) (client.HeartbeatReport, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	count := int(float64(len(n.replicas)) * float64(n.bench.changed) / 100)
	if n.collected++; n.collected%busyBeats == 0 {
		for i := range count {
			n.busyReplica(i).Wcus = 0
		}
		n.busy += count
	}
	for i := range count {
		r := n.busyReplica(i)
		r.Wcus = wcusABeat
		r.ApproximateRows += wcusABeat
		r.ApproximateSize += 1000 * wcusABeat
		r.LogEpoch, r.LogSequence = r.LeaderEpoch, r.LogSequence+wcusABeat
	}
	return client.HeartbeatReport{
		NodeStat:    &metasrvpb.NodeStat{RegionNum: uint64(len(n.replicas)), Wcus: uint64(count)}, //nolint:gosec // not negative
		RegionStats: n.replicas,
	}, nil
}

func (n *beatingNode) busyReplica(i int) *metasrvpb.RegionStat {
	return n.replicas[(n.busy+i)%len(n.replicas)]
}

// execute does at once what metasrv asks for.
func (n *beatingNode) execute(_ context.Context, instruction *metasrvpb.Instruction) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.figures.instructions++
	const leader, follower, learner = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER,
		metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER, metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
	switch i := instruction.GetInstruction().(type) {
	case *metasrvpb.Instruction_PromoteRegion:
		n.lead(n.replace(i.PromoteRegion.GetReplicaId(), i.PromoteRegion.GetConfig(), leader))
	case *metasrvpb.Instruction_DemoteRegion:
		n.replace(i.DemoteRegion.GetReplicaId(), i.DemoteRegion.GetConfig(), follower)
	case *metasrvpb.Instruction_OpenRegion:
		n.replace(i.OpenRegion.GetReplicaId(), i.OpenRegion.GetConfig(), follower)
	case *metasrvpb.Instruction_AddLearner:
		n.replace(i.AddLearner.GetReplicaId(), i.AddLearner.GetConfig(), learner)
	case *metasrvpb.Instruction_CatchUpRegion:
		role := follower
		for _, r := range i.CatchUpRegion.GetConfig().GetReplicas() {
			if r.GetReplicaId() == i.CatchUpRegion.GetReplicaId() && r.GetLearner() {
				role = learner
			}
		}
		n.replace(i.CatchUpRegion.GetReplicaId(), i.CatchUpRegion.GetConfig(), role)
	case *metasrvpb.Instruction_DropRegion:
		n.drop(i.DropRegion)
	}
	return nil
}

// replace gives a replica, which is made if it is not there, a role in a configuration. n.mu is held.
func (n *beatingNode) replace(replica uint64, c *metasrvpb.RegionConfig, role metasrvpb.ReplicaRole) *metasrvpb.RegionStat {
	n.replicas = slices.Clone(n.replicas)
	at := slices.IndexFunc(n.replicas, func(r *metasrvpb.RegionStat) bool {
		return r.RegionId == c.GetRegionId() && r.ReplicaId == replica
	})
	if at < 0 {
		at = len(n.replicas)
		n.replicas = append(n.replicas, &metasrvpb.RegionStat{RegionId: c.GetRegionId(), ReplicaId: replica})
	}
	stat := proto.CloneOf(n.replicas[at])
	stat.LeaderEpoch, stat.ConfVersion, stat.Role = c.GetLeaderEpoch(), c.GetConfVersion(), role
	n.replicas[at] = stat
	if role != metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER {
		n.keeper.Stop(metasrv.RegionID(stat.RegionId))
	}
	return stat
}

// drop removes a replica. n.mu is held.
func (n *beatingNode) drop(d *metasrvpb.DropRegion) {
	var list []*metasrvpb.RegionStat
	for _, r := range n.replicas {
		if r.RegionId != d.GetRegionId() || r.ReplicaId != d.GetReplicaId() {
			list = append(list, r)
		}
	}
	if len(list) < len(n.replicas) {
		n.replicas = list
		n.keeper.Stop(metasrv.RegionID(d.GetRegionId()))
	}
}

// take returns what was counted since the last call.
func (n *beatingNode) take() beatFigures {
	n.mu.Lock()
	defer n.mu.Unlock()
	f := n.figures
	if !n.answered.IsZero() {
		f.silence = max(f.silence, time.Since(n.answered))
	}
	n.figures = beatFigures{}
	return f
}

// intercept measures the node's streams.
func (n *beatingNode) intercept(
	ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, streamer grpc.Streamer, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	stream, err := streamer(ctx, desc, cc, method, opts...)
	if err != nil {
		n.failed(ctx, err)
		return nil, err
	}
	n.mu.Lock()
	clear(n.pending)
	n.mu.Unlock()
	return &measuredStream{stream, n}, nil
}

// measuredStream is one stream of a node.
type measuredStream struct {
	grpc.ClientStream
	node *beatingNode
}

func (s *measuredStream) SendMsg(m any) error {
	s.node.sent(m.(*metasrvpb.HeartbeatRequest))
	return s.ClientStream.SendMsg(m)
}

func (s *measuredStream) RecvMsg(m any) error {
	if err := s.ClientStream.RecvMsg(m); err != nil {
		s.node.failed(s.Context(), err)
		return err
	}
	resp := m.(*metasrvpb.HeartbeatResponse)
	s.node.takeAnswer(resp)
	if interval := s.node.bench.interval; interval > 0 {
		resp.HeartbeatIntervalMs = uint64(interval.Milliseconds()) //nolint:gosec // not negative
	}
	return nil
}

func (n *beatingNode) sent(req *metasrvpb.HeartbeatRequest) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pending[req.GetSequence()] = time.Now()
	n.figures.lines += uint64(len(req.GetRegionStats()))
	if req.GetFullReport() {
		n.figures.full++
	}
}

func (n *beatingNode) takeAnswer(resp *metasrvpb.HeartbeatResponse) {
	now := time.Now()
	n.mu.Lock()
	defer n.mu.Unlock()
	if resp.GetFullReportWanted() {
		n.figures.fullWanted++
	}
	n.figures.refused += uint64(len(resp.GetUngranted()))
	sent, first := n.pending[resp.GetSequence()]
	if !first {
		n.figures.pushed++
		return
	}
	delete(n.pending, resp.GetSequence())
	n.figures.latency.Add(now.Sub(sent))
	if !n.answered.IsZero() {
		n.figures.silence = max(n.figures.silence, now.Sub(n.answered))
	}
	n.answered = now
	n.bench.lastAnswer.Store(now.UnixNano())
}

// failed counts the end of a stream, unless the measurement ended it.
func (n *beatingNode) failed(ctx context.Context, err error) {
	if n.bench.ended.Load() || ctx.Err() != nil && context.Cause(ctx) == context.Canceled { //nolint:errorlint // the cause itself
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.figures.errors == nil {
		n.figures.errors = map[string]uint64{}
	}
	n.figures.errors[reasonOf(err)]++
}

// percent is a share of replicas: 5 or 5%.
type percent float64

func (p *percent) String() string { return fmt.Sprintf("%g%%", float64(*p)) }
func (p *percent) Type() string   { return "percent" }

func (p *percent) Set(s string) error {
	var v float64
	if _, err := fmt.Sscanf(s, "%g", &v); err != nil || v < 0 || v > 100 {
		return fmt.Errorf("%q is no share such as 5%%", s)
	}
	*p = percent(v)
	return nil
}
