package client

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const lease = 3 * time.Second

// keeperAt is a keeper whose clock the test moves.
type keeperAt struct {
	*RegionKeeper
	clock time.Duration
}

func newKeeperAt() *keeperAt {
	k := &keeperAt{RegionKeeper: NewRegionKeeper(), clock: time.Hour}
	k.now = func() time.Duration { return k.clock }
	return k
}

// leads is the report of a region leader; its replica is 10 times the region.
func leads(region metasrv.RegionID, epoch uint64) *metasrvpb.RegionStat {
	return &metasrvpb.RegionStat{
		RegionId: uint64(region), ReplicaId: 10 * uint64(region), LeaderEpoch: epoch, Role: metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER,
	}
}

// leading is a keeper that leads region 1 in epoch 1 under a lease that began at the moment.
func leading(t *testing.T) *keeperAt {
	t.Helper()
	k := newKeeperAt()
	k.Lead(1, 10, 1)
	k.granted(k.sending([]*metasrvpb.RegionStat{leads(1, 1)}), lease, nil)
	if _, err := k.BeginWrite(1); err != nil {
		t.Fatal(err)
	}
	return k
}

func (k *keeperAt) want(t *testing.T, region metasrv.RegionID, want error) {
	t.Helper()
	w, err := k.BeginWrite(region)
	if want != nil {
		wantIs(t, err, want)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := w.End(); err != nil {
		t.Fatal(err)
	}
}

func TestKeeperWithoutLease(t *testing.T) {
	k := newKeeperAt()
	k.want(t, 1, metasrv.ErrNotRegionLeader)
	k.Lead(1, 10, 1)
	k.want(t, 1, metasrv.ErrNoLease)
	k.Stop(1)
	k.want(t, 1, metasrv.ErrNotRegionLeader)
}

func TestKeeperLeaseEnds(t *testing.T) {
	k := leading(t)
	k.clock += lease - 1
	k.want(t, 1, nil)
	k.clock++
	k.want(t, 1, metasrv.ErrNoLease)
}

// Rule 16: the process is suspended between the check before a write and its acknowledgement.
func TestKeeperChecksBeforeTheAcknowledgement(t *testing.T) {
	k := leading(t)
	w, err := k.BeginWrite(1)
	if err != nil || w.Epoch() != 1 {
		t.Fatalf("epoch %d, %v", w.Epoch(), err)
	}
	k.clock += lease
	wantIs(t, w.End(), metasrv.ErrOutcomeUnknown)
}

// Rule 18: a lease counts from when the request was sent, however late its answer comes.
func TestKeeperDelayedAnswer(t *testing.T) {
	k := newKeeperAt()
	k.Lead(1, 10, 1)
	request := k.sending([]*metasrvpb.RegionStat{leads(1, 1)})
	k.clock += lease - 1
	k.granted(request, lease, nil)
	k.want(t, 1, nil)
	k.clock++
	k.granted(request, lease, nil)
	k.want(t, 1, metasrv.ErrNoLease)

	// An earlier answer that comes later takes nothing away.
	k = leading(t)
	early := k.sending([]*metasrvpb.RegionStat{leads(1, 1)})
	k.clock += time.Second
	k.granted(k.sending([]*metasrvpb.RegionStat{leads(1, 1)}), lease, nil)
	k.granted(early, lease, nil)
	k.clock += lease - 1
	k.want(t, 1, nil)
}

// Rule 18: a grant covers what the request reported.
func TestKeeperGrantCoversWhatWasReported(t *testing.T) {
	for name, request := range map[string]func(k *keeperAt) ticket{
		"promoted after the request": func(k *keeperAt) ticket {
			defer k.Lead(1, 10, 1)
			return k.sending(nil)
		},
		"reported before it was promoted": func(k *keeperAt) ticket {
			defer k.Lead(1, 10, 1)
			return k.sending([]*metasrvpb.RegionStat{leads(1, 1)})
		},
		"reported by a later request": func(k *keeperAt) ticket {
			early := k.sending(nil)
			k.Lead(1, 10, 1)
			k.sending([]*metasrvpb.RegionStat{leads(1, 1)})
			return early
		},
		"reported in another epoch": func(k *keeperAt) ticket {
			k.Lead(1, 10, 2)
			return k.sending([]*metasrvpb.RegionStat{leads(1, 1)})
		},
		"another replica reported": func(k *keeperAt) ticket {
			k.Lead(1, 11, 1)
			return k.sending([]*metasrvpb.RegionStat{leads(1, 1)})
		},
		"reported as demoted": func(k *keeperAt) ticket {
			k.Lead(1, 10, 1)
			demoted := leads(1, 1)
			demoted.Demoted = true
			return k.sending([]*metasrvpb.RegionStat{demoted})
		},
		"no longer reported": func(k *keeperAt) ticket {
			k.Lead(1, 10, 1)
			k.sending([]*metasrvpb.RegionStat{leads(1, 1)})
			return k.sending(nil)
		},
		"stopped, and led again": func(k *keeperAt) ticket {
			k.Lead(1, 10, 1)
			defer k.Lead(1, 10, 1)
			defer k.Stop(1)
			return k.sending([]*metasrvpb.RegionStat{leads(1, 1)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			k := newKeeperAt()
			k.granted(request(k), lease, nil)
			k.want(t, 1, metasrv.ErrNoLease)
		})
	}
}

// A leadership is waited for until its first lease, not for one that has ended.
func TestKeeperAwaitsTheFirstLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := leading(t)
		wantIs(t, k.AwaitFirstLease(t.Context(), 1, 1), nil)
		k.clock += lease
		wantIs(t, k.AwaitFirstLease(t.Context(), 1, 1), nil)

		short, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		wantIs(t, k.AwaitFirstLease(short, 1, 2), context.DeadlineExceeded)

		ended := make(chan error)
		go func() { ended <- k.AwaitFirstLease(t.Context(), 1, 2) }()
		synctest.Wait()
		k.Lead(1, 10, 3)
		k.granted(k.sending(nil), lease, nil)
		synctest.Wait()
		select {
		case err := <-ended:
			t.Fatalf("not waited for a lease: %v", err)
		default:
		}
		k.granted(k.sending([]*metasrvpb.RegionStat{leads(1, 3)}), lease, nil)
		wantIs(t, <-ended, nil)
	})
}

