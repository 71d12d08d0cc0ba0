package machine

import (
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// A member that was removed leaves a record, so that its id is never taken again: who has it may still believe that it
// votes.
const removedPrefix = SystemPrefix + "removed/"

func removeMember(tx state.Tx, c *storagepb.RemoveMember) (*emptypb.Empty, error) {
	if c.GetId() == "" {
		return nil, metasrv.InvalidArgument("id", "is empty")
	}
	if _, was := Removed(tx, c.Id); !was {
		tx.Put(removedPrefix+c.Id, state.Encode(&storagepb.RemovedMember{Id: c.Id, RaftAddr: c.RaftAddr, RemovedAtMs: c.WallTimeMs}))
	}
	tx.Delete(memberPrefix + c.Id)
	return &emptypb.Empty{}, nil
}

func endQuarantine(tx state.Tx, c *storagepb.EndQuarantine) (*emptypb.Empty, error) {
	cluster := Cluster(tx)
	switch {
	case cluster.GetClusterId() != c.GetClusterId() || cluster.GetIncarnation() != c.GetIncarnation():
		return nil, metasrv.ErrClusterMismatch.With("the confirmation is for cluster %d in its life %016x, this is cluster %d in its life %016x",
			c.GetClusterId(), c.GetIncarnation(), cluster.GetClusterId(), cluster.GetIncarnation())
	case cluster.GetQuarantine() == nil:
		return &emptypb.Empty{}, nil
	}
	cluster.Quarantine = nil
	tx.Put(clusterKey, state.Encode(cluster))
	return &emptypb.Empty{}, nil
}

// Member returns what the member with an id published.
func Member(v Getter, id string) (*storagepb.MemberRecord, bool) {
	record := &storagepb.MemberRecord{}
	if !read(v, memberPrefix+id, record) {
		return nil, false
	}
	return record, true
}

// Removed returns what is left of a member that was removed.
func Removed(v Getter, id string) (*storagepb.RemovedMember, bool) {
	record := &storagepb.RemovedMember{}
	if !read(v, removedPrefix+id, record) {
		return nil, false
	}
	return record, true
}

// Quarantined returns where the state comes from while nobody has confirmed it, nil where nobody need.
func Quarantined(v Getter) *storagepb.Quarantine { return Cluster(v).GetQuarantine() }
