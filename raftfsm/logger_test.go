package raftfsm

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
)

func TestRaftLogLines(t *testing.T) {
	var out bytes.Buffer
	l := newRaftLogger(slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug})))
	var logger hclog.Logger = l.With("peer", "b")
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
