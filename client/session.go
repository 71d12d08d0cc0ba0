package client

import (
	"context"
	"sync"
	"sync/atomic"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// session numbers the requests of one session of the cluster.
type session struct {
	id uint64

	mu sync.Mutex
	// last is the highest sequence given out, acknowledged the watermark: nothing up to it will be sent again.
	last         uint64
	acknowledged uint64
	// ended has the sequences above the watermark that will not be sent again.
	ended map[uint64]struct{}
}

func newSession(id uint64) *session {
	return &session{id: id, ended: map[uint64]struct{}{}}
}

// begin gives out the next sequence.
func (s *session) begin() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last++
	return s.last
}

// end notes that sequence was answered or given up: it is never sent again.
func (s *session) end(sequence uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[sequence] = struct{}{}
	for {
		if _, ok := s.ended[s.acknowledged+1]; !ok {
			return
		}
		s.acknowledged++
		delete(s.ended, s.acknowledged)
	}
}

// requestID returns the id of an attempt of a request, with the watermark as it is now.
func (s *session) requestID(sequence uint64) *metasrvpb.RequestId {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &metasrvpb.RequestId{Session: s.id, Sequence: sequence, Acknowledged: s.acknowledged}
}

// sessions holds the client's present session and opens one when it is first needed, or after it expired.
type sessions struct {
	open    func(ctx context.Context) (id uint64, err error)
	current atomic.Pointer[session]
	// turn is held by the one call that opens a session. Its ctx bounds the attempt; if it fails, the next
	// one in the queue tries under its own.
	turn chan struct{}
}

func newSessions(open func(ctx context.Context) (uint64, error)) *sessions {
	return &sessions{open: open, turn: make(chan struct{}, 1)}
}

// get returns the session, another one than expired.
func (s *sessions) get(ctx context.Context, expired *session) (*session, error) {
	if c := s.current.Load(); c != nil && c != expired {
		return c, nil
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	if c := s.current.Load(); c != nil && c != expired {
		return c, nil
	}
	id, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	c := newSession(id)
	s.current.Store(c)
	return c, nil
}
