package machine

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	clusterKey   = SystemPrefix + "cluster"
	leaderKey    = SystemPrefix + "leader"
	memberPrefix = SystemPrefix + "member/"
)

// system returns the applier of the machine's own commands: who the members are, and sessions.
func (m *Machine) system() state.Applier {
	return state.NewApplier(
		state.On(storagepb.CommandKind_COMMAND_KIND_LEADER_ESTABLISHED, leaderEstablished),
		state.On(storagepb.CommandKind_COMMAND_KIND_PUBLISH_MEMBER, publishMember),
		state.On(storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, openSession),
		state.On(storagepb.CommandKind_COMMAND_KIND_CLOSE_SESSION, closeSession),
		state.On(storagepb.CommandKind_COMMAND_KIND_EXPIRE_SESSIONS, expireSessions),
		state.On(storagepb.CommandKind_COMMAND_KIND_SET_CLUSTER_VERSION, m.setClusterVersion),
		state.On(storagepb.CommandKind_COMMAND_KIND_CONFIGURE_SESSIONS, configureSessions),
		state.On(storagepb.CommandKind_COMMAND_KIND_REMOVE_MEMBER, removeMember),
		state.On(storagepb.CommandKind_COMMAND_KIND_END_QUARANTINE, endQuarantine),
	)
}

func leaderEstablished(tx state.Tx, c *storagepb.LeaderEstablished) (*emptypb.Empty, error) {
	if _, known := tx.Get(clusterKey); !known {
		tx.Put(clusterKey, state.Encode(&storagepb.ClusterRecord{ClusterId: c.ProposedClusterId}))
	}
	tx.Put(leaderKey, state.Encode(&storagepb.LeaderRecord{
		Term: c.Term, MemberId: c.GetMember().GetId(), EstablishedAtMs: uint64(tx.Now()),
	}))
	return putMember(tx, c.Member)
}

func publishMember(tx state.Tx, c *storagepb.PublishMember) (*emptypb.Empty, error) {
	if gone, was := Removed(tx, c.GetMember().GetId()); was {
		return nil, metasrv.ErrMemberRemoved.With("member %s was removed", gone.Id)
	}
	return putMember(tx, c.Member)
}

func putMember(tx state.Tx, member *storagepb.MemberRecord) (*emptypb.Empty, error) {
	if member.GetId() == "" {
		return nil, metasrv.InvalidArgument("member.id", "is empty")
	}
	tx.Put(memberPrefix+member.Id, state.Encode(member))
	return &emptypb.Empty{}, nil
}

// Getter reads one key; a state.View does.
type Getter interface {
	Get(key string) (value []byte, ok bool)
}

// ClusterID returns the id of the cluster, 0 while it has none.
func ClusterID(v Getter) uint64 { return Cluster(v).GetClusterId() }

// Cluster returns what identifies the cluster, nil while nothing does.
func Cluster(v Getter) *storagepb.ClusterRecord {
	record := &storagepb.ClusterRecord{}
	if !read(v, clusterKey, record) {
		return nil
	}
	return record
}

// read fills record from a key. The machine wrote its own keys itself, so a damaged one is a broken state.
func read(v Getter, key string, record proto.Message) bool {
	value, ok := v.Get(key)
	if !ok {
		return false
	}
	if err := state.Decode(value, record); err != nil {
		panic(fmt.Errorf("%s: %w", key, err))
	}
	return true
}
