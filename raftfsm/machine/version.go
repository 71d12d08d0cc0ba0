package machine

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// EntryVersion is the highest command version that this build knows: that of the entries that it can execute. The
// entries that it writes carry the cluster version, which may be lower while members of an older build are there.
const EntryVersion = 2

// FirstVersion is what a record means that names no version.
const FirstVersion = 1

// TooOldError: the state or an entry needs a later build than this one. The member's data is in order.
type TooOldError struct{ Need, Known uint32 }

func (e *TooOldError) Error() string {
	return fmt.Sprintf("it needs command version %d, and this build of metasrv knows versions up to %d: "+
		"install the version of metasrv that the other members run and start this member again, its data is in order", e.Need, e.Known)
}

// Know makes the machine execute entries up to a version other than EntryVersion, as an older or newer build would.
func (m *Machine) Know(version uint32) { m.known = version }

// check returns a TooOldError if the machine doesn't know a version.
func (m *Machine) check(version uint32) error {
	if version > m.known {
		return &TooOldError{Need: version, Known: m.known}
	}
	return nil
}

// Versioned is implemented by appliers that have commands of later versions than the first.
type Versioned interface {
	// Since returns the command version that a kind of command came with.
	Since(kind storagepb.CommandKind) uint32
	// Needs returns the command version that a command needs for what it says, at least that of its kind.
	Needs(kind storagepb.CommandKind, payload proto.Message) uint32
}

// Since returns the command version that a kind of command came with, 0 where no applier knows the kind. It may be
// called at any time.
func (m *Machine) Since(kind storagepb.CommandKind) uint32 { return m.commands[kind].since }

func sinceOf(applier state.Applier, kind storagepb.CommandKind) uint32 {
	if v, ok := applier.(Versioned); ok {
		return max(v.Since(kind), FirstVersion)
	}
	return FirstVersion
}

// Needs returns the command version that a command needs, 0 where no applier knows its kind. It may be called at any time.
func (m *Machine) Needs(kind storagepb.CommandKind, payload proto.Message) uint32 {
	since := m.Since(kind)
	if v, ok := m.commands[kind].applier.(Versioned); ok && since > 0 {
		return max(since, v.Needs(kind, payload))
	}
	return since
}

// ClusterVersion returns the command version that every member knows, as far as a state says.
func ClusterVersion(v state.View) uint32 { return max(Cluster(v).GetVersion(), FirstVersion) }

// CommandVersion returns the highest command version that a member has published to know.
func CommandVersion(member *storagepb.MemberRecord) uint32 {
	return max(member.GetCommandVersion(), FirstVersion)
}

// setClusterVersion raises the cluster version. It never falls: entries of the higher version are in the logs.
func (m *Machine) setClusterVersion(tx state.Tx, c *storagepb.SetClusterVersion) (*emptypb.Empty, error) {
	cluster := Cluster(tx)
	present := ClusterVersion(tx)
	if cluster == nil || c.From != present || c.Version <= present {
		return nil, metasrv.ErrClusterVersion.With("the cluster is at version %d, it can't go from %d to %d", present, c.From, c.Version)
	}
	for _, member := range Members(tx) {
		if known := CommandVersion(member); known < c.Version {
			return nil, metasrv.ErrClusterVersion.With("the cluster can't go to version %d: member %s (%s) knows versions up to %d",
				c.Version, member.Id, member.Version, known)
		}
	}
	if err := m.check(c.Version); err != nil {
		return nil, err
	}
	cluster.Version = c.Version
	tx.Put(clusterKey, state.Encode(cluster))
	m.pos.Version = c.Version
	return &emptypb.Empty{}, nil
}

// Members returns what the members have published, sorted by id.
func Members(v state.View) []*storagepb.MemberRecord {
	var members []*storagepb.MemberRecord
	for key := range v.Ascend(memberPrefix, memberPrefix[:len(memberPrefix)-1]+"0") {
		record := &storagepb.MemberRecord{}
		if read(v, key, record) {
			members = append(members, record)
		}
	}
	return members
}
