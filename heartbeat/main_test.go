package heartbeat

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat/digest"
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

// regions stands in for the router's commands: a change sets a region to what it says, without looking. The only replica
// is on node 1. What asks for an in-sync set is answered and kept.
type regions struct{ asked []*storagepb.RegionChange }

func (*regions) Kinds() []storagepb.CommandKind {
	return []storagepb.CommandKind{storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS}
}

func (r *regions) Apply(tx state.Tx, _ storagepb.CommandKind, payload []byte) (proto.Message, error) {
	cmd := &storagepb.ChangeRegions{}
	if err := state.Decode(payload, cmd); err != nil {
		return nil, metasrv.ErrInternal.With("%v", err)
	}
	result := &storagepb.ChangeRegionsResult{}
	for _, change := range cmd.Changes {
		if set := change.GetSetInSync(); set != nil {
			r.asked = append(r.asked, change)
			region := &storagepb.RegionRecord{LeaderEpoch: change.LeaderEpoch, ConfVersion: change.ConfVersion + 1}
			for _, id := range set.ReplicaIds {
				region.Replicas = append(region.Replicas, &storagepb.ReplicaRecord{ReplicaId: id, InSync: true})
			}
			region.Replicas = append(region.Replicas, &storagepb.ReplicaRecord{ReplicaId: 99})
			result.Results = append(result.Results, &storagepb.RegionChangeResult{Region: region})
			continue
		}
		tx.Put(regionKey(change.RegionId), state.Encode(&storagepb.RegionRecord{
			RegionId: change.RegionId, LeaderEpoch: change.LeaderEpoch, ConfVersion: change.ConfVersion,
			LeaderReplicaId: change.GetElect().GetReplicaId(), Demoting: change.GetBeginDemotion() != nil,
		}))
	}
	return result, nil
}

func regionKey(id uint64) string { return fmt.Sprintf("region/%016x", id) }

// fakeRules stand in for the router's. Without agree all that is reported is agreed on.
type fakeRules struct {
	agree func(v state.View, by Reporter, table metasrv.TableID, report []RegionReport) (Agreement, error)
	// exact: a node may be judged by the digest of its replicas.
	exact  bool
	judged []metasrv.TableID
	views  []state.View
}

func (f *fakeRules) Placements(v state.View, visit func(Placement)) error {
	for key, value := range v.Ascend("region/", "region0") {
		region := &storagepb.RegionRecord{}
		if err := state.Decode(value, region); err != nil {
			return err
		}
		visit(Placement{Table: tableIn(key), Node: 1, Exact: f.exact && !region.Demoting, Sum: digest.Replica{
			RegionID: region.RegionId, ReplicaID: region.LeaderReplicaId, LeaderEpoch: region.LeaderEpoch, ConfVersion: region.ConfVersion,
			Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER,
		}.Sum()})
	}
	return nil
}

func (f *fakeRules) PlacementsOf(v state.View, table metasrv.TableID, visit func(Placement)) error {
	return f.Placements(v, func(p Placement) {
		if p.Table == table {
			visit(p)
		}
	})
}

func (f *fakeRules) Concerns(_ state.View, changes []state.Change, visit func(metasrv.TableID, []metasrv.NodeID)) error {
	for _, c := range changes {
		if strings.HasPrefix(c.Key, "region/") {
			visit(tableIn(c.Key), []metasrv.NodeID{1})
		}
	}
	return nil
}

func (f *fakeRules) Agree(v state.View, by Reporter, table metasrv.TableID, report []RegionReport) (Agreement, error) {
	f.judged, f.views = append(f.judged, table), append(f.views, v)
	if f.agree == nil {
		return leadingAll(report), nil
	}
	return f.agree(v, by, table, report)
}

func tableIn(key string) metasrv.TableID {
	var id uint64
	if _, err := fmt.Sscanf(key, "region/%016x", &id); err != nil {
		panic(err)
	}
	return metasrv.RegionID(id).Table()
}

func leadingAll(report []RegionReport) Agreement {
	a := Agreement{Standings: make([]Standing, len(report))}
	for i, r := range report {
		if r.Leads() {
			a.Standings[i] = Leading
		}
	}
	return a
}

