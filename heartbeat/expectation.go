package heartbeat

import (
	"slices"
	"sync"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Placement is a replica that the state places on a node.
type Placement struct {
	Table metasrv.TableID
	Node  metasrv.NodeID
	// Exact: a node that reports the replica with this Sum, as package digest has it, agrees with the state in all that
	// concerns it; a region leader knows the present configuration. Otherwise only a judgement tells.
	Exact bool
	Sum   uint64
	// StorageGeneration is that of the storage which the replica was put on: it is lost if the node's is higher.
	StorageGeneration uint64
}

// expectation is what a node should report by the state of one moment, summed up: of a node that does, nothing needs to be
// compared. A new metasrv leader judges a million replicas by it in one pass over the state, instead of each node's tables.
type expectation struct {
	base *base
	// sum is the digest over all replicas but those of inexact tables, count how many they are.
	sum     uint64
	count   int
	tables  []metasrv.TableID // ascending
	inexact []metasrv.TableID // ascending
	// of is the table that is being added, with what was found of it so far.
	of        metasrv.TableID
	ofSum     uint64
	ofCount   int
	ofInexact bool
}

// base is the state that expectations were made from. It is given up after a while, because it keeps all that has changed
// since in memory.
type base struct {
	mu    sync.Mutex
	view  state.View
	until time.Time
}

func (b *base) get() state.View {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.view
}

// expire gives the state up where it is time, and says whether it was.
func (b *base) expire(now time.Time) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now.After(b.until) {
		b.view = nil
	}
	return b.view == nil
}

// add adds a replica; those of a table come one after the other.
func (e *expectation) add(p Placement, exact bool) {
	if p.Table != e.of {
		e.close()
		e.of = p.Table
		e.tables = append(e.tables, p.Table)
	}
	e.ofSum += p.Sum
	e.ofCount++
	e.ofInexact = e.ofInexact || !exact
}

// close ends the table that is being added.
func (e *expectation) close() {
	switch {
	case e.ofInexact:
		e.inexact = append(e.inexact, e.of)
	default:
		e.sum += e.ofSum
		e.count += e.ofCount
	}
	e.of, e.ofSum, e.ofCount, e.ofInexact = 0, 0, 0, false
}

// without returns the sum without some tables, which may have changed since; false where that is not known any more.
func (e *expectation) without(rules Rules, node metasrv.NodeID, dirty map[metasrv.TableID]struct{}) (uint64, bool) {
	sum := e.sum
	for table := range dirty {
		if _, inexact := slices.BinarySearch(e.inexact, table); inexact {
			continue
		}
		view := e.base.get()
		if view == nil {
			return 0, false
		}
		err := rules.PlacementsOf(view, table, func(p Placement) {
			if p.Node == node {
				sum -= p.Sum
			}
		})
		if err != nil {
			return 0, false
		}
	}
	return sum, true
}

// expectations makes those of all nodes that the state places replicas on.
func (t *Tracker) expectations(rules Rules, view state.View) (map[metasrv.NodeID]*expectation, *base, error) {
	records, err := t.records.all(view)
	if err != nil {
		return nil, nil, err
	}
	// Nodes that keep no leases are told less, and not by digests.
	generations := make(map[metasrv.NodeID]uint64, len(records))
	for _, r := range records {
		if keepsLeases(r) {
			generations[metasrv.NodeID(r.GetPeer().GetId())] = r.GetStorageGeneration()
		}
	}
	b := &base{view: view, until: time.Now().Add(t.cfg.Grace)}
	all := make(map[metasrv.NodeID]*expectation, len(records))
	err = rules.Placements(view, func(p Placement) {
		e := all[p.Node]
		if e == nil {
			e = &expectation{base: b}
			all[p.Node] = e
		}
		generation, keeps := generations[p.Node]
		if !keeps && p.Exact {
			return // a node without leases is told nothing of what it should have
		}
		e.add(p, p.Exact && keeps && p.StorageGeneration >= generation)
	})
	for _, e := range all {
		e.close()
	}
	return all, b, err
}

// settle compares the reports as a whole with what the state expects, and says whether they agree in all but the dirty
// tables. h.mu is held.
func (h *heard) settle(rules Rules, by Reporter, out *decision) bool {
	if h.expected == nil || !by.KeepsLeases || len(h.past) > 0 {
		return false
	}
	want, known := h.expected.without(rules, by.Node, h.dirty)
	got := h.digest
	for table := range h.dirty {
		for _, r := range h.reports.table(table) {
			got -= r.sum()
		}
	}
	if !known || got != want {
		return false
	}
	for i := range h.reports {
		if _, dirty := h.dirty[h.reports[i].Region.Table()]; !dirty && h.reports[i].Leads() {
			h.reports[i].agreed = true
		}
	}
	for table := range h.differences {
		if _, dirty := h.dirty[table]; !dirty {
			delete(h.differences, table)
			out.changed = true
		}
	}
	return true
}

// presumes says whether a node that has not reported its replicas yet, but their digest, has just what the state expects.
// h.mu is held.
func (h *heard) presumes(by Reporter, b beat) bool {
	return b.unlisted && by.KeepsLeases && h.everything && h.expected != nil && len(h.reports) == 0 &&
		len(h.dirty) == 0 && len(h.withheld) == 0 && h.expected.sum == b.said
}

// linesASecond is how many lines of full reports a metasrv leader asks for in a second where there is no hurry.
const linesASecond = 250_000

// mayAsk says whether it is the turn of a node with so many replicas to report them all: those of all nodes at once would
// keep a new metasrv leader from answering.
func (t *Tracker) mayAsk(now time.Time, replicas int) bool {
	t.askMu.Lock()
	defer t.askMu.Unlock()
	if now.Before(t.askAt) {
		return false
	}
	t.askAt = now.Add(time.Duration(replicas) * time.Second / linesASecond)
	return true
}
