package machine

import (
	"fmt"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Adoption begins another life of a cluster with a state that may lack what was acknowledged: a backup, or what the last
// member of a lost majority has.
type Adoption struct {
	// Incarnation names the new life.
	Incarnation uint64
	// Member is the one that the new life begins with.
	Member string
	// KeepIDs: the ids of all other members count as used.
	KeepIDs bool
	// Origin says in words how the state came to be; WallTimeMs when, for display.
	Origin     string
	WallTimeMs int64
	// Adopters raise what the packages have given out to the outside world, such as ids.
	Adopters []func(state.Tx) error
}

// By how much numbers rise that the lost state can have given out since: far more than it can have used.
const (
	adoptedRevisions = 1 << 40
	adoptedSessions  = 1 << 40
)

// Adopt returns the state with which the new life begins. Revision and numbers of all kinds are far beyond what can have
// been given out, sessions are forgotten, and the state is in quarantine.
func Adopt(v *View, a Adoption) (*View, error) {
	t := &tx{tree: v.tree.Copy(), revision: v.pos.Revision, now: v.pos.Now, version: v.pos.Version}
	cluster := Cluster(t)
	if cluster.GetClusterId() == 0 {
		return nil, fmt.Errorf("the state at index %d is of no cluster: nothing was ever written to it", v.pos.Index)
	}
	cluster.Incarnation = a.Incarnation
	cluster.Generation++
	cluster.Quarantine = &storagepb.Quarantine{Origin: a.Origin, SinceMs: a.WallTimeMs}
	t.Put(clusterKey, state.Encode(cluster))
	t.Delete(leaderKey)
	adoptMembers(t, a)
	for key := range t.Ascend(sessionPrefix, end(sessionPrefix)) {
		t.Delete(key)
	}
	putCount(t, 0)
	state.Raise(t, sessionSequenceKey, 1, adoptedSessions)
	for _, adopt := range a.Adopters {
		if err := adopt(t); err != nil {
			return nil, err
		}
	}
	pos := v.pos
	pos.Index++
	pos.Term++
	pos.Revision += adoptedRevisions
	return NewView(pos, ascend(t.tree, "", "")), nil
}

// adoptMembers leaves no member but what the new life begins with; that one publishes itself.
func adoptMembers(t *tx, a Adoption) {
	if !a.KeepIDs {
		// Nobody of an earlier life gets through to raft, so its ids are free.
		for key := range t.Ascend(removedPrefix, end(removedPrefix)) {
			t.Delete(key)
		}
	}
	for _, member := range Members(t) {
		t.Delete(memberPrefix + member.Id)
		if a.KeepIDs && member.Id != a.Member {
			t.Put(removedPrefix+member.Id, state.Encode(&storagepb.RemovedMember{
				Id: member.Id, RaftAddr: member.RaftAddr, RemovedAtMs: a.WallTimeMs,
			}))
		}
	}
}

// end returns the first key behind all that begin with prefix, which ends with '/': '0' follows '/'.
func end(prefix string) string { return prefix[:len(prefix)-1] + "0" }
