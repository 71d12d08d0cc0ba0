package main

import (
	"fmt"
	"sync"
)

// keysOfLatest is how many keys a writer overwrites in turn.
const keysOfLatest = 5

// latest is what one writer writes to a table with a primary key: higher and higher values to a few keys, so that a
// write that was lost, or came back, shows. A key whose last write has no known outcome is not written again: that write
// may still happen.
type latest struct {
	writer int

	mu sync.Mutex
	// values has what was written to each key; current are the keys that are written.
	values  []value
	current [keysOfLatest]int
	turn    int
}

// value is the highest value that was sent to a key, and the highest that was acknowledged, 0 for none.
type value struct{ sent, acknowledged int }

func newLatest(writer int) *latest {
	l := &latest{writer: writer, values: make([]value, keysOfLatest)}
	for i := range l.current {
		l.current[i] = i
	}
	return l
}

// send notes that the next value of a key is about to be sent.
func (l *latest) send() (key, value int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.turn = (l.turn + 1) % keysOfLatest
	key = l.current[l.turn]
	l.values[key].sent++
	return key, l.values[key].sent
}

// outcome notes whether the value was acknowledged.
func (l *latest) outcome(key, sent int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if ok {
		l.values[key].acknowledged = sent
		return
	}
	l.current[l.turn] = len(l.values)
	l.values = append(l.values, value{})
}

// expect returns the values that a read that begins now must find at least.
func (l *latest) expect() []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	least := make([]int, len(l.values))
	for key, v := range l.values {
		least[key] = v.acknowledged
	}
	return least
}

// judge returns what is wrong with the values that a read found, nil where nothing is.
func (l *latest) judge(least []int, found map[int]int) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for key, v := range found {
		if key < 0 || key >= len(l.values) || v < 1 || v > l.values[key].sent {
			return fmt.Errorf("key %d of writer %d has the value %d, which was never sent", key, l.writer, v)
		}
	}
	for key, want := range least {
		switch got, ok := found[key]; {
		case want == 0:
		case !ok:
			return fmt.Errorf("key %d of writer %d is not there, value %d was acknowledged before the read began", key, l.writer, want)
		case got < want:
			return fmt.Errorf("key %d of writer %d has the value %d, value %d was acknowledged before the read began",
				key, l.writer, got, want)
		}
	}
	return nil
}
