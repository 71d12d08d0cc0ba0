package frontend_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/metasrv/metasrv"

	"github.com/metasrv/metasrv/examples/tsdb/frontend"
)

// logBuffer is a log of several goroutines.
type logBuffer struct {
	mu   sync.Mutex
	text strings.Builder
}

// Write implements io.Writer.
func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.text.String()
}

// TestLogOfStart: that the node is registered is said once, and by no line twice which node it is.
func TestLogOfStart(t *testing.T) {
	s := &system{t: t, nodes: map[uint64]*runner{}}
	s.startMetasrv()
	var log logBuffer
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		done <- frontend.Run(ctx, frontend.Config{
			NodeID: 101, MySQLListen: "127.0.0.1:0", HTTPListen: "127.0.0.1:0",
			Metasrv: []string{s.metasrv.GRPCAddr()}, Logger: slog.New(slog.NewTextHandler(&log, nil)),
		})
	}()
	s.eventually("the frontend is live", func() bool { return s.live() == 1 })
	s.eventually("the log says it", func() bool { return strings.Contains(log.String(), "registered") })
	stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := strings.Count(log.String(), "registered"); n != 1 {
		t.Errorf("%d lines of the registration", n)
	}
	for line := range strings.Lines(log.String()) {
		if strings.Count(line, "node_id=") != 1 {
			t.Errorf("node_id not once: %s", line)
		}
	}
}

// TestPortInUse names the flag.
func TestPortInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	for flag, c := range map[string]frontend.Config{
		"mysql-listen": {MySQLListen: taken, HTTPListen: "127.0.0.1:0"},
		"http-listen":  {MySQLListen: "127.0.0.1:0", HTTPListen: taken},
	} {
		c.NodeID, c.Metasrv = metasrv.NodeID(101), []string{"127.0.0.1:1"}
		want := "--" + flag + " " + taken + " is in use by another process; stop that one, or choose another address"
		if err := frontend.Run(t.Context(), c); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
