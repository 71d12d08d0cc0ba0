package sim

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm"
)

// schedule is what a seed decides. The order in which goroutines run is not among it, so a seed repeats the faults and
// the load, and mostly the outcome.
type schedule struct {
	seed    uint64
	members int
	// timing has the speed of each member's clock: one that is slow to notice that it leads no more is as one that
	// was stopped for a while.
	timing    []raftfsm.Timing
	retention raftfsm.LogRetention
	// leader is the member that leads at first, one that is slow where there is one; -1: as it comes.
	leader int
	// links is the delay between members.
	delay    time.Duration
	logStore raftfsm.LogStore
	// sessionTTL is how long the cluster keeps a session that nobody uses.
	sessionTTL time.Duration
	// duration of the load, and the longest pause between two faults.
	duration, calm time.Duration
}

// shortTTL is less than some faults last.
const shortTTL = time.Second

func newSchedule(seed uint64) schedule {
	r := rand.New(rand.NewPCG(seed, 0)) //nolint:gosec // a seed that can be repeated
	s := schedule{seed: seed, members: 3, duration: 3 * time.Second, calm: 500 * time.Millisecond, retention: raftfsm.DefaultLogRetention(), leader: -1}
	s.sessionTTL = []time.Duration{raftfsm.DefaultSessionTTL, raftfsm.DefaultSessionTTL, shortTTL}[r.IntN(3)]
	s.logStore = raftfsm.LogStoreBolt
	if r.IntN(6) == 0 { // each start of it costs much
		s.logStore = raftfsm.LogStoreWAL
	}
	compare := []time.Duration{0, 500 * time.Millisecond}[r.IntN(2)]
	flush := []time.Duration{50 * time.Millisecond, 400 * time.Millisecond, 10 * time.Second}[r.IntN(3)]
	for i := range s.members {
		timing := raftfsm.DefaultTiming()
		timing.Flush, timing.Compare = flush, compare
		timing.PeerTimeout = 500 * time.Millisecond
		if r.IntN(3) == 0 { // slow
			timing.Heartbeat, timing.Election, timing.LeaderLease = 1200*time.Millisecond, 1200*time.Millisecond, 1200*time.Millisecond
			s.leader = i
		}
		s.timing = append(s.timing, timing)
	}
	if r.IntN(2) == 0 { // who lags gets a snapshot
		s.retention = raftfsm.LogRetention{Trailing: 8, Threshold: 4, Interval: 100 * time.Millisecond}
	}
	s.delay = []time.Duration{0, time.Millisecond, 5 * time.Millisecond}[r.IntN(3)]
	return s
}

func (c *cluster) setLinks() {
	for i, from := range c.members {
		for _, to := range c.members[i+1:] {
			c.net.Delay(from.ip, to.ip, c.schedule.delay)
			c.net.Delay(to.ip, from.ip, c.schedule.delay)
		}
	}
}

// disturb makes faults until ctx ends, and undoes them.
func (c *cluster) disturb(ctx context.Context) {
	r := rand.New(rand.NewPCG(c.schedule.seed, 1)) //nolint:gosec // a seed that can be repeated
	var faults sync.WaitGroup
	defer faults.Wait()
	for {
		pause := time.Duration(r.Int64N(int64(c.schedule.calm)))
		i, kind, lasts := r.IntN(len(c.members)), r.IntN(len(kinds)), time.Duration(r.Int64N(int64(1500*time.Millisecond)))
		if r.IntN(2) == 0 || kinds[kind].deposes { // often it is the metasrv leader
			i = c.leader(i)
		}
		if kinds[kind].deposes {
			lasts += 600 * time.Millisecond
		}
		other := r.IntN(len(c.members) - 1)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		m := c.members[i]
		if !m.busy.TryLock() {
			continue
		}
		if m.server == nil { // it did not start, which is a problem of its own
			m.busy.Unlock()
			continue
		}
		c.logf("%s of %s for %s", kinds[kind].name, m.lifeName(), lasts)
		peer := c.members[(i+1+other)%len(c.members)]
		faults.Go(func() {
			defer m.busy.Unlock()
			kinds[kind].make(c, i, peer, func() {
				select {
				case <-time.After(lasts):
				case <-ctx.Done():
				}
			})
		})
	}
}

// leader returns a member that believes to be the metasrv leader, or the given one.
func (c *cluster) leader(otherwise int) int {
	for i, m := range c.members {
		if !m.busy.TryLock() {
			continue
		}
		leads := false
		if m.server != nil {
			_, leads = m.server.Node().Leadership()
		}
		m.busy.Unlock()
		if leads {
			return i
		}
	}
	return otherwise
}

