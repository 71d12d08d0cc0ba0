package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/cmd/metasrv/internal/linear"
	"github.com/metasrv/metasrv/cmd/metasrv/internal/workload"
	"github.com/metasrv/metasrv/internal/links"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm"
)

const (
	// A short soak is a part of every run of the tests; DURATION makes it longer.
	shortSoak = 12 * time.Second
	// soakRound is how long clients work between two checks. Each round has keys and tables of its own.
	soakRound = 15 * time.Second
	// soakCheck bounds the time to judge one part of a history.
	soakCheck = 20 * time.Second
)

// Three processes under kill -9, stops, restarts, transfers and cut links: what clients see is linearizable, and what
// was acknowledged is there at the end, on every member.
func TestSoak(t *testing.T) {
	s := newSoak(t)
	began, ops, unknown, rounds := time.Now(), 0, 0, 0
	for ; rounds == 0 || time.Since(began) < s.duration; rounds++ {
		r := s.round(rounds)
		ops, unknown = ops+r.Ops, unknown+r.Unknown
		for _, part := range r.Undecided {
			t.Logf("round %d: undecided in %s: %s", rounds, soakCheck, part)
		}
		if r.Failed() {
			t.Errorf("seed %d, round %d: %s", s.seed, rounds, r)
			break
		}
	}
	t.Logf("seed %d: %d rounds in %s, %d operations, %d of unknown outcome; faults: %s",
		s.seed, rounds, time.Since(began).Round(time.Second), ops, unknown, s.tally())
}

// soak is a cluster with its faults.
type soak struct {
	*cluster
	links    *links.Links
	library  *client.Client
	seed     uint64
	random   *rand.Rand
	duration time.Duration
	conns    []*grpc.ClientConn
	lives    []atomic.Int64
	made     map[string]int
	out      string
	nodes    func(id uint64) uint64
}

func newSoak(t *testing.T) *soak {
	s := &soak{cluster: prepareCluster(t, t.TempDir()), seed: uint64(time.Now().UnixNano() % 1e9), duration: shortSoak, made: map[string]int{}, out: outDir()} //nolint:gosec // any seed will do
	if d, err := time.ParseDuration(os.Getenv("DURATION")); err == nil {
		s.duration = d
	}
	if seed, err := strconv.ParseUint(os.Getenv("SEED"), 10, 64); err == nil {
		s.seed = seed
	}
	t.Logf("seed %d, for %s; repeat the faults with SEED=%d make soak", s.seed, s.duration, s.seed)
	s.random = rand.New(rand.NewPCG(s.seed, 0)) //nolint:gosec // a seed that can be repeated
	s.links = newLinks(t, s.members)
	s.lives = make([]atomic.Int64, len(s.members))
	endpoints := []string{}
	for _, m := range s.members {
		endpoints = append(endpoints, m.grpc)
		m.disk = &slowDisk{}
	}
	// The proxies must know who dials before the first one does.
	for i := range s.members {
		s.begin(i)
	}
	s.connect(endpoints)
	s.leader()
	nodes := s.datanodes(s.library, 1)
	s.nodes = func(id uint64) uint64 { return nodes[id].Incarnation() }
	return s
}

func (s *soak) connect(endpoints []string) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 300 * time.Millisecond},
			MinConnectTimeout: time.Second,
		}),
	}
	for i, m := range s.members {
		conn, err := grpc.NewClient(endpoints[i], options...)
		if err != nil {
			s.t.Fatal(err)
		}
		m.conn = conn
		s.conns = append(s.conns, conn)
	}
	s.t.Cleanup(s.end)
	library, err := client.New(client.Config{Endpoints: endpoints, DialOptions: options, AttemptTimeout: 500 * time.Millisecond})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = library.Close() })
	s.library = library
}

// begin starts a life of a member.
func (s *soak) begin(i int) {
	m := s.members[i]
	s.lives[i].Add(1)
	s.start(m)
	s.links.Started(m.id, m.cmd.Process.Pid)
}

