package client

import (
	"context"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// reportGroup fills in what a request says of the node's group. The lease is counted from now.
func (s *heartbeatStream) reportGroup(request *metasrvpb.HeartbeatRequest, report HeartbeatReport) {
	keeper := s.task.cfg.GroupKeeper
	if keeper == nil {
		return
	}
	request.Group = &metasrvpb.GroupReport{LogEpoch: report.LogEpoch, LogSequence: report.LogSequence}
	t := keeper.report(request)
	s.ticketsMu.Lock()
	defer s.ticketsMu.Unlock()
	if s.groupTickets == nil {
		s.groupTickets = make(map[uint64]groupTicket)
	}
	s.groupTickets[request.GetSequence()] = t
}

// takeGroup takes in what a response says of the node's group.
func (s *heartbeatStream) takeGroup(response *metasrvpb.HeartbeatResponse) {
	keeper := s.task.cfg.GroupKeeper
	if keeper == nil || response.GetGroup() == nil {
		return
	}
	s.ticketsMu.Lock()
	t, ok := s.groupTickets[response.GetSequence()]
	for sequence := range s.groupTickets {
		// Answers come in order, and the last request answered may be answered again.
		if sequence < response.GetSequence() {
			delete(s.groupTickets, sequence)
		}
	}
	s.ticketsMu.Unlock()
	if ok && keeper.answered(t, response.GetGroup()) {
		select {
		case s.task.groupNews <- struct{}{}:
		default:
		}
	}
}

// tellGroup tells the node of its group until ctx ends.
func (t *HeartbeatTask) tellGroup(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.groupNews:
		}
		t.cfg.OnGroup(ctx, t.cfg.GroupKeeper.present())
		t.Beat() // the lease, or the word that the node has stopped, shouldn't wait
	}
}
