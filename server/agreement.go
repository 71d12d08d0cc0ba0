package server

import (
	"slices"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/heartbeat/digest"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// rules are the router's, in the words of package heartbeat.
type rules struct{}

var _ heartbeat.Rules = rules{}

// Placements implements heartbeat.Rules.
func (rules) Placements(v state.View, f func(heartbeat.Placement)) error {
	return router.Placements(v, func(p router.Placement) { f(placementOf(p)) })
}

// PlacementsOf implements heartbeat.Rules.
func (rules) PlacementsOf(v state.View, table metasrv.TableID, f func(heartbeat.Placement)) error {
	return router.PlacementsOf(v, table, func(p router.Placement) { f(placementOf(p)) })
}

func placementOf(p router.Placement) heartbeat.Placement {
	return heartbeat.Placement{
		Table: p.Table, Node: p.Node, StorageGeneration: p.StorageGeneration, Exact: p.Settled,
		Sum: digest.Replica{
			RegionID: uint64(p.Report.Region), ReplicaID: uint64(p.Report.Replica), LeaderEpoch: p.Report.LeaderEpoch,
			ConfVersion: p.Report.ConfVersion, Role: p.Report.Role,
		}.Sum(),
	}
}

// Concerns implements heartbeat.Rules.
func (rules) Concerns(v state.View, changes []state.Change, f func(metasrv.TableID, []metasrv.NodeID)) error {
	return router.Concerned(v, changes, f)
}

// Agree implements heartbeat.Rules. While a restored or recovered state is not confirmed nothing is dropped, for the node may
// have what that state has lost. The end of a quarantine has no revision, so what would be dropped waits for it.
func (rules) Agree(v state.View, by heartbeat.Reporter, table metasrv.TableID, report []heartbeat.RegionReport) (heartbeat.Agreement, error) {
	found, err := router.Agree(v, router.Reporter(by), table, each(report, reported), addresses(v))
	if err != nil {
		return heartbeat.Agreement{}, err
	}
	asked := len(found.Instructions)
	if asked > 0 && quarantined(v) != nil {
		found.Instructions = slices.DeleteFunc(found.Instructions, func(i *metasrvpb.Instruction) bool { return i.GetDropRegion() != nil })
	}
	return heartbeat.Agreement{
		Standings:    each(found.Standings, func(s router.Standing) heartbeat.Standing { return standings[s] }),
		Instructions: found.Instructions,
		Gone:         found.Gone,
		Demoting:     found.Demoting,
		Absent: each(found.Absent, func(a router.Absence) heartbeat.Absence {
			return heartbeat.Absence{Region: a.Region, Replica: a.Replica, Lost: a.Lost}
		}),
		Waits: len(found.Instructions) < asked,
	}, nil
}

// standings are the router's in the words of package heartbeat.
var standings = [...]heartbeat.Standing{
	router.Idle: heartbeat.Idle, router.Leading: heartbeat.Leading, router.Outdated: heartbeat.Outdated, router.Refused: heartbeat.Refused,
}

func reported(r heartbeat.RegionReport) router.ReportedReplica {
	return router.ReportedReplica{
		Region: r.Region, Replica: r.Replica, LeaderEpoch: r.LeaderEpoch, ConfVersion: r.ConfVersion, Role: r.Role, Demoted: r.Demoted,
	}
}
