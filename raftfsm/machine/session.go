package machine

import (
	"fmt"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// A session's results are keys of their own beside its record, so that remembering one writes little.

func sessionKey(session uint64) string { return fmt.Sprintf("%ssession/%016x", SystemPrefix, session) }

func resultKey(session, sequence uint64) string {
	return fmt.Sprintf("%s/%016x", sessionKey(session), sequence)
}

// recall returns the session of a command and, where the command was executed before, its result. The error is
// ErrSessionExpired where it must not be executed.
func (m *Machine) recall(id *storagepb.CommandId) (*storagepb.SessionRecord, *storagepb.Result, error) {
	value, ok := m.tree.Get(sessionKey(id.Session))
	if !ok {
		return nil, nil, metasrv.ErrSessionExpired.With("session %d is not open", id.Session)
	}
	session := &storagepb.SessionRecord{}
	if err := state.Decode(value, session); err != nil {
		return nil, nil, err
	}
	if id.Sequence <= session.Acknowledged {
		return nil, nil, metasrv.ErrSessionExpired.With("sequence %d of session %d was acknowledged, its result is forgotten",
			id.Sequence, id.Session)
	}
	result, err := Remembered(&View{tree: m.tree}, id)
	return session, result, err
}

// Remembered returns the result of the command that was executed under an id, nil where there was none or the
// session has forgotten it. It is for refusals before the log: a retry of what was executed must not get one.
func Remembered(v state.View, id *storagepb.CommandId) (*storagepb.Result, error) {
	value, ok := v.Get(resultKey(id.GetSession(), id.GetSequence()))
	if !ok {
		return nil, nil
	}
	result := &storagepb.Result{}
	if err := state.Decode(value, result); err != nil {
		return nil, err
	}
	return result, nil
}

// remember keeps the result of a command and forgets those that the client has acknowledged.
func (m *Machine) remember(session *storagepb.SessionRecord, id *storagepb.CommandId, result *storagepb.Result, out *Outcome) {
	if _, open := m.tree.Get(sessionKey(id.Session)); !open {
		return // the command closed its own session
	}
	t := &tx{tree: m.tree}
	t.Put(resultKey(id.Session, id.Sequence), state.Encode(result))
	// A client can't acknowledge an answer that it doesn't have yet.
	if acknowledged := min(id.Acknowledged, id.Sequence-1); acknowledged > session.Acknowledged {
		from, to := resultKey(id.Session, session.Acknowledged+1), resultKey(id.Session, acknowledged+1)
		for key := range t.Ascend(from, to) {
			t.Delete(key)
		}
		session.Acknowledged = acknowledged
	}
	session.LastUsedMs = uint64(m.pos.Now)
	t.Put(sessionKey(id.Session), state.Encode(session))
	m.finish(t, out)
}
