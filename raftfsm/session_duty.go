package raftfsm

import (
	"context"
	"time"

	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	// DefaultSessionTTL is how long after its last use a session is forgotten, in a cluster where nobody chose. A
	// client opens a new one when it needs it, so the time must only outlast the retries of one request.
	DefaultSessionTTL = 10 * time.Minute
	// expiryBatch bounds the sessions that one command forgets.
	expiryBatch = 256
	// Sessions are looked at eight times in the time that they live.
	expiryChecks      = 8
	minExpiryInterval = 20 * time.Millisecond
	maxExpiryInterval = 30 * time.Second
)

// expireSessions forgets the sessions that nobody uses any more, until the term ends.
func (n *Node) expireSessions(ctx context.Context, l Leadership) {
	for wait := minExpiryInterval; ; {
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return
		}
		ttl := machine.SessionTTL(n.View(), l.Now())
		if ttl == 0 {
			wait = minExpiryInterval
			n.duty(ctx, l, storagepb.CommandKind_COMMAND_KIND_CONFIGURE_SESSIONS,
				&storagepb.ConfigureSessions{TtlMs: uint64(n.cfg.SessionTTL.Milliseconds()), IfUnset: true})
			continue
		}
		wait = min(max(ttl/expiryChecks, minExpiryInterval), maxExpiryInterval)
		expired := machine.ExpiredSessions(n.View(), l.Now(), expiryBatch)
		if len(expired) == 0 {
			continue
		}
		if n.duty(ctx, l, storagepb.CommandKind_COMMAND_KIND_EXPIRE_SESSIONS, &storagepb.ExpireSessions{Sessions: expired}) {
			n.log.Info("sessions expired that were not used", "sessions", len(expired), "ttl", ttl)
		}
		if len(expired) == expiryBatch {
			wait = minExpiryInterval
		}
	}
}

// duty executes a command that the term's leader planned; false, and a line in the log, where it was not.
func (n *Node) duty(ctx context.Context, l Leadership, kind storagepb.CommandKind, command proto.Message) bool {
	_, err := n.Propose(ctx, state.Proposal{Kind: kind, Payload: command, PlannedTerm: l.Term})
	if err != nil && ctx.Err() == nil {
		n.log.Warn("a duty of the metasrv leader was not done, it is tried again", "kind", kind, "error", err)
	}
	return err == nil
}
