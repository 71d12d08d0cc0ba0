package client

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// fakeLeader serves heartbeat streams and keeps the beats.
type fakeLeader struct {
	incarnation uint64
	interval    time.Duration
	cluster     uint64 // unknown if 0
	life        life   // where it is not that of the first life

	mu       sync.Mutex
	beats    []*metasrvpb.HeartbeatRequest
	payload  [][]byte // of every response
	silent   bool     // no responses
	end      error    // ends streams at their next beat
	streams  int
	ignoring int // beats to take without a response
	// judge changes each response.
	judge func(request *metasrvpb.HeartbeatRequest, response *metasrvpb.HeartbeatResponse)
}

func (f *fakeLeader) serve(_ string, stream grpc.ServerStream) error {
	f.mu.Lock()
	f.streams++
	f.mu.Unlock()
	for {
		request := &metasrvpb.HeartbeatRequest{}
		if err := stream.RecvMsg(request); err != nil {
			return err
		}
		f.mu.Lock()
		if f.end != nil {
			defer f.mu.Unlock()
			return f.end
		}
		f.beats = append(f.beats, request)
		response := &metasrvpb.HeartbeatResponse{
			Header: &metasrvpb.ResponseHeader{
				ClusterId: f.cluster, ClusterIncarnation: f.life.incarnation, ClusterGeneration: f.life.generation,
			},
			Sequence:            request.GetSequence(),
			Incarnation:         f.incarnation,
			HeartbeatIntervalMs: uint64(f.interval.Milliseconds()),
			Payload:             f.payload,
		}
		if f.judge != nil {
			f.judge(request, response)
		}
		quiet := f.silent || f.ignoring > 0
		if f.ignoring > 0 {
			f.ignoring--
		}
		f.mu.Unlock()
		if quiet {
			continue
		}
		if err := stream.SendMsg(response); err != nil {
			return err
		}
	}
}

func (f *fakeLeader) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *fakeLeader) all() []*metasrvpb.HeartbeatRequest {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*metasrvpb.HeartbeatRequest(nil), f.beats...)
}

// await waits for the n-th beat and returns all so far.
func (f *fakeLeader) await(t *testing.T, n int) []*metasrvpb.HeartbeatRequest {
	t.Helper()
	eventually(t, "beats", func() bool { return len(f.all()) >= n })
	return f.all()
}

// beatFrom runs a task against the endpoints until the test ends or stop is called, which returns Run's error.
func beatFrom(t *testing.T, c *Client, change func(*HeartbeatConfig)) (task *HeartbeatTask, stop func() error) {
	t.Helper()
	cfg := HeartbeatConfig{
		Peer:     &metasrvpb.Peer{Id: 7, Addr: "h:1"},
		NodeInfo: &metasrvpb.NodeInfo{Version: "v1"},
		Interval: 20 * time.Millisecond,
		Collect: func(context.Context) (HeartbeatReport, error) {
			return HeartbeatReport{NodeStat: &metasrvpb.NodeStat{Wcus: 1}}, nil
		},
	}
	if change != nil {
		change(&cfg)
	}
	task = NewHeartbeatTask(c, cfg)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- task.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	t.Cleanup(func() { _ = stop() })
	return task, stop
}

func leaderMember(t *testing.T) (*fakeMember, *fakeLeader) {
	t.Helper()
	m, f := startMember(t), &fakeLeader{incarnation: 5, interval: 20 * time.Millisecond}
	m.onStream(f.serve)
	return m, f
}

