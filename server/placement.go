package server

import (
	"context"
	"errors"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
	"github.com/metasrv/metasrv/scheduler"
)

// placement counts the replicas that the routes place on each node.
type placement map[uint64]replicaCount

type replicaCount struct{ replicas, leaders int }

// add counts, times 1 or -1, what a stored route places; nil is no route.
func (p placement) add(route []byte, times int) error {
	return router.ReplicasIn(route, func(node uint64, leads bool) {
		n := p[node]
		n.replicas += times
		if leads {
			n.leaders += times
		}
		p[node] = n
	})
}

// placementSource is where the count comes from.
type placementSource interface {
	state.Feed
	View() state.View
}

// placements keeps the count by the changes of the state, for a count of all routes takes a second with a million
// regions. To it come the replicas of creations under way, so that many at once don't all choose the same nodes.
type placements struct {
	source placementSource

	mu sync.Mutex
	// counted is what the routes place at a revision, nil before the first count.
	counted  placement
	revision uint64
	reserved placement
	// nodes is the revision of the last change of a node's record, candidates are those of the last placement.
	nodes      uint64
	candidates *candidates
	// executed is the revision of the last creation whose reservation was given up: the count must have it.
	executed uint64
}

// at returns the count at the revision of a view or a later one, without what is under way.
func (p *placements) at(ctx context.Context, v state.View) (placement, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.advance(ctx, v); err != nil {
		return nil, err
	}
	return maps.Clone(p.counted), nil
}

// place calls choose with the nodes and what is placed on them, what is under way included, and reserves what it chose
// until done is called with the revision of the creation, 0 if it failed.
func (p *placements) place(
	ctx context.Context, v state.View, t *heartbeat.Tracker, choose func(*candidates) ([][]scheduler.Assignment, error),
) (chosen [][]scheduler.Assignment, done func(revision uint64), err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err := p.advance(ctx, v); err != nil {
		return nil, nil, err
	}
	kept, err := p.survey(t)
	if err != nil {
		return nil, nil, err
	}
	if chosen, err = choose(p.candidates); err != nil && kept {
		// A node that was missing may be there by now.
		p.candidates = nil
		if _, err := p.survey(t); err != nil {
			return nil, nil, err
		}
		chosen, err = choose(p.candidates)
	}
	if err != nil {
		return nil, nil, err
	}
	p.reserve(chosen, 1)
	return chosen, func(revision uint64) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.executed = max(p.executed, revision)
		p.reserve(chosen, -1)
	}, nil
}

// survey brings the candidates to now, and says whether they were gathered before. p.mu is held.
func (p *placements) survey(t *heartbeat.Tracker) (kept bool, err error) {
	now := time.Now()
	if kept = p.candidates.serve(t, p.nodes, now); !kept {
		if p.candidates, err = gather(p.source.View(), t, p.nodes, now); err != nil {
			return false, err
		}
	}
	for i := range p.candidates.loads {
		load := &p.candidates.loads[i]
		n, r := p.counted[uint64(load.ID)], p.reserved[uint64(load.ID)]
		load.Replicas, load.Leaders = n.replicas+r.replicas, n.leaders+r.leaders
	}
	return kept, nil
}

func (p *placements) reserve(chosen [][]scheduler.Assignment, times int) {
	if p.reserved == nil {
		p.reserved = placement{}
	}
	for _, replicas := range chosen {
		for i, a := range replicas {
			n := p.reserved[uint64(a.Node)]
			n.replicas += times
			if i == 0 {
				n.leaders += times
			}
			if p.reserved[uint64(a.Node)] = n; n == (replicaCount{}) {
				delete(p.reserved, uint64(a.Node))
			}
		}
	}
}

// advance brings the count to the revision of a view, or further. p.mu is held.
func (p *placements) advance(ctx context.Context, v state.View) error {
	if p.counted == nil {
		if err := p.count(); err != nil {
			return err
		}
	}
	for p.revision < max(v.Revision(), p.executed) {
		revisions, err := p.source.Read(ctx, p.revision+1)
		if errors.Is(err, metasrv.ErrCompacted) {
			return p.count()
		}
		if err != nil {
			return err
		}
		for _, r := range revisions {
			if err := p.change(r); err != nil {
				p.counted = nil // half of a revision is in it
				return err
			}
		}
	}
	return nil
}

func (p *placements) change(r state.Revision) error {
	for _, c := range r.Changes {
		if strings.HasPrefix(c.Key, heartbeat.NodePrefix) {
			p.nodes = r.Number
		}
		if !strings.HasPrefix(c.Key, router.RoutePrefix) {
			continue
		}
		if err := errors.Join(p.counted.add(c.Prev, -1), p.counted.add(c.Value, 1)); err != nil {
			return err
		}
	}
	p.revision = r.Number
	return nil
}

// count counts the routes from the beginning: those of the present state, which has what was executed meanwhile and is not
// among what is under way any more.
func (p *placements) count() error {
	v := p.source.View()
	counted := placement{}
	for route := range router.Values(v) {
		if err := counted.add(route, 1); err != nil {
			return err
		}
	}
	p.counted, p.revision, p.nodes = counted, v.Revision(), v.Revision()
	return nil
}