func TestKeeperUngranted(t *testing.T) {
	k := newKeeperAt()
	k.Lead(1, 10, 1)
	k.Lead(2, 20, 1)
	both := []*metasrvpb.RegionStat{leads(1, 1), leads(2, 1)}
	request := k.sending(both)
	without := []*metasrvpb.ReplicaRef{{RegionId: 1, ReplicaId: 10}}
	k.granted(request, lease, without)
	k.want(t, 1, metasrv.ErrNoLease)
	k.want(t, 2, nil)
	// The same request answered again.
	k.granted(request, lease, nil)
	k.want(t, 1, nil)
	// A lease that was granted before goes on to its own end.
	k.clock += time.Second
	k.granted(k.sending(both), lease, without)
	k.clock += 2 * time.Second
	k.want(t, 1, metasrv.ErrNoLease)
	k.want(t, 2, nil)
}

func TestKeeperEpochs(t *testing.T) {
	k := leading(t)
	w, err := k.BeginWrite(1)
	if err != nil {
		t.Fatal(err)
	}
	k.Lead(1, 10, 1)
	if err := w.End(); err != nil {
		t.Errorf("told once more that it leads: %v", err)
	}
	k.Lead(1, 10, 0)
	k.want(t, 1, nil)
	k.Lead(1, 10, 2)
	k.want(t, 1, metasrv.ErrNoLease)
	k.granted(k.sending([]*metasrvpb.RegionStat{leads(1, 2)}), lease, nil)
	k.want(t, 1, nil)
	wantIs(t, w.End(), metasrv.ErrOutcomeUnknown)
}

func TestKeeperDemotion(t *testing.T) {
	demote := func(replica, epoch uint64) *metasrvpb.DemoteRegion {
		return &metasrvpb.DemoteRegion{ReplicaId: replica, Config: &metasrvpb.RegionConfig{RegionId: 1, LeaderEpoch: epoch}}
	}
	k := leading(t)
	k.demote(demote(11, 1))
	k.demote(demote(10, 0))
	k.want(t, 1, nil)
	w, err := k.BeginWrite(1)
	if err != nil {
		t.Fatal(err)
	}
	k.demote(demote(10, 1))
	wantIs(t, w.End(), metasrv.ErrOutcomeUnknown)
	k.want(t, 1, metasrv.ErrNotRegionLeader)
}

