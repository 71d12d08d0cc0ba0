package raftfsm

import (
	"context"
	"fmt"
	"io"
	"log"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// raftLogger writes raft's log lines to slog.
type raftLogger struct {
	log  *slog.Logger
	name string
	args []any
	// stopping is set when the member closes or has failed: raft reports the ends of its own connections as errors then.
	stopping *atomic.Bool
	absent   *absentMembers
	repeats  *repeats
}

func newRaftLogger(l *slog.Logger) *raftLogger {
	return &raftLogger{
		log: l, stopping: new(atomic.Bool), absent: &absentMembers{names: map[raft.ServerID]string{}},
		repeats: &repeats{told: map[string]time.Time{}},
	}
}

var levels = map[hclog.Level]slog.Level{
	hclog.Trace: slog.LevelDebug - 4,
	hclog.Debug: slog.LevelDebug,
	hclog.Info:  slog.LevelInfo,
	hclog.Warn:  slog.LevelWarn,
	hclog.Error: slog.LevelError,
}

// Log writes one line.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	to, known := levels[level]
	switch {
	case l.stopping.Load():
		to = slog.LevelDebug
	case !known:
		to = slog.LevelInfo
	case strings.HasPrefix(msg, "heartbeat timeout reached"):
		if fromNobody(args) {
			to = slog.LevelInfo // the first election after a start: no leader was lost
		} else {
			l.absent.leaderSeen()
		}
	case msg == "entering leader state":
		l.absent.leaderSeen()
	case msg == "failed to make requestVote RPC":
		text, waiting := l.absent.add(args, time.Now())
		if waiting {
			to = slog.LevelDebug
		}
		if text != "" {
			l.log.Info("waiting for other members: " + text)
		}
	case slices.Contains(electionRound, msg) && l.absent.wereTold(time.Now()):
		to = slog.LevelDebug
	case to >= slog.LevelWarn && l.repeats.again(msg, args, time.Now()):
		to = slog.LevelDebug
	}
	for i, a := range args {
		if f, ok := a.(hclog.Format); ok && len(f) > 0 {
			args[i] = fmt.Sprintf(fmt.Sprint(f[0]), f[1:]...)
		}
	}
	l.log.Log(context.Background(), to, "raft: "+msg, args...)
}

// electionRound is what raft says in each round of an election that can't succeed, several times a second.
var electionRound = []string{
	"entering candidate state", "pre-vote campaign failed, waiting for election timeout", "Election timeout reached, restarting election",
}

// absentEvery is the least time between two lines that tell of absent members.
const absentEvery = 5 * time.Second

// absentMembers are those that a member could not ask for their votes while it has seen no metasrv leader since its
// start: most likely they are yet to be started, and no error.
type absentMembers struct {
	mu     sync.Mutex
	leader bool // one was seen
	names  map[raft.ServerID]string
	told   time.Time
}

// leaderSeen makes failures errors from now on.
func (m *absentMembers) leaderSeen() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.leader = true
}

// wereTold reports whether the log has said lately that members are absent and no metasrv leader was seen.
func (m *absentMembers) wereTold(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !m.leader && !m.told.IsZero() && now.Sub(m.told) < 2*absentEvery
}

// add takes the arguments of a failed request for a vote. waiting says that no metasrv leader was seen yet; text
// names the absent members when it is time to.
func (m *absentMembers) add(args []any, now time.Time) (text string, waiting bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leader {
		return "", false
	}
	for _, arg := range args {
		server, ok := arg.(raft.Server)
		if !ok {
			continue
		}
		_, again := m.names[server.ID]
		m.names[server.ID] = fmt.Sprintf("%s at %s", server.ID, server.Address)
		// All have been asked when one was asked twice.
		if again && now.Sub(m.told) >= absentEvery {
			text = strings.Join(slices.Sorted(maps.Values(m.names)), ", ")
			m.told = now
			clear(m.names)
		}
	}
	return text, true
}

// fromNobody reports whether the arguments of an election say that there was no leader before.
func fromNobody(args []any) bool {
	for i := 0; i+1 < len(args); i += 2 {
		if args[i] == "last-leader-id" {
			return fmt.Sprint(args[i+1]) == ""
		}
	}
	return false
}

// Trace writes a line below debug.
func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }

// Debug writes a debug line.
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }

// Info writes an info line.
func (l *raftLogger) Info(msg string, args ...any) { l.Log(hclog.Info, msg, args...) }

// Warn writes a warning.
func (l *raftLogger) Warn(msg string, args ...any) { l.Log(hclog.Warn, msg, args...) }

// Error writes an error.
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) enabled(level hclog.Level) bool {
	return l.log.Enabled(context.Background(), levels[level])
}

// IsTrace reports whether trace lines are written.
func (l *raftLogger) IsTrace() bool { return l.enabled(hclog.Trace) }

// IsDebug reports whether debug lines are written.
func (l *raftLogger) IsDebug() bool { return l.enabled(hclog.Debug) }

// IsInfo reports whether info lines are written.
func (l *raftLogger) IsInfo() bool { return l.enabled(hclog.Info) }

// IsWarn reports whether warnings are written.
func (l *raftLogger) IsWarn() bool { return l.enabled(hclog.Warn) }

// IsError reports whether errors are written.
func (l *raftLogger) IsError() bool { return l.enabled(hclog.Error) }

// ImpliedArgs returns the arguments of every line.
func (l *raftLogger) ImpliedArgs() []any { return l.args }

// With returns a logger that adds arguments to every line.
func (l *raftLogger) With(args ...any) hclog.Logger {
	return &raftLogger{
		log: l.log.With(args...), name: l.name, stopping: l.stopping, absent: l.absent, repeats: l.repeats,
		args: append(l.args[:len(l.args):len(l.args)], args...),
	}
}

// Name returns the logger's name.
func (l *raftLogger) Name() string { return l.name }

// Named returns the logger under a longer name.
func (l *raftLogger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

// ResetNamed returns the logger under another name.
func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	return &raftLogger{log: l.log, name: name, stopping: l.stopping, absent: l.absent, repeats: l.repeats, args: l.args}
}

// SetLevel does nothing: slog's handler decides.
func (l *raftLogger) SetLevel(hclog.Level) {}

// GetLevel returns the lowest level that is written.
func (l *raftLogger) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Error
}

// StandardLogger returns a logger of the standard library that writes here.
func (l *raftLogger) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.log.Handler(), slog.LevelInfo)
}

// StandardWriter returns a writer whose lines are written here.
func (l *raftLogger) StandardWriter(*hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(nil).Writer()
}
