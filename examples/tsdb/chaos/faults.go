package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/metasrv/metasrv/examples/tsdb/internal/local"
)

// fault is one way to disturb the cluster. make returns when it is undone, and what was done, empty for nothing.
type fault struct {
	name   string
	weight int
	make   func(ctx context.Context, f *faults, r *rand.Rand) string
}

// lane is a sequence of faults, one after the other. Lanes run at the same time.
type lane struct {
	name string
	// pause between two faults, on average.
	pause  time.Duration
	faults []fault
	random *rand.Rand
}

// faults is what disturbs the cluster.
type faults struct {
	*chaos
	lanes []*lane
	// disks is held to empty one, and shared by faults of datanodes: no other datanode is disturbed meanwhile.
	disks sync.RWMutex

	mu   sync.Mutex
	made map[string]int
	// busy are the datanodes that are disturbed.
	busy map[*local.Datanode]bool
}

func newFaults(c *chaos) *faults {
	f := &faults{chaos: c, made: map[string]int{}, busy: map[*local.Datanode]bool{}}
	for i, l := range []*lane{
		{name: "datanode", pause: time.Second, faults: datanodeFaults},
		{name: "second datanode", pause: 4 * time.Second, faults: datanodeFaults},
		{name: "member", pause: 3 * time.Second, faults: memberFaults},
		{name: "frontend", pause: 20 * time.Second, faults: frontendFaults},
		{name: "operator", pause: 3 * time.Second, faults: operatorFaults},
	} {
		l.faults = keep(l.faults, c.only)
		l.random = rand.New(rand.NewPCG(c.seed, uint64(i))) //nolint:gosec // a seed that can be repeated
		if len(l.faults) > 0 {
			f.lanes = append(f.lanes, l)
		}
	}
	return f
}

// keep returns the faults whose names begin like one of those in a list with commas.
func keep(all []fault, only string) []fault {
	var kept []fault
	for _, f := range all {
		if slices.ContainsFunc(strings.Split(only, ","), func(name string) bool { return strings.HasPrefix(f.name, name) }) {
			kept = append(kept, f)
		}
	}
	return kept
}

// run makes the faults of a lane until ctx ends. The last one is undone before it returns.
func (f *faults) run(ctx context.Context, l *lane) {
	for sleep(ctx, spread(l.random, l.pause)) {
		fault := l.pick()
		// Each fault has numbers of its own: how many one of them draws changes nothing for those behind it.
		r := rand.New(rand.NewPCG(l.random.Uint64(), 0)) //nolint:gosec // a seed that can be repeated
		if what := fault.make(ctx, f, r); what != "" {
			f.out.Print("  %s: %s", fault.name, what)
			f.mu.Lock()
			f.made[fault.name]++
			f.mu.Unlock()
		}
	}
}

func (l *lane) pick() fault {
	all := 0
	for _, f := range l.faults {
		all += f.weight
	}
	n := l.random.IntN(all)
	for _, f := range l.faults {
		if n -= f.weight; n < 0 {
			return f
		}
	}
	return l.faults[0]
}

// take chooses a datanode that is not disturbed, nil where it is.
func (f *faults) take(r *rand.Rand) *local.Datanode {
	d := f.cluster.Datanodes[r.IntN(len(f.cluster.Datanodes))]
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.busy[d] {
		return nil
	}
	f.busy[d] = true
	return d
}

func (f *faults) give(d *local.Datanode) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.busy, d)
}

// tally tells how often each fault was made.
func (f *faults) tally() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	var parts []string
	seen := map[string]bool{}
	for _, l := range f.lanes {
		for _, fault := range l.faults {
			if !seen[fault.name] {
				parts = append(parts, fmt.Sprintf("%s %d", fault.name, f.made[fault.name]))
			}
			seen[fault.name] = true
		}
	}
	return strings.Join(parts, ", ")
}

// between returns a duration between two.
func between(r *rand.Rand, least, most time.Duration) time.Duration {
	return (least + time.Duration(r.Int64N(int64(most-least)))).Round(time.Millisecond)
}
