package local

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// Steps prints what happens, each line with the time since the start.
type Steps struct {
	mu    sync.Mutex
	out   io.Writer
	start time.Time
}

// NewSteps returns Steps that begin now.
func NewSteps(out io.Writer) *Steps { return &Steps{out: out, start: time.Now()} }

// Print prints one step.
func (s *Steps) Print(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintf(s.out, "%7.2fs  %s\n", time.Since(s.start).Seconds(), fmt.Sprintf(format, args...))
}

// Plain prints lines without a time.
func (s *Steps) Plain(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprint(s.out, text)
}

// Fail prints why it went no further.
func (s *Steps) Fail(err error) { s.Print("FAILED: %v", err) }
