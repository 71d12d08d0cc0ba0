package router

import (
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// settled says whether a node that keeps leases reports of a PUBLIC table just what the state says, and then how each replica
// stands. It decodes nothing: in the first second of a new metasrv leader every table is compared with each of its nodes.
func settled(v state.View, by Reporter, table metasrv.TableID, report []ReportedReplica) ([]Standing, bool) {
	if !by.KeepsLeases || tableState(v, table) != metasrvpb.TableState_TABLE_STATE_PUBLIC {
		return nil, false
	}
	s := settling{by: by, report: report, standings: make([]Standing, len(report))}
	err := state.EachField(routeValue(v, table), func(number protowire.Number, _ uint64, region []byte) error {
		if number != regionsField || s.differs {
			return nil
		}
		return s.region(region)
	})
	return s.standings, err == nil && !s.differs && s.found == len(report)
}

// settling compares a report, which is sorted by region as the route is, with a stored route.
type settling struct {
	by        Reporter
	report    []ReportedReplica
	standings []Standing
	// found is how many replicas of the report were found, which are the first ones.
	found   int
	differs bool
}

// regionFields are the fields of a stored region that stand before its replicas.
type regionFields struct {
	epoch, conf, leader uint64
}

func (s *settling) region(record []byte) error {
	var region regionFields
	return state.EachField(record, func(number protowire.Number, n uint64, replica []byte) error {
		switch number {
		case regionEpochField:
			region.epoch = n
		case regionConfField:
			region.conf = n
		case regionLeaderField:
			region.leader = n
		case regionDemotingField:
			s.differs = s.differs || n != 0
		case regionReplicasField:
			return s.replica(region, replica)
		}
		return nil
	})
}

func (s *settling) replica(region regionFields, record []byte) error {
	stored, err := readReplica(record)
	if err != nil || stored.node != uint64(s.by.Node) {
		return err
	}
	role, standing := metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER, Idle
	switch {
	case stored.id == region.leader:
		role, standing = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER, Leading
	case stored.learner != 0:
		role = metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
	}
	if s.found == len(s.report) || stored.generation < s.by.StorageGeneration {
		s.differs = true
		return nil
	}
	r := s.report[s.found]
	s.differs = s.differs || uint64(r.Replica) != stored.id || r.Role != role || r.Demoted || r.LeaderEpoch != region.epoch || r.ConfVersion != region.conf
	s.standings[s.found] = standing
	s.found++
	return nil
}
