package machine

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	clusterKey         = SystemPrefix + "cluster"
	leaderKey          = SystemPrefix + "leader"
	memberPrefix       = SystemPrefix + "member/"
	sessionSequenceKey = SystemPrefix + "seq/session"
)

// system applies the machine's own commands: who the members are, and sessions.
type system struct{}

func (system) Kinds() []storagepb.CommandKind {
	return []storagepb.CommandKind{
		storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED,
		storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER,
		storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION,
		storagepb.CommandKind_COMMAND_KIND_CLOSE_SESSION,
	}
}

func (system) Apply(tx state.Tx, kind storagepb.CommandKind, payload []byte) (proto.Message, error) {
	switch kind {
	case storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED:
		c := &storagepb.LeaderEstablished{}
		if err := state.Decode(payload, c); err != nil {
			return nil, err
		}
		return nil, leaderEstablished(tx, c)
	case storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER:
		c := &storagepb.PublishMember{}
		if err := state.Decode(payload, c); err != nil {
			return nil, err
		}
		return nil, putMember(tx, c.Member)
	case storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION:
		return openSession(tx), nil
	case storagepb.CommandKind_COMMAND_KIND_CLOSE_SESSION:
		c := &storagepb.CloseSession{}
		if err := state.Decode(payload, c); err != nil {
			return nil, err
		}
		closeSession(tx, c.Session)
		return nil, nil
	default:
		return nil, fmt.Errorf("kind %s is not the machine's own", kind)
	}
}

func leaderEstablished(tx state.Tx, c *storagepb.LeaderEstablished) error {
	if _, known := tx.Get(clusterKey); !known {
		tx.Put(clusterKey, state.Encode(&storagepb.ClusterRecord{ClusterId: c.ProposedClusterId}))
	}
	tx.Put(leaderKey, state.Encode(&storagepb.LeaderRecord{Term: c.Term, MemberId: c.GetMember().GetId()}))
	return putMember(tx, c.Member)
}

func putMember(tx state.Tx, member *storagepb.MemberRecord) error {
	if member.GetId() == "" {
		return metasrv.InvalidArgument("member.id", "is empty")
	}
	tx.Put(memberPrefix+member.Id, state.Encode(member))
	return nil
}

func openSession(tx state.Tx) proto.Message {
	session := state.Next(tx, sessionSequenceKey, 1)
	now := uint64(tx.Now())
	tx.Put(sessionKey(session), state.Encode(&storagepb.SessionRecord{OpenedAtMs: now, LastUsedMs: now}))
	return &storagepb.OpenSessionResult{Session: session}
}

func closeSession(tx state.Tx, session uint64) {
	from := sessionKey(session)
	for key := range tx.Ascend(from, from+"0") { // '0' follows '/': the record and its results
		tx.Delete(key)
	}
}

// ClusterID returns the id of the cluster, 0 while it has none.
func ClusterID(v state.View) uint64 {
	record := &storagepb.ClusterRecord{}
	if !read(v, clusterKey, record) {
		return 0
	}
	return record.ClusterId
}

// Member returns what the member with an id published.
func Member(v state.View, id string) (*storagepb.MemberRecord, bool) {
	record := &storagepb.MemberRecord{}
	if !read(v, memberPrefix+id, record) {
		return nil, false
	}
	return record, true
}

// read fills record from a key. The machine wrote its own keys itself, so a damaged one is a broken state.
func read(v state.View, key string, record proto.Message) bool {
	value, ok := v.Get(key)
	if !ok {
		return false
	}
	if err := state.Decode(value, record); err != nil {
		panic(fmt.Errorf("%s: %w", key, err))
	}
	return true
}
