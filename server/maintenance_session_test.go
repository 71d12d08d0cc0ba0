package server

import (
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestSessionsAreShownAndConfigured(t *testing.T) {
	m := startLeader(t)
	maintenance := metasrvpb.NewMaintenanceClient(m.conn)
	configure := func(ttl time.Duration) error {
		_, err := maintenance.ConfigureSessions(timeout(t), &metasrvpb.ConfigureSessionsRequest{TtlMs: uint64(ttl.Milliseconds())})
		return err
	}
	show := func() *metasrvpb.SessionsResponse {
		resp, err := maintenance.Sessions(timeout(t), &metasrvpb.SessionsRequest{Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	for _, ttl := range []time.Duration{0, minSessionTTL - 1, maxSessionTTL + time.Second} {
		wantRefusal(t, configure(ttl), refusal{Code: codes.InvalidArgument, Reason: "INVALID_ARGUMENT", Field: "ttl_ms"})
	}
	for _, ttl := range []time.Duration{time.Minute, 20 * time.Second} {
		if err := configure(ttl); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if _, err := m.cluster().OpenSession(timeout(t), &metasrvpb.OpenSessionRequest{}); err != nil {
			t.Fatal(err)
		}
	}
	m.node.Advance(time.Second)
	got := show()
	if got.GetTtlMs() != 60_000 || got.GetConfiguredTtlMs() != 20_000 || got.GetOpen() != 2 {
		t.Errorf("sessions are %v, want 60 s in force, 20 s configured, 2 open", got)
	}
	if s := got.GetSessions(); len(s) != 1 || s[0].GetSession() != 1 || s[0].GetIdleMs() < 1000 {
		t.Errorf("listed %v, want session 1, idle for a second", s)
	}
	_, err := metasrvpb.NewMaintenanceClient(startFollower(t).conn).Sessions(timeout(t), &metasrvpb.SessionsRequest{})
	if refusalOf(err).Reason != "NOT_LEADER" {
		t.Errorf("a follower answered %v", err)
	}
}
