package router

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Placement is a replica as the state has it.
type Placement struct {
	Table             metasrv.TableID
	Node              metasrv.NodeID
	StorageGeneration uint64
	// Settled: a node that keeps leases and reports the replica just as Report has it agrees with the state, as Agree
	// understands it, if the replica is not lost. Else Report says nothing.
	Settled bool
	Report  ReportedReplica
}

// Placements calls f with each replica, that is not dropped, of each table in any state, in the order of the tables' ids. It
// decodes nothing: a new metasrv leader goes through all replicas before it answers the first heartbeat.
func Placements(v state.View, f func(Placement)) error {
	for key, value := range v.Ascend(RoutePrefix, RouteStop) {
		table, err := tableOf(key, RoutePrefix)
		if err != nil {
			return err
		}
		if err := placements(v, table, value, f); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	return nil
}

// PlacementsOf calls f as Placements does, for one table.
func PlacementsOf(v state.View, table metasrv.TableID, f func(Placement)) error {
	return placements(v, table, routeValue(v, table), f)
}

func placements(v state.View, table metasrv.TableID, route []byte, f func(Placement)) error {
	public := tableState(v, table) == metasrvpb.TableState_TABLE_STATE_PUBLIC
	var region placedRegion
	return state.EachField(route, func(number protowire.Number, _ uint64, record []byte) error {
		if number != regionsField {
			return nil
		}
		if err := region.read(record); err != nil {
			return err
		}
		for _, r := range region.replicas {
			f(region.placement(table, public, r))
		}
		return nil
	})
}

// placedRegion is a stored region as far as its placements go. Its list is used again for the next one.
type placedRegion struct {
	id       uint64
	demoting bool
	regionFields
	replicas []placedReplica
}

type placedReplica struct{ id, node, dropped, learner, generation uint64 }

func (p *placedRegion) read(record []byte) error {
	*p = placedRegion{replicas: p.replicas[:0]}
	return state.EachField(record, func(number protowire.Number, n uint64, replica []byte) error {
		switch number {
		case storedRegionIDField:
			p.id = n
		case regionEpochField:
			p.epoch = n
		case regionConfField:
			p.conf = n
		case regionLeaderField:
			p.leader = n
		case regionDemotingField:
			p.demoting = n != 0
		case regionReplicasField:
			return p.add(replica)
		}
		return nil
	})
}

// readReplica reads a stored replica as far as its placement goes.
func readReplica(record []byte) (r placedReplica, err error) {
	err = state.EachField(record, func(number protowire.Number, n uint64, _ []byte) error {
		switch number {
		case replicaIDField:
			r.id = n
		case replicaNodeField:
			r.node = n
		case replicaDroppedField:
			r.dropped = n
		case replicaLearnerField:
			r.learner = n
		case replicaGenerationField:
			r.generation = n
		}
		return nil
	})
	return r, err
}

func (p *placedRegion) add(record []byte) error {
	r, err := readReplica(record)
	if err == nil && r.dropped == 0 {
		p.replicas = append(p.replicas, r)
	}
	return err
}

func (p *placedRegion) placement(table metasrv.TableID, public bool, r placedReplica) Placement {
	role := metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	switch {
	case r.id == p.leader:
		role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
	case r.learner != 0:
		role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
	}
	return Placement{
		Table: table, Node: metasrv.NodeID(r.node), StorageGeneration: r.generation, Settled: public && !p.demoting,
		Report: ReportedReplica{
			Region: metasrv.RegionID(p.id), Replica: metasrv.ReplicaID(r.id), LeaderEpoch: p.epoch, ConfVersion: p.conf, Role: role,
		},
	}
}
