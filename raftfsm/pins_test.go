package raftfsm

import (
	"context"
	"log/slog"
	"math"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// countLines is a log that counts the lines with a message.
type countLines struct {
	slog.Handler
	message string
	count   *atomic.Int32
}

func (h countLines) Enabled(context.Context, slog.Level) bool { return true }

func (h countLines) WithAttrs(attrs []slog.Attr) slog.Handler {
	return countLines{h.Handler.WithAttrs(attrs), h.message, h.count}
}

func (h countLines) Handle(_ context.Context, r slog.Record) error {
	if r.Message == h.message {
		h.count.Add(1)
	}
	return nil
}

// hashicorp/consul#9609: a member that is fed with a snapshot under load, which takes longer than the log is kept by its
// size, goes on from the log and needs no second snapshot. Then the log is shortened again.
func TestLogOutlastsTheTransferOfASnapshot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var installs atomic.Int32
		c := newCluster(t, 1, func(c *cluster) {
			c.log = LogRetention{Trailing: 10, Threshold: 20, Interval: 20 * time.Millisecond}
			c.timing.Flush = 20 * time.Millisecond
			c.configure = func(_ int, cfg *Config) {
				cfg.Logger = slog.New(countLines{slog.DiscardHandler, "installed snapshot", &installs})
			}
		})
		_, leader := c.leader()
		for i := range 100 {
			if _, err := put(within(t, time.Minute), leader, key(i), strings.Repeat("x", 64<<10)); err != nil {
				t.Fatal(err)
			}
		}
		first := func() uint64 {
			index, err := leader.store.FirstIndex()
			if err != nil {
				t.Fatal(err)
			}
			return index
		}
		written := 0
		write := func() bool {
			mustPut(t, leader, "more"+key(written))
			written++
			return first() > 50
		}
		eventually(t, "the log is shortened", write)
		c.net.Delay("a", "b", 150*time.Millisecond)
		b := c.join("b")
		if _, err := leader.AddMember(within(t, time.Minute), c.servers[b], Change{}); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the member is fed and catches up under load", func() bool {
			write()
			return get(c.nodes[b].View(), "more"+key(written-40)) == "v"
		})
		if n := installs.Load(); n != 1 {
			t.Errorf("%d snapshots were installed, want 1", n)
		}
		c.net.Delay("a", "b", 0)
		eventually(t, "the log is shortened again", func() bool {
			write()
			return leader.Status().AppliedIndex-first() < 100
		})
	})
}

// A pin holds what its member still needs, and gives way to time, bytes and a full disk.
func TestPinsGiveWay(t *testing.T) {
	const none = math.MaxUint64
	tests := map[string]struct {
		then func(p *pins, written *uint64)
		want uint64
	}{
		"while it is fed":       {func(*pins, *uint64) { time.Sleep(time.Hour) }, 99},
		"when it has the state": {func(p *pins, _ *uint64) { p.fed("b", true); time.Sleep(pinPatience) }, 99},
		"as it catches up":      {func(p *pins, _ *uint64) { p.fed("b", true); p.acknowledged("b", 132, 500) }, 131},
		"when it has caught up": {func(p *pins, _ *uint64) { p.fed("b", true); p.acknowledged("b", 500, 500) }, none},
		"when it was not fed":   {func(p *pins, _ *uint64) { p.fed("b", false) }, none},
		"when it falls silent":  {func(p *pins, _ *uint64) { p.fed("b", true); time.Sleep(pinPatience + 1) }, none},
		"at the bound":          {func(_ *pins, written *uint64) { *written += 1000 }, 99},
		"beyond the bound":      {func(_ *pins, written *uint64) { *written += 1001 }, none},
		"on a full disk":        {func(p *pins, _ *uint64) { p.disk.ranOut() }, none},
		"of two the lower":      {func(p *pins, _ *uint64) { p.feed("c", 70) }, 69},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				written := uint64(5000)
				p := newPins(1000, func() uint64 { return written }, newDisk("a", t.TempDir(), 0, testLogger()))
				p.feed("b", 100)
				if tt.then(p, &written); p.before() != tt.want {
					t.Errorf("up to %d may be dropped, want %d", p.before(), tt.want)
				}
			})
		})
	}
}
