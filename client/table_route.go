package client

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sync/atomic"
	"time"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/router/partition"
)

// TableRoute says where the regions of a table are. It is shared and must not be changed.
type TableRoute struct {
	ID            metasrv.TableID
	Name          metasrv.TableName
	Schema        *metasrvpb.TableSchema
	SchemaVersion uint64
	// Info is the opaque table_info that the table was created with.
	Info []byte
	// Version is the route_version: it rises with every change of the table's routes.
	Version uint64
	// Revision of the state that the route was read from.
	Revision uint64
	// Regions in the order of their partitions: Regions[i] holds partition i.
	Regions []Region

	partitioner *partition.Partitioner
	// opaque says why there is no partitioner.
	opaque error
	read   time.Time
	turn   atomic.Uint64
}

// Region is a part of a table.
type Region struct {
	ID metasrv.RegionID
	// Partition is the index of the region's partition in the table's rule.
	Partition int
	// Leader is the mutate endpoint, the zero Endpoint while the region has no leader.
	Leader Endpoint
	// Followers are the select endpoints besides the leader.
	Followers []Endpoint
	// LeaderEpoch fences the region's leader: a write carries it.
	LeaderEpoch uint64
	// ConfVersion rises with every change of the region's replicas.
	ConfVersion uint64
}

// HasLeader reports whether the region can be written to.
func (r *Region) HasLeader() bool { return r.Leader != Endpoint{} }

// Endpoint is a replica of a region on a datanode.
type Endpoint struct {
	NodeID metasrv.NodeID
	// Addr of the datanode, host:port.
	Addr      string
	ReplicaID metasrv.ReplicaID
}

// NewTableRoute returns the route of an answer of the Router service; peers are those of the same answer. An
// answer that contradicts itself is ErrInternal.
func NewTableRoute(route *metasrvpb.TableRoute, peers []*metasrvpb.Peer) (*TableRoute, error) {
	t := route.GetTable()
	r := &TableRoute{
		ID:            metasrv.TableID(t.GetId()),
		Name:          nameOf(t.GetTableName()),
		Schema:        t.GetSchema(),
		SchemaVersion: t.GetSchemaVersion(),
		Info:          t.GetTableSchema(),
		Version:       route.GetRouteVersion(),
		read:          time.Now(),
	}
	for _, m := range route.GetRegionRoutes() {
		region, err := newRegion(m, peers)
		if err != nil {
			return nil, metasrv.ErrInternal.With("route of table %s: region %s: %s", r.Name,
				metasrv.RegionID(m.GetRegion().GetId()), err)
		}
		r.Regions = append(r.Regions, region)
	}
	slices.SortStableFunc(r.Regions, func(a, b Region) int { return cmp.Compare(a.Partition, b.Partition) })
	r.partitioner, r.opaque = partition.New(t.GetPartitionRule(), t.GetSchema())
	if r.opaque == nil {
		r.opaque = r.checkPartitions()
	}
	if r.opaque != nil {
		r.partitioner = nil
	}
	return r, nil
}

// checkPartitions returns an error unless Regions[i] holds partition i of the rule. Tables of the early public
// protocol have regions without a rule.
func (r *TableRoute) checkPartitions() error {
	if got, want := len(r.Regions), r.partitioner.Len(); got != want {
		return fmt.Errorf("it has %d regions and a rule of %d partitions", got, want)
	}
	for i := range r.Regions {
		if got := r.Regions[i].Partition; got != i {
			return fmt.Errorf("region %s has partition number %d, not %d", r.Regions[i].ID, got, i)
		}
	}
	return nil
}

// Partitioner returns the table's partition rule. A table whose rule is unknown to this version, or whose
// regions don't follow a rule (those created over the early public protocol), has none: ErrUnknownPartitions.
func (r *TableRoute) Partitioner() (*partition.Partitioner, error) {
	if r.partitioner == nil {
		return nil, ErrUnknownPartitions.With("partitions of table %s: %s", r.Name, r.opaque)
	}
	return r.partitioner, nil
}

// nextTurn returns how often it was called before.
func (r *TableRoute) nextTurn() uint64 { return r.turn.Add(1) - 1 }

// withAddress returns a copy in which a node has another address, nil where the route doesn't name the node.
func (r *TableRoute) withAddress(node metasrv.NodeID, addr string) *TableRoute {
	named := false
	moved := func(e Endpoint) Endpoint {
		if e.NodeID == node {
			e.Addr, named = addr, true
		}
		return e
	}
	regions := slices.Clone(r.Regions)
	for i := range regions {
		region := &regions[i]
		region.Leader = moved(region.Leader)
		region.Followers = slices.Clone(region.Followers)
		for j := range region.Followers {
			region.Followers[j] = moved(region.Followers[j])
		}
	}
	if !named {
		return nil
	}
	c := &TableRoute{
		ID: r.ID, Name: r.Name, Schema: r.Schema, SchemaVersion: r.SchemaVersion, Info: r.Info, Version: r.Version, Revision: r.Revision,
		Regions: regions, partitioner: r.partitioner, opaque: r.opaque, read: r.read,
	}
	c.turn.Store(r.turn.Load())
	return c
}

func newRegion(m *metasrvpb.RegionRoute, peers []*metasrvpb.Peer) (Region, error) {
	r := Region{
		ID:          metasrv.RegionID(m.GetRegion().GetId()),
		Partition:   int(m.GetRegion().GetPartitionNumber()),
		LeaderEpoch: m.GetLeaderEpoch(),
		ConfVersion: m.GetConfVersion(),
	}
	if i := m.GetLeaderPeerIndex(); i != math.MaxUint64 {
		leader, err := newEndpoint(i, m.GetLeaderReplicaId(), peers)
		if err != nil {
			return Region{}, err
		}
		r.Leader = leader
	}
	for k, i := range m.GetFollowerPeerIndexes() {
		var replica uint64
		if ids := m.GetFollowerReplicaIds(); k < len(ids) {
			replica = ids[k]
		}
		follower, err := newEndpoint(i, replica, peers)
		if err != nil {
			return Region{}, err
		}
		r.Followers = append(r.Followers, follower)
	}
	return r, nil
}

func newEndpoint(i, replica uint64, peers []*metasrvpb.Peer) (Endpoint, error) {
	if i >= uint64(len(peers)) {
		return Endpoint{}, fmt.Errorf("peer %d of %d", i, len(peers))
	}
	return Endpoint{
		NodeID:    metasrv.NodeID(peers[i].GetId()),
		Addr:      peers[i].GetAddr(),
		ReplicaID: metasrv.ReplicaID(replica),
	}, nil
}

func nameOf(m *metasrvpb.TableName) metasrv.TableName {
	return metasrv.TableName{Catalog: m.GetCatalogName(), Schema: m.GetSchemaName(), Table: m.GetTableName()}
}

func protoOf(n metasrv.TableName) *metasrvpb.TableName {
	return &metasrvpb.TableName{CatalogName: n.Catalog, SchemaName: n.Schema, TableName: n.Table}
}

// Errors of routing that the client finds itself. Compare with errors.Is.
var (
	// ErrRegionUnavailable: a region has no leader to write to, or no replica to read from.
	ErrRegionUnavailable = &metasrv.Error{Kind: metasrv.KindUnavailable, Reason: "REGION_UNAVAILABLE"}
	// ErrUnknownPartitions: the table's regions follow no partition rule that this version knows.
	ErrUnknownPartitions = &metasrv.Error{Kind: metasrv.KindFailedPrecondition, Reason: "UNKNOWN_PARTITIONS"}
)