// kinds are the faults. Each is over when last has returned and it is undone.
var kinds = []struct {
	name string
	make func(c *cluster, i int, peer *member, last func())
	// deposes: it is made to the metasrv leader, for so long that there is another one.
	deposes bool
}{
	{"crash", func(c *cluster, i int, _ *member, last func()) {
		c.crash(c.members[i])
		last()
		c.start(i)
	}, false},
	{"crash and restart at once", func(c *cluster, i int, _ *member, _ func()) {
		c.crash(c.members[i])
		c.start(i)
	}, false},
	{"restart in order", func(c *cluster, i int, _ *member, last func()) {
		c.stop(c.members[i])
		last()
		c.start(i)
	}, false},
	{"transfer of the leadership", func(c *cluster, i int, _ *member, _ func()) {
		c.transfer(c.members[i])
	}, false},
	{"cut from all", func(c *cluster, i int, _ *member, last func()) {
		c.net.Cut(c.members[i].ip)
		last()
		c.net.Heal(c.members[i].ip)
	}, false},
	{"loss to and from the members", func(c *cluster, i int, _ *member, last func()) {
		defer c.hold(i, true, true, false)()
		last()
	}, true},
	{"loss to the members", func(c *cluster, i int, _ *member, last func()) {
		defer c.hold(i, true, false, false)()
		last()
	}, true},
	{"loss from the members", func(c *cluster, i int, _ *member, last func()) {
		defer c.hold(i, false, true, false)()
		last()
	}, false},
	{"stop", func(c *cluster, i int, _ *member, last func()) {
		defer c.hold(i, true, true, true)()
		last()
	}, false},
	{"loss to one member", func(c *cluster, i int, peer *member, last func()) {
		c.net.Hold(c.members[i].ip, peer.ip)
		last()
		c.net.Release(c.members[i].ip, peer.ip)
	}, false},
	{"loss to the clients", func(c *cluster, i int, _ *member, last func()) {
		c.net.Hold(c.members[i].ip, clients)
		last()
		c.net.Release(c.members[i].ip, clients)
	}, false},
	{"slow disk", func(c *cluster, i int, _ *member, last func()) {
		c.slowDisks(last, c.members[i])
	}, false},
	{"slow disk of each", func(c *cluster, _ int, _ *member, last func()) {
		c.slowDisks(last, c.members...)
	}, false},
	{"slow link", func(c *cluster, i int, peer *member, last func()) {
		c.net.Delay(c.members[i].ip, peer.ip, 80*time.Millisecond)
		last()
		c.net.Delay(c.members[i].ip, peer.ip, c.schedule.delay)
	}, false},
}

// transfer makes a member the metasrv leader, if that is possible: once at a time, and asked for once, since a member
// that has a transfer under way lets another one wait in a way that simulated time does not see.
func (c *cluster) transfer(m *member) {
	if !c.transferring.TryLock() {
		return
	}
	defer c.transferring.Unlock()
	from := c.members[c.leader(0)]
	_, err := metasrvpb.NewMaintenanceClient(from.conn).TransferLeadership(c.t.Context(), &metasrvpb.TransferLeadershipRequest{Id: m.id})
	if err != nil {
		c.logf("leadership not transferred to %s: %v", m.id, err)
	}
}

// slowDisks makes the disks of members slow for a while.
func (c *cluster) slowDisks(last func(), members ...*member) {
	for _, m := range members {
		m.disk.slow.Store(true)
		defer m.disk.slow.Store(false)
	}
	last()
}

// hold keeps back what a member sends and gets; the returned function lets it go.
func (c *cluster) hold(i int, sent, got, alsoClients bool) (release func()) {
	self := c.members[i].ip
	others := []string{}
	for _, m := range c.members {
		if m.ip != self {
			others = append(others, m.ip)
		}
	}
	if alsoClients {
		others = append(others, clients)
	}
	each := func(change func(from, to string)) {
		for _, other := range others {
			if sent {
				change(self, other)
			}
			if got {
				change(other, self)
			}
		}
	}
	each(c.net.Hold)
	return func() { each(c.net.Release) }
}

func (c *cluster) logf(format string, args ...any) {
	if verbose {
		c.t.Logf("%s %s", time.Since(c.began).Round(time.Millisecond), fmt.Sprintf(format, args...))
	}
}
