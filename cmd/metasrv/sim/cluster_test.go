package sim

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/raftfsm"
	"github.com/metasrv/metasrv/raftfsm/memnet"
	"github.com/metasrv/metasrv/server"
)

// clients is the host on which all clients run.
const clients = "clients"

// cluster is three members on a network inside the process.
type cluster struct {
	t        *testing.T
	net      memnet.Net
	dir      string
	schedule schedule
	members  []*member
	library  *client.Client
	// transferring is held while a leadership is handed over.
	transferring lock
	// zombies are lives that have crashed and still end, supervisors watch those that have not.
	zombies, supervisors sync.WaitGroup
	ended                chan struct{}
	began                time.Time

	problemsMu sync.Mutex
	problems   []string
}

// member is one of them, over all its lives.
type member struct {
	id string
	// ip is its host. gRPC would look up a name by the operating system, which is no part of the simulation.
	ip   string
	mu   sync.Mutex
	life int
	// server is nil while the member is down.
	server *server.Server
	host   *memnet.Host
	conn   *grpc.ClientConn
	disk   *disk
	// busy is held while a fault has the member. Simulated time does not pass while one waits for a sync.Mutex.
	busy lock
}

// lock is a mutex made of a channel.
type lock chan struct{}

func (l lock) Lock()   { l <- struct{}{} }
func (l lock) Unlock() { <-l }

// TryLock takes the lock if it is free.
func (l lock) TryLock() bool {
	select {
	case l <- struct{}{}:
		return true
	default:
		return false
	}
}

// newCluster starts the members. Their folders are under dir.
func newCluster(t *testing.T, s schedule, dir string) *cluster {
	c := &cluster{t: t, dir: dir, schedule: s, began: time.Now(), ended: make(chan struct{}), transferring: make(lock, 1)}
	for i := range s.members {
		m := &member{id: string(rune('a' + i)), ip: fmt.Sprintf("10.0.0.%d", i+1), busy: make(lock, 1), disk: newDisk(s.seed, uint64(i))} //nolint:gosec // never negative
		c.members = append(c.members, m)
		m.conn = c.dial(m.grpc())
	}
	c.setLinks()
	for i := range c.members {
		c.start(i)
	}
	c.library = c.newLibrary()
	return c
}

// dial returns a connection of the clients' host to a member, for single requests.
func (c *cluster) dial(addr string) *grpc.ClientConn {
	conn, err := grpc.NewClient(addr, c.dialOptions()...)
	if err != nil {
		c.t.Fatal(err)
	}
	return conn
}

func (c *cluster) dialOptions() []grpc.DialOption {
	host := c.net.Host(clients)
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(host.Dial),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			MinConnectTimeout: 500 * time.Millisecond,
		}),
	}
}

// newLibrary returns a client of all members.
func (c *cluster) newLibrary() *client.Client {
	cfg := client.Config{
		DialOptions: c.dialOptions(), AttemptTimeout: 200 * time.Millisecond, MaxBackoff: 100 * time.Millisecond,
	}
	for _, m := range c.members {
		cfg.Endpoints = append(cfg.Endpoints, m.grpc())
	}
	cl, err := client.New(cfg)
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

// lifeName returns the name of the present process of a member.
func (m *member) lifeName() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return fmt.Sprintf("%s%d", m.id, m.life)
}

func (m *member) grpc() string { return m.ip + ":1" }
func (m *member) raft() string { return m.ip + ":2" }

// folder returns the data folder of a member's present life.
func (c *cluster) folder(m *member) string { return filepath.Join(c.dir, m.lifeName()) }

// start begins a life of a member. It goes on where its folder is.
func (c *cluster) start(i int) {
	m := c.members[i]
	m.host = c.net.Host(m.ip)
	cfg := server.Default()
	cfg.NodeID, cfg.DataDir = m.id, c.folder(m)
	cfg.GRPCAddr, cfg.RaftAddr, cfg.HTTPAddr = m.grpc(), m.raft(), m.ip+":3"
	cfg.Insecure = true
	cfg.Logger = logger()
	cfg.SuspectAfter, cfg.DownAfter, cfg.RepairAfter = time.Hour, 2*time.Hour, 0 // the datanodes are not under test
	cfg.ShutdownTimeout = time.Second
	cfg.Network, cfg.Listen = m.host, m.host.Listen
	cfg.Timing, cfg.Log, cfg.LogStore = c.schedule.timing[i], c.schedule.retention, c.schedule.logStore
	cfg.SessionTTL, cfg.Disk = c.schedule.sessionTTL, m.disk.write
	for j := range c.members {
		cfg.InitialCluster = append(cfg.InitialCluster, raftfsm.Server{ID: c.members[j].id, RaftAddr: c.members[j].raft()})
	}
	s, err := server.Start(cfg)
	if err != nil {
		c.problem("member %s does not start: %v", m.lifeName(), err)
		return
	}
	m.server = s
	c.supervisors.Go(func() { c.supervise(i, s) })
}

// supervise starts a member again that has ended by itself, as its supervisor does.
func (c *cluster) supervise(i int, s *server.Server) {
	m := c.members[i]
	select {
	case <-s.Done():
	case <-c.ended:
		return
	}
	m.busy.Lock()
	defer m.busy.Unlock()
	if m.server != s {
		return // a fault was faster
	}
	err := s.Node().Err()
	c.logf("member %s ended by itself: %v", m.lifeName(), err)
	// Of the reasons why a member gives up only this one can come in a simulation that damages nothing.
	if err == nil || !strings.Contains(err.Error(), "snapshots were installed without an entry after them") {
		c.problem("member %s has failed: %v", m.lifeName(), err)
	}
	c.crash(m)
	c.start(i)
}

// crash ends a life of a member as kill -9 does: what it had written is what the next life finds.
func (c *cluster) crash(m *member) {
	c.net.Crash(m.host)
	// All goroutines stand still now, so the files don't change while they are copied.
	synctest.Wait()
	old, server := c.folder(m), m.server
	m.server = nil
	m.mu.Lock()
	m.life++
	m.mu.Unlock()
	if err := copyFolder(c.folder(m), old); err != nil {
		c.t.Error(err)
	}
	// What is left of it can reach nobody and its folder is not used any more.
	c.zombies.Go(func() { _ = server.Close() })
}

// stop ends a life of a member in order.
func (c *cluster) stop(m *member) {
	if err := m.server.Close(); err != nil {
		c.problem("member %s does not end in order: %v", m.lifeName(), err)
	}
	m.server = nil
	old := c.folder(m)
	m.mu.Lock()
	m.life++
	m.mu.Unlock()
	if err := os.Rename(old, c.folder(m)); err != nil {
		c.t.Error(err)
	}
}

// end stops everything.
func (c *cluster) end() {
	close(c.ended)
	_ = c.library.Close()
	c.supervisors.Wait()
	for _, m := range c.members {
		_ = m.conn.Close()
		if m.server != nil {
			c.stop(m)
		}
	}
	c.zombies.Wait()
}

// problem notes what must not happen, beside what clients see.
func (c *cluster) problem(format string, args ...any) {
	c.problemsMu.Lock()
	defer c.problemsMu.Unlock()
	c.problems = append(c.problems, fmt.Sprintf(format, args...))
}

func logger() *slog.Logger {
	if os.Getenv("METASRV_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
