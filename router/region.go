package router

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// RegionState is what the state says of a region, and of one replica of it.
type RegionState struct {
	// Table is the state of the region's table. Only in PUBLIC tables a region has an in-sync set and can be granted a
	// lease.
	Table metasrvpb.TableState
	// Leader is the replica that leads the region under LeaderEpoch.
	Leader                   metasrv.ReplicaID
	LeaderEpoch, ConfVersion uint64
	// Demoting: nobody is granted a lease for the region.
	Demoting bool
	// Replica is the one that was asked for, nil where the region has none of that id.
	Replica *ReplicaState
}

// ReplicaState is what the state says of a replica.
type ReplicaState struct {
	ID   metasrv.ReplicaID
	Node metasrv.NodeID
	Role metasrvpb.ReplicaRole
	// InSync: in the committed in-sync set.
	InSync bool
	// StorageGeneration is that of the node's storage on which the replica is; where the node's registration has a higher
	// one, the replica is lost, whatever the node reports.
	StorageGeneration uint64
}

// RegionOf returns what the state says of a region and a reported replica of it; ok is false where there is no such
// region. It decodes nothing: it costs two look-ups, and some nanoseconds for each region before this one in its table.
// For many regions of one table use RegionsOf.
func RegionOf(v state.View, id metasrv.RegionID, replica metasrv.ReplicaID) (region RegionState, ok bool, err error) {
	return RegionsOf(v, id.Table()).Find(id, replica)
}

// Regions finds regions of one table, without decoding its route. What it returns is that of the view it was made from.
// It is not safe for concurrent use.
type Regions struct {
	table   metasrv.TableID
	state   metasrvpb.TableState
	route   []byte
	rest    []byte // what stands behind the last region that was found
	next    uint32 // the number of the region that comes next in rest
	replica ReplicaState
}

// RegionsOf returns what finds the regions of a table; none where the table doesn't exist.
func RegionsOf(v state.View, table metasrv.TableID) *Regions {
	route := routeValue(v, table)
	return &Regions{table: table, state: tableState(v, table), route: route, rest: route}
}

// Find returns what RegionOf does. Asked for regions in rising order it reads the route once for all. Replica is
// overwritten by the next call.
func (r *Regions) Find(id metasrv.RegionID, replica metasrv.ReplicaID) (region RegionState, ok bool, err error) {
	if id.Table() != r.table {
		return RegionState{}, false, nil
	}
	if id.Number() < r.next {
		r.rest, r.next = r.route, 0
	}
	from := r.rest
	for len(from) > 0 {
		bytes, behind, err := nextRegion(from)
		if err != nil {
			return RegionState{}, false, fmt.Errorf("%s: %w", routeKey(r.table), err)
		}
		if bytes == nil {
			break
		}
		if r.next == id.Number() {
			// It is left where it is: the next replica may be of the same region.
			r.rest = from
			region, err := r.read(bytes, replica)
			return region, err == nil, err
		}
		from, r.next = behind, r.next+1
		r.rest = from
	}
	return RegionState{}, false, nil
}

// read returns an encoded RegionRecord as it concerns one of its replicas.
func (r *Regions) read(record []byte, replica metasrv.ReplicaID) (RegionState, error) {
	region := RegionState{Table: r.state}
	err := state.EachField(record, func(number protowire.Number, n uint64, bytes []byte) error {
		switch number {
		case regionEpochField:
			region.LeaderEpoch = n
		case regionConfField:
			region.ConfVersion = n
		case regionLeaderField:
			region.Leader = metasrv.ReplicaID(n)
		case regionDemotingField:
			region.Demoting = n != 0
		case regionReplicasField:
			if id, _ := firstVarint(bytes); id != uint64(replica) || replica == 0 {
				return nil
			}
			region.Replica = &r.replica
			return r.readReplica(bytes, region.Leader)
		}
		return nil
	})
	return region, err
}

func (r *Regions) readReplica(record []byte, leader metasrv.ReplicaID) error {
	r.replica = ReplicaState{Role: metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER}
	err := state.EachField(record, func(number protowire.Number, n uint64, _ []byte) error {
		switch number {
		case replicaIDField:
			r.replica.ID = metasrv.ReplicaID(n)
		case replicaNodeField:
			r.replica.Node = metasrv.NodeID(n)
		case replicaInSyncField:
			r.replica.InSync = n != 0
		case replicaLearnerField:
			r.replica.Role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
		case replicaGenerationField:
			r.replica.StorageGeneration = n
		}
		return nil
	})
	if r.replica.ID == leader { // state.Encode writes the leader before the replicas
		r.replica.Role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
	}
	return err
}

var errRoute = errors.New("a stored route can't be read")

// nextRegion returns the next encoded region and what stands behind it, nil where there is none.
func nextRegion(route []byte) (region, behind []byte, err error) {
	for len(route) > 0 {
		number, kind, n := protowire.ConsumeTag(route)
		if n < 0 {
			return nil, nil, errRoute
		}
		if number != regionsField {
			m := protowire.ConsumeFieldValue(number, kind, route[n:])
			if m < 0 {
				return nil, nil, errRoute
			}
			route = route[n+m:]
			continue
		}
		region, m := protowire.ConsumeBytes(route[n:])
		if m < 0 {
			return nil, nil, errRoute
		}
		return region, route[n+m:], nil
	}
	return nil, nil, nil
}

// firstVarint returns the first field of a replica, which is its id.
func firstVarint(record []byte) (uint64, bool) {
	if len(record) == 0 || record[0] != replicaIDField<<3 {
		return 0, false
	}
	v, n := protowire.ConsumeVarint(record[1:])
	return v, n > 0
}
