package main

import (
	"fmt"
	"sync"
)

// stream is what one writer writes to a table without a primary key: rows 1, 2, 3 and so on, each sent once, so that a
// row that is stored twice shows.
type stream struct {
	writer int

	mu sync.Mutex
	// rows has what is known of each row that was sent: rows[0] is row 1.
	rows []outcome
}

type outcome byte

// A row that was sent may be there or not until it is acknowledged; from then on it must be.
const (
	sent outcome = iota
	acknowledged
)

// send notes that so many rows are about to be sent, and returns the first of them.
func (s *stream) send(n int) (first int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	first = len(s.rows) + 1
	s.rows = append(s.rows, make([]outcome, n)...)
	return first
}

// acknowledge notes that rows were acknowledged.
func (s *stream) acknowledge(first, n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range n {
		s.rows[first-1+i] = acknowledged
	}
}

// counts returns how many rows were sent, and how many of them were acknowledged.
func (s *stream) counts() (all, known int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, o := range s.rows {
		if o == acknowledged {
			known++
		}
	}
	return len(s.rows), known
}

// expectation is what a read that begins now must find of the rows from one on.
type expectation struct {
	stream *stream
	from   int
	must   []int
}

// expect returns what a read of the last rows must find, of all rows where last is 0.
func (s *stream) expect(last int) expectation {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := expectation{stream: s, from: 1}
	if last > 0 {
		e.from = max(1, len(s.rows)-last+1)
	}
	for n := e.from; n <= len(s.rows); n++ {
		if s.rows[n-1] == acknowledged {
			e.must = append(e.must, n)
		}
	}
	return e
}

// judge returns what is wrong with the rows that the read found, nil where nothing is.
func (e expectation) judge(found []int) error {
	all, _ := e.stream.counts()
	seen := make(map[int]bool, len(found))
	for _, n := range found {
		switch {
		case seen[n]:
			return fmt.Errorf("row %d of writer %d is there twice", n, e.stream.writer)
		case n < e.from || n > all:
			return fmt.Errorf("row %d of writer %d was never sent", n, e.stream.writer)
		}
		seen[n] = true
	}
	var missed []int
	for _, n := range e.must {
		if !seen[n] {
			missed = append(missed, n)
		}
	}
	if len(missed) > 0 {
		return fmt.Errorf("%d rows of writer %d were acknowledged before the read began, and are not there: %s",
			len(missed), e.stream.writer, some(missed))
	}
	return nil
}

// some shows the first of many numbers.
func some(list []int) string {
	if len(list) > 8 {
		return fmt.Sprint(list[:8]) + " …"
	}
	return fmt.Sprint(list)
}
