package raftfsm

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

func shortSessions(c *cluster) {
	c.configure = func(_ int, cfg *Config) { cfg.SessionTTL = 300 * time.Millisecond }
}

func openSession(t *testing.T, n *Node) uint64 {
	t.Helper()
	r, err := n.Propose(within(t, 10*time.Second), state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, Payload: &storagepb.OpenSession{},
	})
	if err != nil {
		t.Fatal(err)
	}
	opened := &storagepb.OpenSessionResult{}
	if err := r.Decode(opened); err != nil {
		t.Fatal(err)
	}
	return opened.Session
}

func isOpen(v state.View, session uint64) bool {
	for id := range machine.Sessions(v) {
		if id == session {
			return true
		}
	}
	return false
}

// The metasrv leader forgets sessions that nobody uses, on every member, and keeps those in use. Wall time has no part
// in it: leader time is that which has passed since the cluster was founded, however often the leader changed.
func TestLeaderExpiresSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		founded := time.Now()
		c := newCluster(t, 3, shortSessions)
		_, leader := c.leader()
		silent, used := openSession(t, leader), openSession(t, leader)
		for sequence := uint64(1); isOpen(leader.View(), silent); sequence++ {
			p := putProposal("a", "1")
			p.ID = &storagepb.CommandId{Session: used, Sequence: sequence, Acknowledged: sequence - 1}
			if _, err := leader.Propose(within(t, 10*time.Second), p); err != nil {
				t.Fatalf("command %d of the session in use: %v", sequence, err)
			}
			time.Sleep(20 * time.Millisecond) // of simulated time
		}
		p := putProposal("a", "2")
		p.ID = &storagepb.CommandId{Session: silent, Sequence: 1}
		if _, err := leader.Propose(within(t, 10*time.Second), p); !errors.Is(err, metasrv.ErrSessionExpired) {
			t.Errorf("a command of the silent session: %v", err)
		}
		for _, n := range c.nodes {
			eventually(t, "the session is forgotten on every member", func() bool { return !isOpen(n.View(), silent) })
		}
		if now, passed := leader.fsm.current.position().Now, time.Since(founded); time.Duration(now)*time.Millisecond > passed {
			t.Errorf("leader time is %d ms after %s", now, passed)
		}
	})
}

// Rule 5, on members: leaders that come and go faster than sessions expire forget none.
func TestChangingLeadersExpireNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ttl = 2 * time.Second
		c := newCluster(t, 3, func(c *cluster) {
			c.configure = func(_ int, cfg *Config) { cfg.SessionTTL = ttl }
		})
		i, leader := c.leader()
		session := openSession(t, leader)
		eventually(t, "the time is configured", func() bool { return machine.SessionTTL(leader.View(), 0) > 0 })
		for range 4 {
			time.Sleep(ttl * 3 / 4) // of simulated time
			c.stop(i)
			stopped := i
			i, leader = c.leader()
			c.start(stopped)
			if !isOpen(leader.View(), session) {
				t.Fatal("the session expired while leaders changed")
			}
		}
		tookOver := time.Now() // within the 10 ms in which leader() looks
		eventually(t, "the session expires", func() bool { return !isOpen(leader.View(), session) })
		if led := time.Since(tookOver); led < ttl-100*time.Millisecond {
			t.Errorf("expired %s after the last leader took over, want %s at least", led, ttl)
		}
	})
}