// judging is a metasrv leader that grants leases for what it was told.
func judging(f *fakeLeader, without ...*metasrvpb.ReplicaRef) {
	f.judge = func(request *metasrvpb.HeartbeatRequest, response *metasrvpb.HeartbeatResponse) {
		response.Digest = request.Digest
		response.LeaseMs = uint64(lease.Milliseconds())
		response.Ungranted = without
	}
}

// beatAsKeeper runs a task of a node that leads regions 1 and 2.
func beatAsKeeper(t *testing.T, addr string, change func(*HeartbeatConfig)) *RegionKeeper {
	t.Helper()
	keeper := NewRegionKeeper()
	keeper.Lead(1, 10, 1)
	keeper.Lead(2, 20, 1)
	beatFrom(t, dial(t, nil, addr), func(cfg *HeartbeatConfig) {
		cfg.Keeper = keeper
		cfg.NodeInfo = &metasrvpb.NodeInfo{StorageUuid: "disk"}
		cfg.Collect = func(context.Context) (HeartbeatReport, error) {
			return HeartbeatReport{RegionStats: []*metasrvpb.RegionStat{leads(1, 1), leads(2, 1)}}, nil
		}
		if change != nil {
			change(cfg)
		}
	})
	return keeper
}

func TestTaskKeepsLeases(t *testing.T) {
	m, f := leaderMember(t)
	judging(f, &metasrvpb.ReplicaRef{RegionId: 2, ReplicaId: 20})
	keeper := beatAsKeeper(t, m.addr, nil)
	eventually(t, "a lease", func() bool { _, err := keeper.BeginWrite(1); return err == nil })
	if _, err := keeper.BeginWrite(2); err == nil {
		t.Error("a region that the grant leaves out may be written")
	}
	if info := f.await(t, 1)[0].GetNode(); !info.GetKeepsLeases() {
		t.Errorf("registered as %v", info)
	}
}

// Rule 18: the answer must have judged what the node reported.
func TestTaskRefusesLeases(t *testing.T) {
	for name, spoil := range map[string]func(*metasrvpb.HeartbeatResponse){
		"of another digest":        func(r *metasrvpb.HeartbeatResponse) { r.Digest = proto.Uint64(r.GetDigest() + 1) },
		"without a digest":         func(r *metasrvpb.HeartbeatResponse) { r.Digest = nil },
		"for no request":           func(r *metasrvpb.HeartbeatResponse) { r.Sequence = 0 },
		"for a request to come":    func(r *metasrvpb.HeartbeatResponse) { r.Sequence += 100 },
		"of no length, as refused": func(r *metasrvpb.HeartbeatResponse) { r.LeaseMs = 0 },
	} {
		t.Run(name, func(t *testing.T) {
			m, f := leaderMember(t)
			judging(f)
			judge := f.judge
			f.judge = func(request *metasrvpb.HeartbeatRequest, response *metasrvpb.HeartbeatResponse) {
				judge(request, response)
				spoil(response)
			}
			keeper := beatAsKeeper(t, m.addr, nil)
			f.await(t, 5)
			_, err := keeper.BeginWrite(1)
			wantIs(t, err, metasrv.ErrNoLease)
		})
	}
}

