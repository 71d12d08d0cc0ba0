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
	// left: another session has taken its place.
	left bool
}

func newSession(id uint64) *session {
	return &session{id: id, ended: map[uint64]struct{}{}}
}

// begin gives out the next sequence; false where the session was left meanwhile.
func (s *session) begin() (uint64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.left {
		return 0, false
	}
	s.last++
	return s.last, true
}

// end notes that sequence was answered or given up: it is never sent again. done reports that the session was left and
// that this was its last request.
func (s *session) end(sequence uint64) (done bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended[sequence] = struct{}{}
	for {
		if _, ok := s.ended[s.acknowledged+1]; !ok {
			return s.left && s.acknowledged == s.last
		}
		s.acknowledged++
		delete(s.ended, s.acknowledged)
	}
}

// maxUnacknowledged bounds the results that the cluster must remember because an older request is still under way. It is
// well below the bound at which the cluster refuses.
const maxUnacknowledged = 2048

// crowded reports whether a request that takes long holds up the watermark for too many others.
func (s *session) crowded() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last-s.acknowledged >= maxUnacknowledged
}

// leave notes that the session gets no more requests.
func (s *session) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.left = true
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

// forget leaves the present session, which belonged to a life of the cluster that has ended.
func (s *sessions) forget() {
	if old := s.current.Swap(nil); old != nil {
		old.leave()
	}
}

// get returns the session, another one than expired and none that is crowded: requests that take long must not hold up
// the others.
func (s *sessions) get(ctx context.Context, expired *session) (*session, error) {
	usable := func(c *session) bool { return c != nil && c != expired && !c.crowded() }
	if c := s.current.Load(); usable(c) {
		return c, nil
	}
	select {
	case s.turn <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-s.turn }()
	old := s.current.Load()
	if usable(old) {
		return old, nil
	}
	id, err := s.open(ctx)
	if err != nil {
		return nil, err
	}
	c := newSession(id)
	s.current.Store(c)
	if old != nil {
		old.leave()
	}
	return c, nil
}
