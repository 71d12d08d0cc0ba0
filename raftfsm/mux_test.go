package raftfsm

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"github.com/metasrv/metasrv/raftfsm/memnet"
)

// Connections on which nobody says anything are bounded in number and in time, and keep no member out.
func TestSilentConnectionsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		network := &memnet.Net{}
		listener, err := network.Host("a:1").Listen("a:1")
		if err != nil {
			t.Fatal(err)
		}
		m := newMux(network.Host("a:1"), listener, "a:1", func(c net.Conn) { _ = c.Close() }, openGate("a:1"))
		var silent []net.Conn
		for range 2 * maxGreeting {
			conn, err := network.Host("b:1").Dial(t.Context(), "a:1")
			if err != nil {
				t.Fatal(err)
			}
			silent = append(silent, conn)
		}
		synctest.Wait()
		open := func() int {
			m.mu.Lock()
			defer m.mu.Unlock()
			return len(m.open)
		}
		if n := open(); n != maxGreeting {
			t.Errorf("%d silent connections are open, want %d", n, maxGreeting)
		}
		time.Sleep(preambleTimeout + time.Second)
		synctest.Wait()
		if n := open(); n != 0 {
			t.Errorf("%d silent connections are open after %s", n, preambleTimeout)
		}
		go func() {
			if conn, err := m.Accept(); err == nil {
				_ = conn.Close()
			}
		}()
		conn, err := network.Host("b:1").Dial(context.Background(), "a:1")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write(append([]byte{protocolRaft}, openGate("b:1").greet().encode()...)); err != nil {
			t.Errorf("a member was kept out: %v", err)
		}
		for _, c := range append(silent, conn) {
			_ = c.Close()
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	})
}

// What raft repeats about a member that is away is said once in a while.
func TestRepeatedErrorsAreSaidOnce(t *testing.T) {
	r := &repeats{told: map[string]time.Time{}}
	now := time.Now()
	b, c := []any{"peer", raft.Server{ID: "b"}}, []any{"peer", raft.Server{ID: "c"}}
	for _, step := range []struct {
		msg   string
		args  []any
		after time.Duration
		again bool
	}{
		{"failed to heartbeat to", b, 0, false},
		{"failed to heartbeat to", b, time.Second, true},
		{"failed to heartbeat to", c, time.Second, false},
		{"failed to appendEntries to", b, time.Second, false},
		{"failed to heartbeat to", b, repeatEvery, false},
	} {
		if again := r.again(step.msg, step.args, now.Add(step.after)); again != step.again {
			t.Errorf("%s %v after %s: again is %v", step.msg, step.args, step.after, again)
		}
	}
}