func TestHeartbeatRegisters(t *testing.T) {
	m, f := leaderMember(t)
	f.interval = 300 * time.Millisecond // so that a slow machine doesn't take the member for silent
	follower := startMember(t)
	follower.follows(m.addr)
	c := dial(t, nil, deadAddr(t), follower.addr)
	registered := make(chan uint64, 10)
	task, stop := beatFrom(t, c, func(cfg *HeartbeatConfig) {
		cfg.OnRegistered = func(incarnation uint64) { registered <- incarnation }
	})
	beats := f.await(t, 3)
	first, second, third := beats[0], beats[1], beats[2]
	if first.GetIncarnation() != 0 || first.GetNode().GetRegistrationNonce() == 0 || first.GetNode().GetVersion() != "v1" {
		t.Errorf("first beat: %v", first)
	}
	if first.GetPeer().GetId() != 7 || first.GetHeader().GetMemberId() != 7 || !first.GetFullReport() {
		t.Errorf("first beat: %v", first)
	}
	if third.GetIncarnation() != 5 || second.GetNode() != nil {
		t.Errorf("later beats: %v, %v", second, third)
	}
	for i, b := range beats {
		if b.GetSequence() != uint64(i+1) {
			t.Errorf("beat %d has sequence %d", i, b.GetSequence())
		}
	}
	if err := stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if task.Incarnation() != 5 || len(registered) != 1 || <-registered != 5 {
		t.Errorf("incarnation %d, %d calls more of OnRegistered", task.Incarnation(), len(registered))
	}
	if c.Leader() != m.addr {
		t.Errorf("leader is %q", c.Leader())
	}
}

func TestHeartbeatSurvivesLeaderChanges(t *testing.T) {
	a, fa := leaderMember(t)
	b, fb := leaderMember(t)
	b.follows(a.addr)
	c := dial(t, nil, a.addr, b.addr)
	task, stop := beatFrom(t, c, nil)
	nonce := fa.await(t, 3)[0].GetNode().GetRegistrationNonce()

	b.onStream(fb.serve)
	a.follows(b.addr)
	fa.set(func() { fa.end = notLeader(b.addr) })
	beats := fb.await(t, 3)
	if beats[0].GetIncarnation() != 5 || beats[0].GetSequence() != 1 || beats[0].GetNode().GetRegistrationNonce() != nonce {
		t.Errorf("first beat at the new leader: %v", beats[0])
	}

	// Killed without a word, and back at its address.
	b.stop()
	startMemberAt(t, b.addr, func(again *fakeMember) { again.onStream(fb.serve) })
	fb.await(t, len(fb.all())+3)
	if err := stop(); err != nil {
		t.Errorf("Run returned %v", err)
	}
	if task.Incarnation() != 5 {
		t.Errorf("incarnation %d", task.Incarnation())
	}
}

// What metasrv confirmed is without gap and overlap, whatever happens to streams and responses.
func TestHeartbeatIntervalsAreContiguous(t *testing.T) {
	m, f := leaderMember(t)
	c := dial(t, nil, m.addr)
	var counted atomic.Uint64
	_, stop := beatFrom(t, c, func(cfg *HeartbeatConfig) {
		cfg.Collect = func(context.Context) (HeartbeatReport, error) {
			counted.Add(3)
			return HeartbeatReport{NodeStat: &metasrvpb.NodeStat{Wcus: 3}}, nil
		}
	})
	f.await(t, 2)
	f.set(func() { f.silent = true })
	f.await(t, len(f.all())+2)
	f.set(func() { f.silent, f.end = false, notLeader("") })
	eventually(t, "a refused stream", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return f.streams > 2 })
	f.set(func() { f.end = nil })
	f.await(t, len(f.all())+3)
	if err := stop(); err != nil {
		t.Fatal(err)
	}

	// Beats that were sent again replace those that got no response: a later interval may begin where an
	// unanswered one began, and then contains it.
	var covered []*metasrvpb.HeartbeatRequest
	for _, b := range f.all() {
		for len(covered) > 0 && covered[len(covered)-1].GetReportInterval().GetStartTimestampMillis() >= b.GetReportInterval().GetStartTimestampMillis() &&
			b.GetSequence() == 1 {
			covered = covered[:len(covered)-1]
		}
		covered = append(covered, b)
	}
	wcus := uint64(0)
	for i, b := range covered {
		wcus += b.GetNodeStat().GetWcus()
		if i > 0 && covered[i-1].GetReportInterval().GetEndTimestampMillis() != b.GetReportInterval().GetStartTimestampMillis() {
			t.Errorf("interval %v follows %v", b.GetReportInterval(), covered[i-1].GetReportInterval())
		}
	}
	if lost := counted.Load() - wcus; lost > 3 {
		t.Errorf("%d of %d counts were not reported", lost, counted.Load())
	}
}

