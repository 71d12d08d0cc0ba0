package machine

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Bounds of what a session remembers: a command of a session that has reached one is refused until results were
// acknowledged. They are a part of what every command with an id means: another bound is another command version.
const (
	maxResults     = 4096
	maxResultBytes = 16 << 20
)

// A session's results are keys of their own beside its record, so that remembering one writes little.

func sessionKey(session uint64) string { return fmt.Sprintf("%s%016x", sessionPrefix, session) }

func resultKey(session, sequence uint64) string {
	return fmt.Sprintf("%s/%016x", sessionKey(session), sequence)
}

// isResult reports whether a key is one of resultKey.
func isResult[K string | []byte](key K) bool {
	return len(key) > len(sessionPrefix)+len("0000000000000000") && string(key[:len(sessionPrefix)]) == sessionPrefix
}

// refusalField is the number of storagepb.Result.refusal.
const refusalField = 2

// withoutMessage returns a remembered result without the words of a refusal, which another build may choose otherwise:
// neither what commands do nor the hash of the state may depend on them.
func withoutMessage(value []byte) []byte {
	if _, refusal := state.Field(value, refusalField); refusal == nil {
		return value
	}
	result := &storagepb.Result{}
	if err := state.Decode(value, result); err != nil || result.Refusal == nil {
		return value
	}
	result.Refusal.Message = ""
	return state.Encode(result)
}

func resultBytes(value []byte) uint64 { return uint64(len(withoutMessage(value))) }

// once executes a command with an id at most once and remembers its result.
func (m *Machine) once(term uint64, c *storagepb.Command, room *storagepb.Result, out *Outcome) (*storagepb.Result, error) {
	session, remembered, err := m.recall(c.Id)
	switch {
	case err != nil:
		return refusal(err, m.pos.Revision)
	case remembered != nil && remembered.Kind != c.Kind:
		return refusal(metasrv.InvalidArgument("header.request_id", "sequence %d of session %d was used for another request, a %s",
			c.Id.Sequence, c.Id.Session, remembered.Kind), m.pos.Revision)
	case remembered != nil:
		return remembered, nil
	}
	t := &tx{tree: m.tree}
	acknowledge(t, session, c.Id)
	session.LastUsedMs = uint64(m.pos.Now)
	var result *storagepb.Result
	if session.Results >= maxResults || session.ResultBytes >= maxResultBytes {
		result, err = refusal(metasrv.ErrSessionFull.With("session %d has %d results of %d bytes that were not acknowledged, up to sequence %d they were",
			c.Id.Session, session.Results, session.ResultBytes, session.Acknowledged), m.pos.Revision)
	} else {
		var message proto.Message
		if result, message, err = m.execute(term, c, room, out); message != nil {
			result.Payload = state.Encode(message)
		}
	}
	if err != nil {
		return nil, err
	}
	result.Kind = c.Kind
	if _, open := m.tree.Get(sessionKey(c.Id.Session)); open { // else the command closed its own session
		if isFinal(result) {
			value := state.Encode(result)
			t.Put(resultKey(c.Id.Session, c.Id.Sequence), value)
			session.Results++
			session.ResultBytes += resultBytes(value)
		}
		t.Put(sessionKey(c.Id.Session), state.Encode(session))
	}
	m.finish(t, out)
	return result, nil
}

// isFinal reports whether a result is what every retry must get. What metasrv did wrong, and not the client, is not:
// the command changed nothing, and a retry under the same id may well succeed.
func isFinal(r *storagepb.Result) bool {
	switch r.GetRefusal().GetReason() {
	case metasrv.ErrSessionFull.Reason, // not executed
		metasrv.ErrStaleIncarnation.Reason, // planned on a node that has registered anew since
		metasrv.ErrStaleTerm.Reason:
		return false
	}
	return true
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

// acknowledge forgets the results that the client has received. It can't have that of the command itself.
func acknowledge(t *tx, session *storagepb.SessionRecord, id *storagepb.CommandId) {
	acknowledged := min(id.Acknowledged, id.Sequence-1)
	if acknowledged <= session.Acknowledged {
		return
	}
	for key, value := range t.Ascend(resultKey(id.Session, session.Acknowledged+1), resultKey(id.Session, acknowledged+1)) {
		t.Delete(key)
		session.Results -= min(session.Results, 1)
		session.ResultBytes -= min(session.ResultBytes, resultBytes(value))
	}
	session.Acknowledged = acknowledged
}
