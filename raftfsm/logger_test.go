package raftfsm

import (
	"bytes"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

func TestRaftLogLines(t *testing.T) {
	var out bytes.Buffer
	l := newRaftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	logger := l.With("peer", "b")
	for _, c := range []struct {
		write func()
		want  string
	}{
		{func() { logger.Error("failed", "error", "disk") }, `level=ERROR msg="raft: failed" peer=b error=disk`},
		{func() { logger.Info("took", "from", hclog.Fmt("%d of %d", 1, 2)) }, `level=INFO msg="raft: took" peer=b from="1 of 2"`},
		{func() { logger.Warn("heartbeat timeout reached, starting election", "last-leader-id", "") }, "level=INFO"},
		{func() { logger.Warn("heartbeat timeout reached, starting election", "last-leader-id", "a") }, "level=WARN"},
	} {
		out.Reset()
		c.write()
		if !strings.Contains(out.String(), c.want) {
			t.Errorf("wrote %q, want %q", out.String(), c.want)
		}
	}
	l.stopping.Store(true)
	out.Reset()
	logger.Error("failed to decode incoming command")
	if !strings.Contains(out.String(), "level=DEBUG") {
		t.Errorf("a line of the stop was written as %q", out.String())
	}
}

// TestAbsentMembersAreNoErrorBeforeTheFirstLeader: members are started one after the other.
func TestAbsentMembersAreNoErrorBeforeTheFirstLeader(t *testing.T) {
	for _, leader := range []struct {
		name string
		seen func(hclog.Logger)
	}{
		{"lost", func(l hclog.Logger) { l.Warn("heartbeat timeout reached, starting election", "last-leader-id", "m2") }},
		{"led itself", func(l hclog.Logger) { l.Info("entering leader state", "leader", "m1") }},
	} {
		t.Run(leader.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var out bytes.Buffer
				logger := newRaftLogger(slog.New(slog.NewTextHandler(&out, nil))).With("member", "m1")
				candidate := func() string {
					out.Reset()
					logger.Info("entering candidate state", "node", "m1")
					return out.String()
				}
				elect := func(absent ...raft.ServerID) string {
					out.Reset()
					for _, id := range absent {
						logger.Error("failed to make requestVote RPC",
							"target", raft.Server{ID: id, Address: raft.ServerAddress("h:" + id)}, "error", "connection refused")
					}
					return out.String()
				}
				expect := func(name, got, want string) {
					t.Helper()
					if strings.Count(got, "\n") != min(len(want), 1) || !strings.Contains(got, want) {
						t.Errorf("%s: wrote %q, want %q", name, got, want)
					}
				}
				logger.Warn("heartbeat timeout reached, starting election", "last-leader-id", "")
				round := `level=INFO msg="raft: entering candidate state"`
				expect("a round that nothing is known of", candidate(), round)
				expect("first round", elect("m3", "m2"), "")
				both := `level=INFO msg="waiting for other members: m2 at h:m2, m3 at h:m3" member=m1`
				expect("second round", elect("m3", "m2"), both)
				expect("at once again", elect("m3", "m2")+elect("m3", "m2"), "")
				time.Sleep(absentEvery)
				expect("5 s later", elect("m3", "m2"), both)
				expect("a round with absent members", candidate(), "")
				time.Sleep(2 * absentEvery)
				expect("all were reached since", candidate(), round)
				elect("m3", "m2")
				leader.seen(logger)
				expect("after a leader", elect("m3"), `level=ERROR msg="raft: failed to make requestVote RPC"`)
			})
		})
	}
}

// A member that fails breaks its own connections: raft's errors about that would hide why it failed.
func TestFailureIsTheLastErrorOfAMember(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out lockedBuffer
		c := newCluster(t, 3, func(c *cluster) {
			c.configure = func(i int, cfg *Config) {
				if i == 0 {
					cfg.Logger = slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelError}))
				}
			}
		})
		c.leader()
		n := c.nodes[0]
		n.fail(errors.New("for a test"))
		<-n.down.Done()
		synctest.Wait()
		_ = n.Close(t.Context())
		c.nodes[0] = nil
		_, behind, failed := strings.Cut(out.String(), "for a test")
		if !failed || strings.Contains(behind, "level=") {
			t.Errorf("it wrote: %s", out.String())
		}
	})
}

// lockedBuffer takes lines of many goroutines.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