func TestHeartbeatIntervalOfTheLeaderWins(t *testing.T) {
	m, f := leaderMember(t)
	c := dial(t, nil, m.addr)
	beatFrom(t, c, func(cfg *HeartbeatConfig) { cfg.Interval = time.Hour })
	f.await(t, 3)
}

func TestHeartbeatLeavesASilentMember(t *testing.T) {
	hung, fh := leaderMember(t)
	m, f := leaderMember(t)
	fh.interval = 300 * time.Millisecond // so that a slow machine doesn't take the member for silent
	c := dial(t, func(cfg *Config) { cfg.AttemptTimeout = 100 * time.Millisecond }, hung.addr, m.addr)
	beatFrom(t, c, nil)
	fh.await(t, 2)
	fh.set(func() { fh.silent = true })
	f.await(t, 2)

	// One that is silent from the beginning.
	hung.hangs()
	f.set(func() { f.silent = true })
	eventually(t, "the hung member was tried", func() bool { return hung.count(metasrvpb.Heartbeat_Heartbeat_FullMethodName) > 1 })
	f.set(func() { f.silent = false })
	f.await(t, len(f.all())+2)
}

func TestRefusalEndsRun(t *testing.T) {
	for _, refused := range []*metasrv.Error{
		metasrv.ErrStaleIncarnation.With("node 7 is registered as 6"),
		metasrv.ErrNodeIDTaken.With("node 7 is live"),
		metasrv.ErrNodeRemoved.With("node 7 was removed"),
	} {
		t.Run(refused.Reason, func(t *testing.T) {
			m, f := leaderMember(t)
			c := dial(t, nil, m.addr)
			task := NewHeartbeatTask(c, HeartbeatConfig{Peer: &metasrvpb.Peer{Id: 7, Addr: "h:1"}, Interval: time.Millisecond})
			f.end = refusal(refused)
			err := task.Run(t.Context())
			wantIs(t, err, refused)
		})
	}
}

func TestHeartbeatConfigIsValidated(t *testing.T) {
	c := dial(t, nil, deadAddr(t))
	for _, cfg := range []HeartbeatConfig{
		{},
		{Peer: &metasrvpb.Peer{Addr: "h:1"}},
		{Peer: &metasrvpb.Peer{Id: 1}},
		{Peer: &metasrvpb.Peer{Id: 1, Addr: "h:1"}, Interval: -1},
	} {
		wantIs(t, NewHeartbeatTask(c, cfg).Run(t.Context()), metasrv.ErrInvalidArgument)
	}
}

func TestCloseEndsRun(t *testing.T) {
	m, f := leaderMember(t)
	c := dial(t, nil, m.addr)
	task := NewHeartbeatTask(c, HeartbeatConfig{Peer: &metasrvpb.Peer{Id: 7, Addr: "h:1"}})
	done := make(chan error, 1)
	go func() { done <- task.Run(context.Background()) }()
	f.await(t, 1)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; !errors.Is(err, errClosed) {
		t.Errorf("Run returned %v", err)
	}
}

func TestBeatAtOnce(t *testing.T) {
	m, f := leaderMember(t)
	f.interval = time.Hour
	c := dial(t, nil, m.addr)
	task, _ := beatFrom(t, c, func(cfg *HeartbeatConfig) { cfg.Interval = 2 * time.Second })
	f.set(func() { f.interval = 2 * time.Second })
	f.await(t, 1)
	began := time.Now()
	task.Beat()
	f.await(t, 2)
	if took := time.Since(began); took > time.Second {
		t.Errorf("beat after %s", took)
	}
}

