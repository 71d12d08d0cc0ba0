package server

import (
	"context"
	"time"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
)

// Bounds of the time after which sessions expire. A shorter one could pass between two attempts of one request.
const (
	minSessionTTL = 10 * time.Second
	maxSessionTTL = 7 * 24 * time.Hour
)

// Sessions answers from the metasrv leader, whose clock says how long a session was idle.
func (s maintenanceService) Sessions(ctx context.Context, req *metasrvpb.SessionsRequest) (*metasrvpb.SessionsResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	leadership, ok := s.node.Leadership()
	if !ok {
		return nil, s.notLeader()
	}
	now := leadership.Now()
	resp := &metasrvpb.SessionsResponse{
		Header:          revision(view),
		TtlMs:           uint64(machine.SessionTTL(view, now).Milliseconds()),      //nolint:gosec // never negative
		ConfiguredTtlMs: uint64(machine.ConfiguredSessionTTL(view).Milliseconds()), //nolint:gosec // never negative
		Open:            machine.CountSessions(view),
	}
	for id, record := range machine.Sessions(view) {
		if len(resp.Sessions) >= int(req.GetLimit()) {
			break
		}
		resp.Sessions = append(resp.Sessions, &metasrvpb.SessionInfo{
			Session: id, IdleMs: uint64(now) - min(uint64(now), record.LastUsedMs), Results: record.Results, ResultBytes: record.ResultBytes,
		})
	}
	return resp, nil
}

// ConfigureSessions changes the time after which sessions expire.
func (s maintenanceService) ConfigureSessions(
	ctx context.Context, req *metasrvpb.ConfigureSessionsRequest,
) (*metasrvpb.ConfigureSessionsResponse, error) {
	if ttl := req.GetTtlMs(); ttl < uint64(minSessionTTL.Milliseconds()) || ttl > uint64(maxSessionTTL.Milliseconds()) {
		return nil, metasrv.InvalidArgument("ttl_ms", "sessions can be forgotten from %s to %s after their last use, not %s",
			minSessionTTL, maxSessionTTL, time.Duration(ttl)*time.Millisecond) //nolint:gosec // a wrong number is only shown
	}
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_CONFIGURE_SESSIONS,
		&storagepb.ConfigureSessions{TtlMs: req.GetTtlMs()}, &storagepb.SessionConfig{})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.ConfigureSessionsResponse{Header: h}, nil
}