// A demotion ends writes before the node gets to execute it.
func TestTaskDemotesAtOnce(t *testing.T) {
	m, f := leaderMember(t)
	judging(f)
	keeper := beatAsKeeper(t, m.addr, func(cfg *HeartbeatConfig) {
		cfg.OnInstruction = func(ctx context.Context, _ *metasrvpb.Instruction) error {
			<-ctx.Done()
			return ctx.Err()
		}
	})
	eventually(t, "a lease", func() bool { _, err := keeper.BeginWrite(1); return err == nil })
	demotion, err := proto.Marshal(&metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_DemoteRegion{DemoteRegion: &metasrvpb.DemoteRegion{
		ReplicaId: 10, Config: &metasrvpb.RegionConfig{RegionId: 1, LeaderEpoch: 1},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	f.set(func() { f.payload = [][]byte{dropRegion(t, 1), demotion} })
	eventually(t, "the end of the leadership", func() bool { _, err := keeper.BeginWrite(1); return err != nil })
	if _, err := keeper.BeginWrite(2); err != nil {
		t.Errorf("the other region: %v", err)
	}
}

func TestInstructionsOfRegionsRunBesideEachOther(t *testing.T) {
	m, f := leaderMember(t)
	f.payload = [][]byte{dropRegion(t, 1), dropRegion(t, 2), dropRegion(t, 3)}
	var waiting = make(chan uint64, 10)
	beatFrom(t, dial(t, nil, m.addr), func(cfg *HeartbeatConfig) {
		cfg.InstructionWorkers = 2
		cfg.OnInstruction = func(ctx context.Context, i *metasrvpb.Instruction) error {
			waiting <- i.GetDropRegion().GetRegionId()
			<-ctx.Done()
			return nil
		}
	})
	if a, b := <-waiting, <-waiting; a%2 == b%2 {
		t.Errorf("instructions about regions %d and %d run", a, b)
	}
	f.await(t, len(f.all())+3)
	if len(waiting) > 0 {
		t.Error("a third instruction runs beside two")
	}
}

// A change of an in-sync set is asked for until it has an outcome, on whichever stream.
func TestTaskChangesInSync(t *testing.T) {
	m, f := leaderMember(t)
	outcomes := make(chan *metasrvpb.InSyncResult, 10)
	task, _ := beatFrom(t, dial(t, nil, m.addr), func(cfg *HeartbeatConfig) {
		cfg.OnInSyncResult = func(r *metasrvpb.InSyncResult) { outcomes <- r }
	})
	f.await(t, 1)
	task.ChangeInSync(&metasrvpb.InSyncChange{RegionId: 1, ReplicaId: 10, LeaderEpoch: 1, ConfVersion: 4})
	asked := func() (n int) {
		for _, b := range f.all() {
			n += len(b.GetInSyncChanges())
		}
		return n
	}
	eventually(t, "asked again without an outcome", func() bool { return asked() >= 2 })
	f.set(func() { f.end = notLeader("") })
	eventually(t, "a refused stream", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.streams > 1 })
	before := asked()
	f.set(func() {
		f.end = nil
		f.judge = func(request *metasrvpb.HeartbeatRequest, response *metasrvpb.HeartbeatResponse) {
			for _, c := range request.GetInSyncChanges() {
				response.InSyncResults = append(response.InSyncResults, &metasrvpb.InSyncResult{RegionId: c.GetRegionId(), ReplicaId: c.GetReplicaId(), ConfVersion: 5})
			}
		}
	})
	if r := <-outcomes; r.GetConfVersion() != 5 {
		t.Errorf("outcome is %v", r)
	}
	f.await(t, len(f.all())+3)
	if asked() != before+1 || len(outcomes) != 0 {
		t.Errorf("asked %d times after the stream broke, %d more outcomes", asked()-before, len(outcomes))
	}
}

func BenchmarkKeeper(b *testing.B) {
	k := NewRegionKeeper()
	k.Lead(1, 10, 1)
	k.granted(k.sending([]*metasrvpb.RegionStat{leads(1, 1)}), time.Hour, nil)
	b.ReportAllocs()
	for b.Loop() {
		w, err := k.BeginWrite(1)
		if err != nil || w.End() != nil {
			b.Fatal("no lease")
		}
	}
}

func TestKeeperCountsLapses(t *testing.T) {
	k := leading(t)
	list := []*metasrvpb.RegionStat{leads(1, 1), leads(2, 1)}
	k.Lead(2, 20, 1)
	k.wantStats(t, KeeperStats{Led: 2, Covered: 1})
	k.clock += lease - 1
	k.granted(k.sending(list), lease, nil)
	k.wantStats(t, KeeperStats{Led: 2, Covered: 2})
	k.clock += lease
	k.wantStats(t, KeeperStats{Led: 2, Lapsed: 2})
	k.granted(k.sending(list), lease, []*metasrvpb.ReplicaRef{{RegionId: 2, ReplicaId: 20}})
	k.wantStats(t, KeeperStats{Led: 2, Covered: 1, Lapsed: 1, Lapses: 1})
	k.Lead(2, 20, 2) // a new leadership has never had one
	k.wantStats(t, KeeperStats{Led: 2, Covered: 1, Lapses: 1})
}

func (k *keeperAt) wantStats(t *testing.T, want KeeperStats) {
	t.Helper()
	if got := k.Stats(); got != want {
		t.Errorf("stats are %+v, want %+v", got, want)
	}
}