func TestCollectErrorStillBeats(t *testing.T) {
	m, f := leaderMember(t)
	c := dial(t, nil, m.addr)
	var broken atomic.Bool
	beatFrom(t, c, func(cfg *HeartbeatConfig) {
		cfg.Collect = func(context.Context) (HeartbeatReport, error) {
			if broken.Load() {
				return HeartbeatReport{}, errors.New("disk gone")
			}
			return HeartbeatReport{NodeStat: &metasrvpb.NodeStat{}}, nil
		}
	})
	n := len(f.await(t, 2))
	broken.Store(true)
	f.await(t, n+4)
	broken.Store(false)
	f.await(t, n+8)
	end, without := uint64(0), 0
	for _, b := range f.all() {
		if b.GetReportInterval() == nil {
			if b.GetFullReport() {
				t.Error("a beat without a report claims to be full")
			}
			without++
			continue
		}
		if end != 0 && b.GetReportInterval().GetStartTimestampMillis() != end {
			t.Errorf("interval starts at %d, the last one ended at %d", b.GetReportInterval().GetStartTimestampMillis(), end)
		}
		end = b.GetReportInterval().GetEndTimestampMillis()
	}
	if without == 0 {
		t.Error("no beat while collecting failed")
	}
}

func dropRegion(t *testing.T, region uint64) []byte {
	t.Helper()
	b, err := proto.Marshal(&metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_DropRegion{
		DropRegion: &metasrvpb.DropRegion{RegionId: region, ReplicaId: region + 100},
	}})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestInstructionsRunOneAtATime(t *testing.T) {
	m, f := leaderMember(t)
	f.payload = [][]byte{dropRegion(t, 1), dropRegion(t, 2)}
	c := dial(t, nil, m.addr)
	var running, most atomic.Int32
	var mu sync.Mutex
	started := map[uint64]int{}
	release := make(chan struct{})
	beatFrom(t, c, func(cfg *HeartbeatConfig) {
		cfg.OnInstruction = func(ctx context.Context, i *metasrvpb.Instruction) error {
			most.Store(max(most.Load(), running.Add(1)))
			defer running.Add(-1)
			mu.Lock()
			started[i.GetDropRegion().GetRegionId()]++
			mu.Unlock()
			select {
			case <-release:
			case <-ctx.Done():
			}
			return nil
		}
	})
	count := func(region uint64) int { mu.Lock(); defer mu.Unlock(); return started[region] }
	eventually(t, "the first instruction runs", func() bool { return count(1) == 1 })
	// Repeated by each of these responses, and the stream goes on meanwhile.
	f.await(t, len(f.all())+5)
	if count(1) != 1 || count(2) != 0 {
		t.Errorf("started %v while the first one runs", started)
	}
	f.set(func() { f.payload = nil })
	f.await(t, len(f.all())+3)
	close(release)
	eventually(t, "the second instruction", func() bool { return count(2) == 1 })
	f.await(t, len(f.all())+3)
	if count(1) != 1 || count(2) != 1 || most.Load() != 1 {
		t.Errorf("started %v, %d at a time", started, most.Load())
	}
}

func TestFailedInstructionIsReported(t *testing.T) {
	m, f := leaderMember(t)
	f.payload = [][]byte{dropRegion(t, 1), []byte("\xff")}
	c := dial(t, nil, m.addr)
	beatFrom(t, c, func(cfg *HeartbeatConfig) {
		cfg.OnInstruction = func(context.Context, *metasrvpb.Instruction) error { return errors.New("disk full") }
	})
	eventually(t, "a reply", func() bool {
		for _, b := range f.all() {
			for _, r := range b.GetInstructionReplies() {
				return r.GetRegionId() == 1 && r.GetReplicaId() == 101 && r.GetError() == "disk full"
			}
		}
		return false
	})
}

// A done instruction is shown to metasrv at once, but one that never helps can't make beats run wild.
func TestInstructionsDoNotFloodTheLeader(t *testing.T) {
	m, f := leaderMember(t)
	f.interval = 400 * time.Millisecond
	f.payload = [][]byte{dropRegion(t, 1)}
	c := dial(t, nil, m.addr)
	began := time.Now()
	beatFrom(t, c, func(cfg *HeartbeatConfig) {
		cfg.Interval = f.interval
		cfg.OnInstruction = func(context.Context, *metasrvpb.Instruction) error { return nil }
	})
	f.await(t, 10)
	if took := time.Since(began); took < 8*f.interval/wakeGap || took > 5*f.interval {
		t.Errorf("10 beats in %s", took)
	}
}