// round lets clients work under faults, waits until all is well again, and judges.
func (s *soak) round(number int) *linear.Report {
	var history linear.History
	load := &workload.Config{
		Seed: s.seed + uint64(number), History: &history, Client: s.library, //nolint:gosec // rounds are few
		Workers: 8, Pause: 60 * time.Millisecond, Timeout: 3 * time.Second, Attempt: 600 * time.Millisecond,
		TableWorkers: 1, Incarnation: s.nodes, SessionTTL: raftfsm.DefaultSessionTTL,
	}
	for i := range 6 {
		load.Groups = append(load.Groups, fmt.Sprintf("r%d-%c", number, 'a'+i))
	}
	for i := range 2 {
		load.Tables = append(load.Tables, fmt.Sprintf("r%d_%c", number, 'a'+i))
	}
	for i, m := range s.members {
		load.Members = append(load.Members, workload.Member{ID: m.id, Conn: s.conns[i], Life: func() string {
			return fmt.Sprintf("%s life %d", m.id, s.lives[i].Load())
		}})
	}
	ctx, stop := context.WithTimeout(s.t.Context(), min(soakRound, s.duration))
	defer stop()
	var faults sync.WaitGroup
	faults.Go(func() { s.disturb(ctx) })
	workload.Run(ctx, load)
	faults.Wait()

	ctx, cancel := context.WithTimeout(s.t.Context(), waitLimit)
	defer cancel()
	if err := workload.Verify(ctx, load); err != nil {
		s.t.Errorf("seed %d, round %d: after all faults were undone: %v", s.seed, number, err)
	}
	r, err := linear.Check(history.Ops(), soakCheck, filepath.Join(s.out, fmt.Sprintf("seed-%d-round-%d", s.seed, number)))
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// disturb makes one fault after the other until ctx ends; each is undone before the next.
func (s *soak) disturb(ctx context.Context) {
	for {
		pause := time.Duration(s.random.Int64N(int64(1200 * time.Millisecond)))
		lasts := time.Duration(s.random.Int64N(int64(2500 * time.Millisecond)))
		i, peer, kind := s.random.IntN(3), s.random.IntN(2), s.random.IntN(len(soakFaults))
		if s.random.IntN(3) > 0 {
			i = s.leading(i)
		}
		if !sleep(ctx, pause) {
			return
		}
		fault := soakFaults[kind]
		s.made[fault.name]++
		fault.make(ctx, s, i, s.members[(i+1+peer)%3], lasts)
	}
}

// soakFaults are the faults; each is undone when it returns.
var soakFaults = []struct {
	name string
	make func(ctx context.Context, s *soak, i int, peer *member, lasts time.Duration)
}{
	{"kill -9", func(ctx context.Context, s *soak, i int, _ *member, lasts time.Duration) {
		s.kill(s.members[i])
		sleep(ctx, lasts)
		s.begin(i)
	}},
	{"SIGTERM", func(ctx context.Context, s *soak, i int, _ *member, lasts time.Duration) {
		_ = s.members[i].cmd.Process.Signal(syscall.SIGTERM)
		<-s.members[i].done
		sleep(ctx, lasts/4)
		s.begin(i)
	}},
	{"SIGSTOP", func(ctx context.Context, s *soak, i int, _ *member, lasts time.Duration) {
		_ = s.members[i].cmd.Process.Signal(syscall.SIGSTOP)
		sleep(ctx, lasts)
		_ = s.members[i].cmd.Process.Signal(syscall.SIGCONT)
	}},
	{"links held", func(ctx context.Context, s *soak, i int, _ *member, lasts time.Duration) {
		for _, other := range s.members {
			s.links.Hold(s.members[i].id, other.id)
			s.links.Hold(other.id, s.members[i].id)
		}
		sleep(ctx, lasts)
		for _, other := range s.members {
			s.links.Release(s.members[i].id, other.id)
			s.links.Release(other.id, s.members[i].id)
		}
	}},
	{"link held one way", func(ctx context.Context, s *soak, i int, peer *member, lasts time.Duration) {
		s.links.Hold(s.members[i].id, peer.id)
		sleep(ctx, lasts)
		s.links.Release(s.members[i].id, peer.id)
	}},
	{"slow disk", func(ctx context.Context, s *soak, i int, _ *member, lasts time.Duration) {
		s.slowDisks(ctx, lasts, s.members[i])
	}},
	{"slow disk of each", func(ctx context.Context, s *soak, _ int, _ *member, lasts time.Duration) {
		s.slowDisks(ctx, lasts, s.members...)
	}},
	{"kill -9 with a slow disk", func(ctx context.Context, s *soak, i int, _ *member, lasts time.Duration) {
		s.slowDisks(ctx, lasts, s.members[i])
		s.kill(s.members[i])
		s.begin(i)
	}},
	{"links reset", func(_ context.Context, s *soak, i int, _ *member, _ time.Duration) {
		s.links.Reset(s.members[i].id)
	}},
	{"transfer", func(ctx context.Context, s *soak, i int, peer *member, _ time.Duration) {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		// That it is refused while there is no leader, say, is no fault.
		_, _ = metasrvpb.NewMaintenanceClient(s.library).TransferLeadership(ctx, &metasrvpb.TransferLeadershipRequest{Id: peer.id})
	}},
	{"kill -9 of all", func(ctx context.Context, s *soak, _ int, _ *member, lasts time.Duration) {
		for _, m := range s.members {
			s.kill(m)
		}
		sleep(ctx, lasts/4)
		for i := range s.members {
			s.begin(i)
		}
	}},
}

// slowDisks makes the disks of members slow for a while.
func (s *soak) slowDisks(ctx context.Context, lasts time.Duration, members ...*member) {
	for _, m := range members {
		m.disk.slow.Store(true)
		defer m.disk.slow.Store(false)
	}
	sleep(ctx, lasts)
}

// leading returns the metasrv leader as the first member that answers knows it, else the given one.
func (s *soak) leading(otherwise int) int {
	for i := range s.conns {
		ctx, cancel := context.WithTimeout(s.t.Context(), 300*time.Millisecond)
		status, err := metasrvpb.NewClusterClient(s.conns[i]).Status(ctx, &metasrvpb.StatusRequest{})
		cancel()
		if err == nil && status.GetLeaderReady() {
			return i
		}
	}
	return otherwise
}

// tally tells how often each fault was made.
func (s *soak) tally() string {
	var parts []string
	for _, f := range soakFaults {
		parts = append(parts, fmt.Sprintf("%s %d", f.name, s.made[f.name]))
	}
	return strings.Join(parts, ", ")
}

// outDir is where histories are shown that are wrong.
func outDir() string {
	if dir := os.Getenv("LINEAR_OUT"); dir != "" {
		return dir
	}
	return filepath.Join(os.TempDir(), "metasrv-linear")
}

// sleep returns false if ctx ended before.
func sleep(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
