package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// steps prints what happens, each line with the time since the start.
type steps struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
}

func newSteps(out io.Writer) *steps { return &steps{out: out, start: time.Now()} }

func (s *steps) print(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%7.2fs  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

// plain prints lines without a time.
func (s *steps) plain(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprint(s.out, text)
}

func (s *steps) fail(err error) { s.print("FAILED: %v", err) }