// byState judges what leads by the records of regions, and tells others to stop.
func byState(v state.View, by Reporter, _ metasrv.TableID, report []RegionReport) (Agreement, error) {
	a := Agreement{Standings: make([]Standing, len(report))}
	for i, r := range report {
		if !r.Leads() {
			continue
		}
		region := &storagepb.RegionRecord{}
		if value, ok := v.Get(regionKey(uint64(r.Region))); ok {
			if err := state.Decode(value, region); err != nil {
				return Agreement{}, err
			}
		}
		switch {
		case region.LeaderReplicaId != uint64(r.Replica) || region.LeaderEpoch != r.LeaderEpoch || region.Demoting:
			a.Standings[i] = Refused
			a.Instructions = append(a.Instructions, &metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_DemoteRegion{
				DemoteRegion: &metasrvpb.DemoteRegion{ReplicaId: uint64(r.Replica), Config: &metasrvpb.RegionConfig{
					RegionId: uint64(r.Region), LeaderEpoch: region.LeaderEpoch, ConfVersion: region.ConfVersion,
				}},
			}})
		case region.ConfVersion != r.ConfVersion:
			a.Standings[i] = Outdated
		default:
			a.Standings[i] = Leading
		}
	}
	return a, nil
}

// cluster is a metasrv leader with its tracker, whose barrier and rules the tests can bend.
type cluster struct {
	*memory.Node
	confirmer  *confirmer
	regions    *regions
	tracker    *Tracker
	dispatcher *Dispatcher
	rules      *fakeRules
	barriers   int
	barrier    func(context.Context) (state.View, error)
	view       func() state.View
	logger     *slog.Logger

	// propose, if set, may refuse what is proposed by its error.
	propose func(state.Proposal) error

	mu       sync.Mutex
	proposed []state.Proposal
}

func newCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{confirmer: &confirmer{}, regions: &regions{}, rules: &fakeRules{}, logger: slog.New(slog.DiscardHandler)}
	c.Node = memory.New(NewApplier(), c.confirmer, c.regions)
	c.lead(t, 1)
	return c
}

// lead begins another term.
func (c *cluster) lead(t testing.TB, term uint64) {
	t.Helper()
	tracker, err := NewTracker(DefaultConfig(), term, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	c.tracker, c.dispatcher = tracker, NewDispatcher(tracker, c.rules, c, c)
}

func (c *cluster) Propose(ctx context.Context, p state.Proposal) (state.Result, error) {
	c.mu.Lock()
	c.proposed = append(c.proposed, p)
	c.mu.Unlock()
	if c.propose != nil {
		if err := c.propose(p); err != nil {
			return state.Result{}, err
		}
	}
	return c.Node.Propose(ctx, p)
}

func (c *cluster) Barrier(ctx context.Context) (state.View, error) {
	c.barriers++
	if c.barrier != nil {
		return c.barrier(ctx)
	}
	return c.Node.Barrier(ctx)
}

func (c *cluster) View() state.View {
	if c.view != nil {
		return c.view()
	}
	return c.Node.View()
}

// set makes a replica the region leader.
func (c *cluster) set(t testing.TB, changes ...*storagepb.RegionChange) {
	t.Helper()
	if _, err := c.Node.Propose(context.Background(), state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS, Payload: &storagepb.ChangeRegions{Changes: changes},
	}); err != nil {
		t.Fatal(err)
	}
}

func elect(region metasrv.RegionID, replica, epoch, conf uint64) *storagepb.RegionChange {
	return &storagepb.RegionChange{
		RegionId: uint64(region), LeaderEpoch: epoch, ConfVersion: conf,
		Change: &storagepb.RegionChange_Elect{Elect: &storagepb.ElectReplica{ReplicaId: replica}},
	}
}

func (c *cluster) session(t testing.TB) *Session {
	t.Helper()
	s := NewSession(SessionConfig{
		Tracker: c.tracker, Proposer: c, Viewer: c, Barrier: c, Dispatcher: c.dispatcher, Logger: c.logger,
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
