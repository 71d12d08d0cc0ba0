package router

import (
	"math"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router/partition"
)

// NoLeader is the leader_peer_index of a region that has no leader.
const NoLeader = math.MaxUint64

// Builder writes routes in the form of the API, for one answer: every node that they name stands once in
// Peers, and regions refer to it by its index there.
type Builder struct {
	address func(metasrv.NodeID) string
	index   map[uint64]uint64
	peers   []*metasrvpb.Peer
}

// NewBuilder returns a Builder without peers. address returns the address of a node, "" where it is unknown.
func NewBuilder(address func(metasrv.NodeID) string) *Builder {
	return &Builder{address: address, index: make(map[uint64]uint64)}
}

// Peers returns the nodes that the routes added so far name.
func (b *Builder) Peers() []*metasrvpb.Peer { return b.peers }

// Add returns the route of a table and adds its nodes to Peers. It shares parts of the record.
func (b *Builder) Add(r Record) *metasrvpb.TableRoute {
	route := &metasrvpb.TableRoute{
		Table:        catalog.ToTable(r.Table),
		RouteVersion: r.Route.RouteVersion,
		RegionRoutes: make([]*metasrvpb.RegionRoute, 0, len(r.Route.Regions)),
	}
	// A rule that this build refuses leaves the partitions out; the table carries the rule itself.
	rule, err := partition.New(r.Table.PartitionRule, r.Table.Schema)
	if err != nil {
		rule = nil
	}
	for _, region := range r.Route.Regions {
		route.RegionRoutes = append(route.RegionRoutes, b.region(region, rule, r.Table.State == metasrvpb.TableState_TABLE_STATE_PUBLIC))
	}
	return route
}

// Event returns a change in the form of the API and adds its nodes to Peers.
func (b *Builder) Event(c Change) *metasrvpb.RouteEvent {
	e := &metasrvpb.RouteEvent{Revision: c.Revision}
	if c.Updated != nil {
		e.Change = &metasrvpb.RouteEvent_Updated{Updated: b.Add(*c.Updated)}
	} else {
		e.Change = &metasrvpb.RouteEvent_Removed{Removed: catalog.ToTable(c.Removed)}
	}
	return e
}

// AddCreation returns the route as Add does, with what the caller needs to commit or abort the creation.
func (b *Builder) AddCreation(r Record, now state.LeaderTime) *metasrvpb.TableRoute {
	route := b.Add(r)
	route.CreationToken = r.Table.CreationToken
	if left := r.Table.CreationDeadlineMs; left > uint64(now) {
		route.CreationDeadlineMs = left - uint64(now)
	}
	return route
}

// region returns the route of a region. Where the table is public, only replicas that have all acknowledged rows are read.
func (b *Builder) region(r *storagepb.RegionRecord, rule *partition.Partitioner, public bool) *metasrvpb.RegionRoute {
	route := &metasrvpb.RegionRoute{
		Region: &metasrvpb.Region{
			Id:              r.RegionId,
			Name:            metasrv.RegionID(r.RegionId).String(),
			Partition:       r.Partition,
			PartitionNumber: r.PartitionNumber,
		},
		LeaderPeerIndex: NoLeader,
		LeaderEpoch:     r.LeaderEpoch,
		ConfVersion:     r.ConfVersion,
		LeaderReplicaId: r.LeaderReplicaId,
	}
	if r.Partition == nil && rule != nil {
		route.Region.Partition = rule.Compat(int(r.PartitionNumber))
	}
	for _, replica := range r.Replicas {
		leads := replica.ReplicaId == r.LeaderReplicaId
		if replica.Learner || public && !leads && !replica.InSync {
			continue // it may lack rows
		}
		if leads {
			route.LeaderPeerIndex = b.peer(replica.NodeId)
			continue
		}
		route.FollowerPeerIndexes = append(route.FollowerPeerIndexes, b.peer(replica.NodeId))
		route.FollowerReplicaIds = append(route.FollowerReplicaIds, replica.ReplicaId)
	}
	return route
}

// peer returns the index of a node.
func (b *Builder) peer(id uint64) uint64 {
	if i, ok := b.index[id]; ok {
		return i
	}
	i := uint64(len(b.peers))
	b.index[id] = i
	b.peers = append(b.peers, &metasrvpb.Peer{Id: id, Addr: b.address(metasrv.NodeID(id))})
	return i
}
