package client

import (
	"log/slog"
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// members knows whom to ask: the configured endpoints, the members learned from the cluster, and who the
// metasrv leader is as far as anyone has said.
type members struct {
	logger     *slog.Logger
	minBackoff time.Duration
	maxBackoff time.Duration

	mu        sync.Mutex
	endpoints []string // configured
	learned   []string // others that the cluster has named
	leader    string   // empty where unknown
	turn      int      // index of the next one in endpoints, then learned
	// avoided has the endpoints that did not answer lately: until when others are nearest.
	avoided map[string]time.Time
}

// first says where a call begins.
type first int

const (
	firstLeader first = iota
	firstInTurn
	firstNearest
)

// avoidTime is how long an endpoint that did not answer is not the nearest.
const avoidTime = 2 * time.Second

func newMembers(cfg Config) *members {
	return &members{
		logger:     cfg.Logger,
		minBackoff: cfg.MinBackoff,
		maxBackoff: cfg.MaxBackoff,
		endpoints:  cfg.Endpoints,
	}
}

// rotate returns the next member in turn, another one than not if there is any.
func (m *members) rotate(not string) string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.rotateLocked(not)
}

// count returns how many members are known.
func (m *members) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.endpoints) + len(m.learned)
}

func (m *members) rotateLocked(not string) string {
	all := len(m.endpoints) + len(m.learned)
	for {
		i := m.turn % all
		m.turn = i + 1
		addr := ""
		if i < len(m.endpoints) {
			addr = m.endpoints[i]
		} else {
			addr = m.learned[i-len(m.endpoints)]
		}
		if addr != not || all == 1 {
			return addr
		}
	}
}

// leaderOrNext returns the metasrv leader, or the next member in turn where it is unknown.
func (m *members) leaderOrNext() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leader != "" {
		return m.leader
	}
	return m.rotateLocked("")
}

// nearest returns the first endpoint that is not known to be silent, else the next member in turn.
func (m *members) nearest() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, addr := range m.endpoints {
		if until, ok := m.avoided[addr]; !ok || time.Now().After(until) {
			return addr
		}
	}
	return m.rotateLocked("")
}

// avoid notes that a member did not answer.
func (m *members) avoid(addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !slices.Contains(m.endpoints, addr) {
		return
	}
	if m.avoided == nil {
		m.avoided = make(map[string]time.Time)
	}
	m.avoided[addr] = time.Now().Add(avoidTime)
}

// known returns the address of the metasrv leader, empty where it is unknown.
func (m *members) known() string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.leader
}

// lead notes that addr is the metasrv leader.
func (m *members) lead(addr string) {
	m.mu.Lock()
	changed := m.leader != addr
	m.leader = addr
	m.mu.Unlock()
	if changed {
		m.logger.Debug("metasrv leader found", "member", addr)
	}
}

// forget notes that addr is not, or not reachable as, the metasrv leader.
func (m *members) forget(addr string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.leader == addr {
		m.leader = ""
	}
}

// learn replaces the members that are known besides the configured ones.
func (m *members) learn(addrs []string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.learned = m.learned[:0:0]
	for _, addr := range addrs {
		if addr != "" && !slices.Contains(m.endpoints, addr) && !slices.Contains(m.learned, addr) {
			m.learned = append(m.learned, addr)
		}
	}
}

// isKnown reports whether a connection to addr is worth keeping while it is unused.
func (m *members) isKnown(addr string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return addr == m.leader || slices.Contains(m.endpoints, addr) || slices.Contains(m.learned, addr)
}

// maxHops is how many redirects a call follows before it pauses: two members may each believe that the other
// one leads.
const maxHops = 4

// backoffGrowth is how much longer each pause of a call is than the one before.
const backoffGrowth = 1.25

// walk is the way of one call from member to member.
type walk struct {
	members *members
	// target is the member to ask next.
	target string
	// failures counts the pauses so far.
	failures int
	hops     int
	// moves counts the members that were asked instead of others since the last pause.
	moves int
	// silent has the members that gave no answer; being sent back to one of them is worth a pause.
	silent map[string]bool
}

// walk starts at the metasrv leader, or where any will do at another member.
func (m *members) walk(at first) *walk {
	w := &walk{members: m}
	switch at {
	case firstInTurn:
		w.target = m.rotate("")
	case firstNearest:
		w.target = m.nearest()
	default:
		w.target = m.leaderOrNext()
	}
	return w
}

// next chooses the next target after an attempt that failed, and returns the pause before it.
func (w *walk) next(v verdict) time.Duration {
	failed := w.target
	switch v.action {
	case follow:
		w.members.lead(v.leader)
		w.target = v.leader
		if w.hops++; w.hops <= maxHops && v.leader != failed && !w.silent[v.leader] {
			return v.delay
		}
		if w.hops > maxHops {
			w.members.forget(v.leader)
			w.target = w.members.rotate(failed)
		}
	case another:
		w.members.forget(failed)
		w.members.avoid(failed)
		w.target = w.members.rotate(failed)
		if v.unknown {
			if w.silent == nil {
				w.silent = map[string]bool{}
			}
			w.silent[failed] = true
		}
		// Every member is asked once before a pause: one that is gone must not delay the way to those that are there.
		if w.moves++; w.moves < w.members.count() {
			return v.delay
		}
	}
	w.hops, w.moves = 0, 0
	return max(v.delay, w.backoff())
}

// backoff returns the pause before the next attempt. It grows by a quarter from the least to the greatest, so that the
// next attempt is made soon after a cluster that was away for a time T is back: by T/4 later. The upper half of it is
// random, so that clients that failed together do not return together.
func (w *walk) backoff() time.Duration {
	pause := w.members.maxBackoff
	if p := float64(w.members.minBackoff) * math.Pow(backoffGrowth, float64(w.failures)); p < float64(pause) {
		pause = time.Duration(p)
	}
	w.failures++
	return pause/2 + rand.N(pause/2+1) //nolint:gosec // spreads load, guards nothing
}

// restart forgets the trouble on the way, after the target has answered.
func (w *walk) restart() {
	w.failures, w.hops, w.moves, w.silent = 0, 0, 0, nil
}
