package client

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/metasrv/metasrv"
)

// logLines keeps what is logged.
type logLines struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buffer.Write(p)
}

// all returns the lines that begin with a level and a message, in order.
func (l *logLines) all(prefix string) (lines []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for line := range strings.Lines(l.buffer.String()) {
		if strings.HasPrefix(line, prefix) {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	return lines
}

// logger returns one whose lines have no time.
func (l *logLines) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

func TestOutageIsLoggedNowAndThen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var lines logLines
		o := outage{logger: lines.logger()}
		o.over("a") // was never down
		for range 25 {
			o.failed("a", errors.New("refused"))
			time.Sleep(time.Second)
		}
		o.over("b")
		o.over("b")
		o.failed("c", errors.New("gone"))
		down := `level=WARN msg="heartbeats don't reach metasrv" member=`
		want := []string{
			down + "a reason=refused", down + "a reason=refused", down + "a reason=refused",
			`level=INFO msg="heartbeats reach metasrv again" member=b`, down + "c reason=gone",
		}
		if got := lines.all(""); strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("logged\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
	})
}

// TestOutageOfRealConnections: nobody listens, then a member does, and breaks its connections.
func TestOutageOfRealConnections(t *testing.T) {
	addr := deadAddr(t)
	var lines logLines
	c := dial(t, nil, addr)
	_, stop := beatFrom(t, c, func(cfg *HeartbeatConfig) { cfg.Logger = lines.logger() })
	down, back := `level=WARN msg="heartbeats don't reach metasrv"`, `level=INFO msg="heartbeats reach metasrv again"`
	eventually(t, "the outage is logged", func() bool { return len(lines.all(down)) > 0 })
	f := &fakeLeader{incarnation: 5, interval: 20 * time.Millisecond}
	m := startMemberAt(t, addr, func(m *fakeMember) { m.onStream(f.serve) })
	f.await(t, 2)
	eventually(t, "its end is logged", func() bool { return len(lines.all(back)) > 0 })
	m.stop()
	eventually(t, "the next outage is logged", func() bool { return len(lines.all(down)) > 1 })
	if err := stop(); err != nil {
		t.Error(err)
	}
	got := append(lines.all(down), lines.all(back)...)
	want := down + " node_id=7 member=" + addr + ` reason="connection refused"`
	if len(got) != 3 || got[0] != want || got[2] != back+" node_id=7 member="+addr {
		t.Errorf("logged\n%s", strings.Join(got, "\n"))
	}
}

func TestBriefly(t *testing.T) {
	for message, want := range map[string]string{
		`connection error: desc = "transport: Error while dialing: dial tcp 127.0.0.1:3002: connect: connection refused"`: "connection refused",
		`connection error: desc = "transport: Error while dialing: dial tcp: lookup m1: no such host"`:                    "no such host",
		"error reading from server: EOF":        "EOF",
		"this member is not the metasrv leader": "this member is not the metasrv leader",
		"node 1: this member is stopping":       "node 1: this member is stopping",
		"connection error: desc = \"error reading server preface: read tcp 127.0.0.1:1->127.0.0.1:2: read: reset\"": "reset",
	} {
		if got := briefly(status.Error(codes.Unavailable, message)); got != want {
			t.Errorf("%s: %q, want %q", message, got, want)
		}
	}
	if got := briefly(context.Canceled); got != "context canceled" {
		t.Errorf("no status: %q", got)
	}
	if got := briefly(metasrv.ErrNotReady.With("not ready")); got != "not ready" {
		t.Errorf("metasrv error: %q", got)
	}
}
