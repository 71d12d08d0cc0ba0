package machine

import (
	"encoding/binary"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	sessionPrefix      = SystemPrefix + "session/"
	sessionSequenceKey = SystemPrefix + "seq/session"
	sessionCountKey    = SystemPrefix + "sessions"
	sessionConfigKey   = SystemPrefix + "config/sessions"
)

// maxSessions bounds the sessions that are open. It is a part of what OpenSession means: another bound is another
// command version.
const maxSessions = 100_000

func openSession(tx state.Tx, _ *storagepb.OpenSession) (*storagepb.OpenSessionResult, error) {
	open := CountSessions(tx)
	if open >= maxSessions {
		return nil, metasrv.ErrTooManySessions.With("%d sessions are open; they end when their clients close them, or %s after their last use",
			open, SessionTTL(tx, tx.Now()))
	}
	session := state.Next(tx, sessionSequenceKey, 1)
	now := uint64(tx.Now())
	tx.Put(sessionKey(session), state.Encode(&storagepb.SessionRecord{OpenedAtMs: now, LastUsedMs: now}))
	putCount(tx, open+1)
	return &storagepb.OpenSessionResult{Session: session}, nil
}

func closeSession(tx state.Tx, c *storagepb.CloseSession) (*emptypb.Empty, error) {
	if _, open := tx.Get(sessionKey(c.Session)); open {
		putCount(tx, CountSessions(tx)-1)
	}
	forgetSession(tx, c.Session)
	return &emptypb.Empty{}, nil
}

func forgetSession(tx state.Tx, session uint64) {
	from := sessionKey(session)
	for key := range tx.Ascend(from, from+"0") { // '0' follows '/': the record and its results
		tx.Delete(key)
	}
}

// expireSessions forgets those of the named sessions whose time is over. It looks itself whether it is: the plan may
// have been made before the session was used again, or before the time was made longer.
func expireSessions(tx state.Tx, c *storagepb.ExpireSessions) (*storagepb.ExpireSessionsResult, error) {
	result := &storagepb.ExpireSessionsResult{}
	until := expiredUntil(tx, tx.Now())
	for _, use := range c.Sessions {
		record := &storagepb.SessionRecord{}
		if !read(tx, sessionKey(use.Session), record) || record.LastUsedMs != use.LastUsedMs || record.LastUsedMs >= until {
			continue
		}
		forgetSession(tx, use.Session)
		result.Expired++
	}
	if result.Expired > 0 {
		putCount(tx, CountSessions(tx)-result.Expired)
	}
	return result, nil
}

func configureSessions(tx state.Tx, c *storagepb.ConfigureSessions) (*storagepb.SessionConfig, error) {
	if c.TtlMs == 0 {
		return nil, metasrv.InvalidArgument("ttl_ms", "is 0")
	}
	now := tx.Now()
	config := &storagepb.SessionConfig{}
	if read(tx, sessionConfigKey, config) && c.IfUnset {
		return config, nil
	}
	config = &storagepb.SessionConfig{
		TtlMs: c.TtlMs, PreviousTtlMs: uint64(SessionTTL(tx, now).Milliseconds()), ChangedAtMs: uint64(now),
	}
	tx.Put(sessionConfigKey, state.Encode(config))
	return config, nil
}

// SessionTTL returns how long after its last use a session is forgotten, 0 while that is not configured. A shorter time
// than before counts only after the longer one has passed since the change: clients relied on it.
func SessionTTL(v state.View, now state.LeaderTime) time.Duration {
	config := &storagepb.SessionConfig{}
	if !read(v, sessionConfigKey, config) {
		return 0
	}
	ttl, longer := config.TtlMs, max(config.TtlMs, config.PreviousTtlMs)
	if uint64(now)-min(config.ChangedAtMs, uint64(now)) < longer {
		ttl = longer
	}
	return time.Duration(ttl) * time.Millisecond
}

// ConfiguredSessionTTL returns what was configured last, which need not count yet.
func ConfiguredSessionTTL(v state.View) time.Duration {
	config := &storagepb.SessionConfig{}
	read(v, sessionConfigKey, config)
	return time.Duration(config.TtlMs) * time.Millisecond
}

// expiredUntil returns the leader time at or after which the last use of a session must be for it to stay. It is 0,
// so that all stay, until the metasrv leader has led for the whole time: before that it can't know that a session
// was silent, since leader time stands still while there is no leader.
func expiredUntil(v state.View, now state.LeaderTime) uint64 {
	ttl := uint64(SessionTTL(v, now).Milliseconds())
	leader := &storagepb.LeaderRecord{}
	if ttl == 0 || !read(v, leaderKey, leader) || uint64(now) < leader.EstablishedAtMs+ttl {
		return 0
	}
	return uint64(now) - ttl + 1
}

// ExpiredSessions returns sessions whose time is over at a leader time, at most limit of them.
func ExpiredSessions(v state.View, now state.LeaderTime, limit int) []*storagepb.SessionUse {
	until := expiredUntil(v, now)
	if until == 0 {
		return nil
	}
	var expired []*storagepb.SessionUse
	for session, record := range Sessions(v) {
		if record.LastUsedMs < until {
			expired = append(expired, &storagepb.SessionUse{Session: session, LastUsedMs: record.LastUsedMs})
		}
		if len(expired) == limit {
			break
		}
	}
	return expired
}

// Sessions iterates the open sessions by id.
func Sessions(v state.View) func(yield func(uint64, *storagepb.SessionRecord) bool) {
	return func(yield func(uint64, *storagepb.SessionRecord) bool) {
		from := sessionPrefix
		for from != "" {
			next := ""
			for key := range v.Ascend(from, sessionPrefix[:len(sessionPrefix)-1]+"0") {
				next = key
				break
			}
			if next == "" {
				return
			}
			id, err := strconv.ParseUint(next[len(sessionPrefix):], 16, 64)
			record := &storagepb.SessionRecord{}
			if err == nil && read(v, next, record) && !yield(id, record) {
				return
			}
			from = next + "0" // behind its results
		}
	}
}

// CountSessions returns the number of open sessions.
func CountSessions(v state.View) uint64 {
	return state.Peek(v, sessionCountKey, 0)
}

func putCount(tx state.Tx, n uint64) {
	tx.Put(sessionCountKey, binary.BigEndian.AppendUint64(nil, n))
}
