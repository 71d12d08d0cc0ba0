package heartbeat

import (
	"bytes"
	"slices"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// maxInstructions bounds one answer. What is left comes with later ones.
const maxInstructions = 1024

// accord is how far the reports of a node and the state agree. It belongs to the node's mutex.
//
// Nothing is compared that has not changed since: a table is judged again only once a line of the report or the state's
// record of it has changed. The reports tell the one, the Dispatcher the other.
type accord struct {
	// digest is that of the reports.
	digest uint64
	// everything: all that the node reports or should report is to be judged, besides dirty: as a whole, where it is known
	// what to expect.
	everything bool
	expected   *expectation
	// placed are the tables that the node should report replicas of, as long as everything is to be judged.
	placed []metasrv.TableID
	// presumed: the node has sent the digest of what is expected, and no list yet.
	presumed bool
	dirty    map[metasrv.TableID]struct{}
	// later are tables that were judged for a beat, not all of whose tables were yet, and that are to be judged for the next one too.
	later []metasrv.TableID
	// differences are those that the last judgement found, by table.
	differences map[metasrv.TableID]*difference
	// past is how far the logs of region leaders were under earlier processes.
	past map[metasrv.ReplicaID]past
	// withheld counts the Withholds of regions.
	withheld map[metasrv.RegionID]int
	// grantedUntil is when the last grant of this term ends.
	grantedUntil time.Time
}

// difference is what a node's report and the state don't agree on in one table.
type difference struct {
	// payload has the encoded instructions that would end it.
	payload [][]byte
	// refused are the replicas reported as region leaders that get no lease.
	refused []*metasrvpb.ReplicaRef
	// absent are the replicas that the node doesn't have, with the arrival of the first beat that lacked each.
	absent []absence
	// demoting are the regions that the node leads and hands over.
	demoting []metasrv.RegionID
}

type absence struct {
	Absence
	since time.Time
}

// carry keeps since when each replica is absent.
func (d *difference) carry(was *difference) {
	if d == nil || was == nil {
		return
	}
	for i := range d.absent {
		for _, before := range was.absent {
			if before.Absence == d.absent[i].Absence {
				d.absent[i].since = before.since
			}
		}
	}
}

func (d *difference) equal(o *difference) bool {
	if d == nil || o == nil {
		return d == o
	}
	return slices.EqualFunc(d.payload, o.payload, bytes.Equal) &&
		slices.EqualFunc(d.refused, o.refused, func(a, b *metasrvpb.ReplicaRef) bool {
			return a.RegionId == b.RegionId && a.ReplicaId == b.ReplicaId
		})
}

// markTable has a table judged before the next grant. h.mu is held.
func (h *heard) markTable(table metasrv.TableID) {
	h.addDirty(table)
	h.wake()
}

// markAll has everything judged before the next grant, table by table: the node's record changed. h.mu is held.
func (h *heard) markAll() {
	h.everything, h.expected, h.group.news = true, nil, true
	h.wake()
}

// expect has everything judged by what the state expects of the node, nil where it expects nothing. h.mu is held.
func (h *heard) expect(e *expectation) {
	h.everything, h.expected, h.placed, h.group.news = true, e, nil, true
	if e != nil {
		h.placed = e.tables
		h.addDirty(e.inexact...)
	}
	h.wake()
}

func (h *heard) addDirty(tables ...metasrv.TableID) {
	if h.dirty == nil && len(tables) > 0 {
		h.dirty = make(map[metasrv.TableID]struct{})
	}
	for _, table := range tables {
		h.dirty[table] = struct{}{}
	}
}

// wake tells the node's stream that there is something to judge.
func (h *heard) wake() {
	if h.stream == nil {
		return
	}
	select {
	case h.stream.wake <- struct{}{}:
	default:
	}
}

// unjudged says whether something is to be judged.
func (t *Tracker) unjudged(s *stream) bool {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return s.node.everything || len(s.node.dirty) > 0
}

// dirty says whether some tables are to be judged.
func (t *Tracker) dirty(s *stream) bool {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return len(s.node.dirty) > 0
}

// unfinished says whether something is to be judged, or is left to be done.
func (t *Tracker) unfinished(s *stream) bool {
	s.node.mu.Lock()
	defer s.node.mu.Unlock()
	return s.node.everything || len(s.node.dirty) > 0 || len(s.node.differences) > 0
}

// decision is what a request is answered with.
type decision struct {
	// granted: the node gets a lease of a length, for all that it reports as led but ungranted.
	granted   bool
	lease     time.Duration
	ungranted []*metasrvpb.ReplicaRef
	// presumed: for what the node has not reported, but whose digest it has sent. full: it is the node's turn to report it.
	presumed, full bool
	// payload has all instructions that are not done yet, or as many as an answer holds; news those that came up with
	// this decision.
	payload, news [][]byte
	// changed: the answer is another one than it would have been before.
	changed bool
	// gone is to be confirmed.
	gone []*storagepb.DroppedReplica
	// unfinished: there was no time to judge all.
	unfinished bool
}

// judgeTime is how long a node's tables are judged in one turn: others, whose beats need little, are not to wait for longer.
const judgeTime = 10 * time.Millisecond

// decide judges what has changed on either side, and grants a lease of a length, in one hold of the node's mutex.
//
// The dispatcher must have reached a barrier that began after the request arrived. It may have marked more since, so the
// judgement is by the member's own view, which has whatever was marked.
//
// before has the length only. It judges for judgeTime at most. Where more is left it grants nothing and sets unfinished: then it is
// to be called again with what it returned. What is marked in between is judged then.
func (t *Tracker) decide(s *stream, rules Rules, viewer state.Viewer, behind state.View, b beat, before decision) (decision, error) {
	h := s.node
	h.mu.Lock()
	defer h.mu.Unlock()
	if err := h.counts(s); err != nil {
		return decision{}, err
	}
	view := viewer.View()
	if behind.Revision() > view.Revision() {
		view = behind
	}
	record, err := t.records.one(view, s.id)
	if err != nil {
		return decision{}, err
	}
	if present := metasrv.Incarnation(record.Incarnation); present > s.incarnation {
		return decision{}, errStale(s.id, s.incarnation, present)
	}
	by := Reporter{Node: s.id, StorageGeneration: record.StorageGeneration, KeepsLeases: keepsLeases(record)}
	out := before
	if !out.unfinished {
		h.judgeLater() // what was begun for an earlier beat, and given up
	}
	out.unfinished = false
	h.presumed = h.presumes(by, b)
	if b.unlisted {
		if out.granted = h.presumed; out.granted {
			out.presumed = true
			t.counters.Presumed.Add(1)
			out.full = t.mayAsk(b.arrived, h.expected.count)
			t.grant(h, b.arrived, out.lease)
		}
		return out, nil
	}
	if err := h.judge(rules, view, by, b.arrived, &out); err != nil {
		return decision{}, err
	}
	if out.unfinished {
		return out, nil
	}
	out.payload = h.payload()
	if by.KeepsLeases && b.agreed {
		out.granted = true
		t.counters.Grants.Add(1)
		out.ungranted = t.grant(h, b.arrived, out.lease)
	}
	return out, nil
}

// judge compares what has changed, for a while. Tables that could not be compared stay to be judged.
func (h *heard) judge(rules Rules, view state.View, by Reporter, arrived time.Time, out *decision) error {
	if h.everything {
		if !h.settle(rules, by, out) {
			h.dirtyAll()
		}
		h.everything, h.expected, h.placed = false, nil, nil
	}
	began := time.Now()
	for table := range h.dirty {
		if out.unfinished = time.Since(began) >= judgeTime; out.unfinished {
			return nil
		}
		lines := h.reports.table(table)
		agreement, err := rules.Agree(view, by, table, lines)
		if err != nil {
			return err
		}
		h.compareWithPast(lines, &agreement)
		was, now := h.differences[table], differenceOf(lines, agreement, arrived)
		now.carry(was)
		if !was.equal(now) {
			out.changed = true
			out.news = append(out.news, fresh(was, now)...)
		}
		if now == nil {
			delete(h.differences, table)
		} else {
			if h.differences == nil {
				h.differences = make(map[metasrv.TableID]*difference)
			}
			h.differences[table] = now
		}
		out.gone = append(out.gone, agreement.Gone...)
		delete(h.dirty, table)
		if len(agreement.Gone) > 0 || agreement.Waits {
			// It is judged again until the confirmation is applied, or the wait is over.
			h.later = append(h.later, table)
		}
	}
	h.dirty = nil // a map keeps the room of all that it ever held
	h.judgeLater()
	out.news = out.news[:min(len(out.news), maxInstructions)]
	return nil
}

// judgeLater has those tables judged with the next beat that this one leaves to it. h.mu is held.
func (h *heard) judgeLater() {
	h.addDirty(h.later...)
	h.later = nil
}

// dirtyAll has each table judged. h.mu is held.
func (h *heard) dirtyAll() {
	h.addDirty(h.placed...)
	for _, r := range h.reports {
		h.addDirty(r.Region.Table())
	}
	for table := range h.differences {
		h.addDirty(table)
	}
}

// differenceOf returns what is left to agree on, nil where that is nothing, and remembers of which lines the node knows all.
//
// A region leader that is behind the configuration keeps its lease if its process has once agreed in this epoch: then it
// knows which growth of the in-sync set it has asked for, and waits for those replicas since; all else that changes a
// configuration without it makes the set smaller. A process that has not may be the successor of one that asked, and gets
// none before it knows the set.
func differenceOf(lines reports, a Agreement, arrived time.Time) *difference {
	d := &difference{demoting: a.Demoting}
	for i, standing := range a.Standings {
		switch {
		case standing == Leading:
			lines[i].agreed = true
		case standing == Refused, standing == Outdated && !lines[i].agreed:
			d.refused = append(d.refused, refOf(lines[i]))
		}
	}
	for _, instruction := range a.Instructions {
		d.payload = append(d.payload, state.Encode(instruction))
	}
	for _, absent := range a.Absent {
		d.absent = append(d.absent, absence{absent, arrived})
	}
	if len(d.payload) == 0 && len(d.refused) == 0 && len(d.absent) == 0 && len(d.demoting) == 0 {
		return nil
	}
	return d
}

// fresh returns the instructions that are new.
func fresh(was, now *difference) [][]byte {
	if now == nil {
		return nil
	}
	var added [][]byte
	for _, payload := range now.payload {
		if was == nil || !slices.ContainsFunc(was.payload, func(p []byte) bool { return bytes.Equal(p, payload) }) {
			added = append(added, payload)
		}
	}
	return added
}

// payload returns instructions that are not done, as many as an answer holds: where there are more, others each time.
func (h *heard) payload() [][]byte {
	var payload [][]byte
	for _, d := range h.differences {
		payload = append(payload, d.payload...)
		if len(payload) >= maxInstructions {
			payload = payload[:maxInstructions]
			break
		}
	}
	slices.SortFunc(payload, bytes.Compare)
	return payload
}
