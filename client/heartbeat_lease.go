package client

import (
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// addTicket notes a request that is about to be sent, so that a lease can be granted for it. It takes the time before the
// request leaves: the lease is counted from then.
func (s *heartbeatStream) addTicket(request *metasrvpb.HeartbeatRequest, stats []*metasrvpb.RegionStat) {
	keeper := s.task.cfg.Keeper
	if keeper == nil {
		return
	}
	t := keeper.sending(stats)
	t.sequence, t.digest = request.GetSequence(), request.GetDigest()
	s.ticketsMu.Lock()
	defer s.ticketsMu.Unlock()
	s.tickets = append(s.tickets, t)
}

// takeLease takes the lease that a response grants: for the request that it names, and only if metasrv judged what that one
// reported.
func (s *heartbeatStream) takeLease(response *metasrvpb.HeartbeatResponse) {
	keeper := s.task.cfg.Keeper
	if keeper == nil {
		return
	}
	t, ok := s.ticket(response.GetSequence())
	if !ok || response.GetLeaseMs() == 0 || response.Digest == nil || response.GetDigest() != t.digest {
		return
	}
	lease := upToAnHour(response.GetLeaseMs())
	keeper.granted(t, lease, response.GetUngranted())
}

// upToAnHour returns the time that metasrv names in ms, an hour where it names more.
func upToAnHour(ms uint64) time.Duration {
	return time.Duration(min(ms, uint64(time.Hour/time.Millisecond))) * time.Millisecond //nolint:gosec // at most an hour
}

// ticket returns that of an answered request, and forgets those before it: answers come in order, and the last request
// answered may be answered again.
func (s *heartbeatStream) ticket(sequence uint64) (ticket, bool) {
	s.ticketsMu.Lock()
	defer s.ticketsMu.Unlock()
	for len(s.tickets) > 0 && s.tickets[0].sequence < sequence {
		s.tickets = s.tickets[1:]
	}
	if len(s.tickets) == 0 || s.tickets[0].sequence != sequence {
		return ticket{}, false
	}
	return s.tickets[0], true
}
