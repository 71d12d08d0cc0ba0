package heartbeat

import (
	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Rules are the router's: where replicas belong, and what a report of them calls for. They are pure, and keep nothing
// that they are given.
type Rules interface {
	// Placements calls f with each replica of each table, in any state: in the order of the tables' ids.
	Placements(v state.View, f func(Placement)) error
	// PlacementsOf calls f with each replica of one table.
	PlacementsOf(v state.View, table metasrv.TableID, f func(Placement)) error
	// Concerns calls f with what must be judged again after the changes of one revision: each table, on some nodes. v is a state
	// at or after them. f must not keep nodes.
	Concerns(v state.View, changes []state.Change, f func(table metasrv.TableID, nodes []metasrv.NodeID)) error
	// Agree compares what a node reports of one table with the state, which must be at least as new as the report: read it
	// behind a barrier that began after the report arrived.
	Agree(v state.View, by Reporter, table metasrv.TableID, report []RegionReport) (Agreement, error)
}

// Reporter is the node whose report is judged.
type Reporter struct {
	Node metasrv.NodeID
	// StorageGeneration is that of its storage: replicas that were on an earlier one are lost.
	StorageGeneration uint64
	// KeepsLeases: the node serves regions under leases. Any other is told to drop replicas, and nothing else.
	KeepsLeases bool
}

// Standing is how a reported replica stands to the state, as far as leases go.
type Standing uint8

const (
	// Idle replicas need no lease: they don't lead, by their own report.
	Idle Standing = iota
	// Leading replicas lead their region by their own report and by the state, and know its configuration.
	Leading
	// Outdated replicas lead as Leading ones do, but know an older configuration of their region.
	Outdated
	// Refused replicas lead by their own report, and must not.
	Refused
)

// Agreement is what comparing a node's report of one table with the state came to. Where both agree, Instructions and Gone
// are empty.
type Agreement struct {
	// Standings are those of the replicas of the report, in its order.
	Standings []Standing
	// Instructions bring the node to what the state says.
	Instructions []*metasrvpb.Instruction
	// Gone are replicas of a table that is given up or dropped which the node has no longer.
	Gone []*storagepb.DroppedReplica
	// Absent are replicas that lead or are in sync by the state, and that the node doesn't have.
	Absent []Absence
	// Demoting are the regions that the node leads and hands over.
	Demoting []metasrv.RegionID
	// Waits: something is held back until the state changes in a way that Concerns isn't told of. The table is compared
	// again with each beat.
	Waits bool
}

// Absence is a replica that its node doesn't have.
type Absence struct {
	Region  metasrv.RegionID
	Replica metasrv.ReplicaID
	// Lost: the node has other storage than the replica was on. Otherwise it may not have opened it yet.
	Lost bool
	// SetBack: the node has it, as it was before: it lacks writes that an earlier process of the node had.
	SetBack bool
}
