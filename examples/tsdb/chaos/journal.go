package main

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// journalFile is where a datanode writes down what it acknowledged and stored, through all of its lives.
func (c *chaos) journalFile(node uint64) string {
	return filepath.Join(c.cluster.Dir, fmt.Sprintf("journal-%d", node))
}

// journalLine is one line of a datanode's journal. An "ack" is written down just before the last check of the lease, and
// only if that one passed; a "store" when a follower has stored writes.
type journalLine struct {
	kind                          string
	region, replica, epoch, place uint64
	at                            time.Time
	// write is the id of the write that was acknowledged.
	write string
}

// readJournal returns the lines of a journal. A last line without an end counts for nothing.
func readJournal(path string) ([]journalLine, error) {
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var lines []journalLine
	for _, line := range bytes.Split(text[:bytes.LastIndexByte(text, '\n')+1], []byte("\n")) {
		var l journalLine
		var nanos int64
		n, _ := fmt.Sscanf(string(line), "%s %d %d %d %d %d %s", &l.kind, &l.region, &l.replica, &l.epoch, &l.place, &nanos, &l.write)
		if n < 6 || n < 7 && l.kind == "ack" {
			continue
		}
		l.at = time.Unix(0, nanos)
		lines = append(lines, l)
	}
	return lines, nil
}

// readJournals returns the journals of all datanodes.
func (c *chaos) readJournals() ([][]journalLine, error) {
	var journals [][]journalLine
	for _, d := range c.cluster.Datanodes {
		lines, err := readJournal(c.journalFile(d.ID))
		if err != nil {
			return nil, err
		}
		journals = append(journals, lines)
	}
	return journals, nil
}

// judgeJournals returns what the datanodes did that they must not, by what metasrv had elected: each journal is that of
// one datanode.
func judgeJournals(journals [][]journalLine, e *epochs) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	var acks []journalLine
	for _, lines := range journals {
		stored := map[uint64]journalLine{} // by replica
		for _, l := range lines {
			if l.kind == "ack" {
				acks = append(acks, l)
			}
			if before := stored[l.replica]; l.epoch < before.epoch {
				return fmt.Errorf("replica %d of region %d stored a write of epoch %d after one of epoch %d",
					l.replica, l.region, l.epoch, before.epoch)
			}
			stored[l.replica] = l
		}
	}
	slices.SortStableFunc(acks, func(a, b journalLine) int { return cmp.Compare(a.at.UnixNano(), b.at.UnixNano()) })
	last := map[uint64]journalLine{} // by region
	placed := map[place]string{}
	places := map[string]uint64{} // of writes
	for _, l := range acks {
		at := place{l.region, l.place}
		if other, ok := placed[at]; ok && other != l.write {
			return fmt.Errorf("region %d acknowledged writes %s and %s for the same place %d", l.region, other, l.write, l.place)
		}
		if other, ok := places[l.write]; ok && other != l.place {
			return fmt.Errorf("region %d acknowledged write %s at place %d and at place %d", l.region, l.write, other, l.place)
		}
		placed[at], places[l.write] = l.write, l.place
		if err := e.judgeAck(l, last[l.region]); err != nil {
			return err
		}
		last[l.region] = l
	}
	return nil
}

// place is a place in the order of a region's writes.
type place struct{ region, seq uint64 }

// judgeAck judges one acknowledgement by the one before it in the region. The caller holds mu.
func (e *epochs) judgeAck(l, before journalLine) error {
	leader, ok := e.leaders[epoch{l.region, l.epoch}]
	switch {
	case !ok && l.epoch > e.latest[l.region]:
		return nil // the watch is behind
	case !ok:
		return fmt.Errorf("replica %d of region %d acknowledged in epoch %d, in which metasrv elected nobody", l.replica, l.region, l.epoch)
	case leader.replica != l.replica:
		return fmt.Errorf("replica %d of region %d acknowledged in epoch %d, in which replica %d leads",
			l.replica, l.region, l.epoch, leader.replica)
	case l.epoch < before.epoch:
		return fmt.Errorf("replica %d of region %d acknowledged in epoch %d at %s, replica %d had in epoch %d at %s",
			l.replica, l.region, l.epoch, l.at.Format(clock), before.replica, before.epoch, before.at.Format(clock))
	}
	for number := l.epoch + 1; number <= e.latest[l.region]; number++ {
		if next, ok := e.leaders[epoch{l.region, number}]; ok && l.at.After(next.known) {
			return fmt.Errorf("replica %d of region %d acknowledged in epoch %d at %s: metasrv had elected replica %d in epoch %d by %s",
				l.replica, l.region, l.epoch, l.at.Format(clock), next.replica, number, next.known.Format(clock))
		}
	}
	return nil
}

const clock = "15:04:05.000000"
