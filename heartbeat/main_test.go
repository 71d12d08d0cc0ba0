package heartbeat

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var start = time.Unix(1_700_000_000, 0)

// confirmer stands in for the router: it keeps the confirmations that were applied.
type confirmer struct{ applied []*storagepb.ConfirmDropped }

func (c *confirmer) Kinds() []storagepb.CommandKind {
	return []storagepb.CommandKind{storagepb.CommandKind_COMMAND_KIND_CONFIRM_DROPPED}
}

func (c *confirmer) Apply(tx state.Tx, _ storagepb.CommandKind, payload []byte) (proto.Message, error) {
	cmd := &storagepb.ConfirmDropped{}
	if err := state.Decode(payload, cmd); err != nil {
		return nil, metasrv.ErrInternal.With("%v", err)
	}
	c.applied = append(c.applied, cmd)
	tx.Put("table/confirmed", payload)
	return &storagepb.TableResult{}, nil
}

// cluster is a metasrv leader with its tracker, whose barrier and planner the tests can bend.
type cluster struct {
	*memory.Node
	confirmer *confirmer
	tracker   *Tracker
	plan      PlanDrops
	planned   []state.View
	barriers  int
	barrier   func(context.Context) (state.View, error)
	version   func() uint64
	logger    *slog.Logger

	mu       sync.Mutex
	proposed []state.Proposal
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{confirmer: &confirmer{}, logger: slog.New(slog.DiscardHandler)}
	c.Node = memory.New(NewApplier(), c.confirmer)
	tracker, err := NewTracker(DefaultConfig(), 1, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.tracker = tracker
	return c
}

func (c *cluster) Propose(ctx context.Context, p state.Proposal) (state.Result, error) {
	c.mu.Lock()
	c.proposed = append(c.proposed, p)
	c.mu.Unlock()
	return c.Node.Propose(ctx, p)
}

func (c *cluster) Barrier(ctx context.Context) (state.View, error) {
	c.barriers++
	if c.barrier != nil {
		return c.barrier(ctx)
	}
	return c.Node.Barrier(ctx)
}

func (c *cluster) planDrops(v state.View, node metasrv.NodeID, report []ReportedReplica) ([]*metasrvpb.DropRegion, []*storagepb.DroppedReplica) {
	c.planned = append(c.planned, v)
	if c.plan == nil {
		return nil, nil
	}
	return c.plan(v, node, report)
}

func (c *cluster) session(t testing.TB) *Session {
	t.Helper()
	s := NewSession(SessionConfig{
		Tracker: c.tracker, Proposer: c, Viewer: c, Barrier: c, PlanDrops: c.planDrops, PlanVersion: c.version,
		Logger: c.logger,
	})
	t.Cleanup(s.Close)
	return s
}

func info(nonce uint64) *metasrvpb.NodeInfo {
	return &metasrvpb.NodeInfo{
		Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, RegistrationNonce: nonce, Labels: map[string]string{"zone": "a"},
	}
}

func peer(id uint64) *metasrvpb.Peer { return &metasrvpb.Peer{Id: id, Addr: "127.0.0.1:4001"} }

func firstBeat(id, nonce uint64) *metasrvpb.HeartbeatRequest {
	return &metasrvpb.HeartbeatRequest{Peer: peer(id), Node: info(nonce), Sequence: 1, FullReport: true}
}

func mustBeat(t testing.TB, s *Session, req *metasrvpb.HeartbeatRequest) *metasrvpb.HeartbeatResponse {
	t.Helper()
	resp, err := s.HandleBeat(context.Background(), req)
	if err != nil {
		t.Fatalf("beat %v: %v", req, err)
	}
	return resp
}

func regionStats(n int) []*metasrvpb.RegionStat {
	stats := make([]*metasrvpb.RegionStat, n)
	for i := range stats {
		stats[i] = &metasrvpb.RegionStat{
			RegionId: uint64(metasrv.NewRegionID(metasrv.TableID(1024+i/8), uint32(i%8))), ReplicaId: uint64(i + 1),
			Rcus: 10, Wcus: 20, ApproximateSize: 1 << 20, LeaderEpoch: 1, ConfVersion: 1,
			Role:      metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER,
			TableName: &metasrvpb.TableName{CatalogName: "c", SchemaName: "s", TableName: "t"},
		}
	}
	return stats
}
