package heartbeat

import (
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	firstIncarnation = 1
	// MaxNodeInfoBytes bounds what a node says of itself: it is replicated, and kept for ever.
	MaxNodeInfoBytes = 64 << 10
	maxAddrBytes     = 255
	// leasesSince is the command version with which generations of storage, keeps_leases and groups came.
	leasesSince = 2
)

// NewApplier returns the applier of this package. CHANGE_GROUP answers with a ChangeGroupResult, what else there is with a
// RegisterNodeResult.
func NewApplier() state.Applier {
	return state.NewApplier(
		state.Needing(state.On(storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE, registerNode),
			func(cmd *storagepb.RegisterNode) uint32 {
				if cmd.GetInfo().GetKeepsLeases() || cmd.GetInfo().GetGroup() != "" {
					return leasesSince
				}
				return 0
			}),
		state.On(storagepb.CommandKind_COMMAND_KIND_SET_NODE_STATE, setNodeState).Since(leasesSince),
		state.On(storagepb.CommandKind_COMMAND_KIND_CHANGE_GROUP, changeGroup).Since(leasesSince),
	)
}

// registerNode registers a process as a node. ErrStaleIncarnation: another process registered since. ErrNodeRemoved: the
// node was removed.
// ErrInvalidArgument names what is wrong.
func registerNode(tx state.Tx, cmd *storagepb.RegisterNode) (*storagepb.RegisterNodeResult, error) {
	id := metasrv.NodeID(cmd.GetPeer().GetId())
	if err := checkRemoved(tx, id); err != nil {
		return nil, err
	}
	record, err := read(tx, id)
	if err != nil {
		return nil, err
	}
	next, fresh, err := register(record, cmd, tx.ClusterVersion())
	if err != nil {
		return nil, err
	}
	if fresh {
		next.Incarnation = state.Next(tx, incarnationKey, firstIncarnation)
	}
	if next != record {
		tx.Put(nodeKey(id), state.Encode(next))
		if err := moveGroups(tx, record, next); err != nil {
			return nil, err
		}
	}
	return &storagepb.RegisterNodeResult{Node: next}, nil
}

// register returns what a command makes of the record of its node, which is nil where there is none: the
// record itself where nothing changes. A fresh one needs a new incarnation.
//
// A process that has no incarnation yet is known by its nonce, so that a registration whose answer was lost
// can be sent again. Only the last process is: after another one registered, an early one that never got its
// answer counts as new.
func register(record *storagepb.NodeRecord, cmd *storagepb.RegisterNode, version uint32) (next *storagepb.NodeRecord, fresh bool, err error) {
	if err := validate(record, cmd); err != nil {
		return nil, false, err
	}
	next = &storagepb.NodeRecord{
		Peer: cmd.Peer, Info: cmd.Info, Legacy: cmd.Legacy, RegisteredAtMs: cmd.WallTimeMs, Drain: record.GetDrain(),
	}
	if record == nil {
		return next, true, stale(cmd, 0)
	}
	if version >= leasesSince {
		recordStorage(next, record)
	}
	switch {
	case cmd.Legacy:
		fresh = !record.Legacy || record.Peer.GetAddr() != cmd.Peer.Addr
	case cmd.Incarnation != 0:
		if record.Legacy || cmd.Incarnation != record.Incarnation {
			return nil, false, stale(cmd, record.Incarnation)
		}
	default:
		nonce := cmd.GetInfo().GetRegistrationNonce()
		fresh = record.Legacy || nonce == 0 || nonce != record.GetInfo().GetRegistrationNonce()
	}
	if fresh {
		return next, true, nil
	}
	next.Incarnation, next.RegisteredAtMs = record.Incarnation, record.RegisteredAtMs
	if next.Info != nil && next.Info.RegistrationNonce == 0 {
		next.Info = proto.CloneOf(next.Info)
		next.Info.RegistrationNonce = record.GetInfo().GetRegistrationNonce()
	}
	if proto.Equal(next, record) {
		return record, false, nil
	}
	return next, false, nil
}

// recordStorage notes in the next record of a node whether what the one before had on its storage is lost. A registration
// that names no storage says nothing of it: the build before may have been an older one, on the same disk.
func recordStorage(next, record *storagepb.NodeRecord) {
	next.StorageGeneration = record.StorageGeneration
	known, named := storageOf(record), next.GetInfo().GetStorageUuid()
	switch {
	case named == "":
		next.LastStorageUuid = known
	case known != "" && known != named:
		next.StorageGeneration++
	}
}

// storageOf returns the storage that a node is known to have, "" where it never named one.
func storageOf(record *storagepb.NodeRecord) string {
	if uuid := record.GetInfo().GetStorageUuid(); uuid != "" {
		return uuid
	}
	return record.GetLastStorageUuid()
}

// stale returns ErrStaleIncarnation for a command that claims an incarnation, given that of the record, nil
// for one that claims none.
func stale(cmd *storagepb.RegisterNode, recorded uint64) error {
	switch {
	case cmd.Incarnation == 0:
		return nil
	case recorded == 0:
		return metasrv.ErrStaleIncarnation.With(
			"node %d claims incarnation %d, but this cluster has never registered it: its data was removed, or it is another cluster",
			cmd.Peer.Id, cmd.Incarnation)
	case cmd.Incarnation > recorded:
		return metasrv.ErrStaleIncarnation.With("node %d claims incarnation %d, which was never given to it: its last is %d",
			cmd.Peer.Id, cmd.Incarnation, recorded)
	}
	return metasrv.ErrStaleIncarnation.With("incarnation %d of node %d is over: another process registered as incarnation %d",
		cmd.Incarnation, cmd.Peer.Id, recorded)
}

// validate returns ErrInvalidArgument, naming the field of the beat, for a registration that can't be one.
func validate(record *storagepb.NodeRecord, cmd *storagepb.RegisterNode) error {
	peer := cmd.GetPeer()
	switch {
	case peer.GetId() == 0:
		return metasrv.InvalidArgument("peer.id", "is 0: a node must choose an id")
	case peer.GetAddr() == "":
		return metasrv.InvalidArgument("peer.addr", "is empty: node %d must name the address that others dial", peer.GetId())
	case len(peer.Addr) > maxAddrBytes:
		return metasrv.InvalidArgument("peer.addr", "of node %d has %d bytes, at most %d are allowed", peer.Id, len(peer.Addr), maxAddrBytes)
	case !cmd.Legacy && cmd.Info == nil:
		return metasrv.InvalidArgument("node", "is absent: node %d must say what it is in the first beat of a stream", peer.Id)
	}
	if size := proto.Size(cmd.Info); size > MaxNodeInfoBytes {
		return metasrv.InvalidArgument("node", "of node %d has %d bytes, at most %d are allowed", peer.Id, size, MaxNodeInfoBytes)
	}
	if err := validateGroup(cmd.Info); err != nil {
		return err
	}
	role := RoleOf(&storagepb.NodeRecord{Info: cmd.Info})
	if _, known := metasrvpb.NodeRole_name[int32(role)]; !known {
		return metasrv.InvalidArgument("node.role", "%d of node %d is unknown", role, peer.Id)
	}
	if record != nil && RoleOf(record) != role {
		// Routes name nodes by id: a frontend that took a datanode's id would take its regions with it.
		return metasrv.InvalidArgument("node.role", "node %d is registered as a %s; a %s needs an id of its own",
			peer.Id, roleName(RoleOf(record)), roleName(role))
	}
	return nil
}
