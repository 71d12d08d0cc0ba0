package heartbeat

import (
	"context"
	"errors"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// maxInstructions bounds one answer. What is left comes with a later one, when the first are done.
const maxInstructions = 1024

// ReportedReplica is one line of a node's full report.
type ReportedReplica struct {
	Region      metasrv.RegionID
	Replica     metasrv.ReplicaID
	LeaderEpoch uint64
	ConfVersion uint64
}

// PlanDrops compares a node's full report with the routes. It returns the reported replicas that the node
// should drop, and the replicas of tables that are ABORTING or DROPPING that the report no longer shows. It
// is pure: the answer depends on its arguments only. It must not keep the report.
type PlanDrops func(v state.View, node metasrv.NodeID, report []ReportedReplica) ([]*metasrvpb.DropRegion, []*storagepb.DroppedReplica)

// verdict remembers that a report called for nothing, for the same report in the same state still doesn't.
type verdict struct {
	valid    bool
	version  uint64
	identity uint64
	// report is reused from beat to beat.
	report []ReportedReplica
}

// drops returns what the node is to drop, and confirms what it has dropped.
//
// Both are decided behind a barrier that began after the report arrived (rule 25). That answers the races
// between reports and changes of the state:
//   - A node has a replica only after the create that named it was committed. The barrier's state holds every
//     such create, so a replica that is unknown there was removed, and is not one that is still unheard of.
//   - The report may be older than the barrier's state. Of a table that is CREATING nothing is asked and
//     nothing confirmed, so a report from before the create harms nothing. If the table has been given up
//     since, such a report confirms a replica that is being created at this moment. Then the table's records
//     go, and the next report shows a replica that no record names: it is dropped as unknown. The same holds
//     for a replica that a frontend creates late.
//   - A report that still shows a replica which is gone by now makes the node drop it twice, which does no
//     harm: the instruction names the replica id, and no other replica ever has it.
//   - A confirmation is proposed for this term only, and names the incarnation that reported. A leader that
//     was deposed confirms nothing.
//
// The local state is asked first, because nearly always there is nothing to do, and then no barrier is needed.
func (s *Session) drops(ctx context.Context, req *metasrvpb.HeartbeatRequest) ([]*metasrvpb.DropRegion, error) {
	if !req.GetFullReport() || s.stream.legacy || RoleOf(s.record) != metasrvpb.NodeRole_NODE_ROLE_DATANODE {
		return nil, nil
	}
	version, view := s.planView()
	sum := identity(req.GetRegionStats())
	if s.verdict.valid && s.verdict.version == version && s.verdict.identity == sum {
		return nil, nil
	}
	s.verdict.valid = false
	report := s.reported(req.GetRegionStats())
	drop, confirmed := s.cfg.PlanDrops(view, s.stream.id, report)
	if len(drop) == 0 && len(confirmed) == 0 {
		s.verdict.valid, s.verdict.version, s.verdict.identity = true, version, sum
		return nil, nil
	}
	drop, err := s.decide(ctx, report)
	switch {
	case err == nil:
		return drop, nil
	case ctx.Err() != nil, errors.Is(err, metasrv.ErrNotLeader), errors.Is(err, metasrv.ErrStaleTerm):
		return nil, err
	}
	// The beat has been taken, and the next one brings the same to decide.
	s.log.Warn("drop of replicas is put off", "error", err)
	return drop, nil
}

// planView returns the local state with the number that stands for what PlanDrops reads of it. The number is
// taken first: one that is older than the view only makes the next beat compare again.
func (s *Session) planView() (uint64, state.View) {
	if s.cfg.PlanVersion != nil {
		version := s.cfg.PlanVersion()
		return version, s.cfg.Viewer.View()
	}
	view := s.cfg.Viewer.View()
	return view.Revision(), view
}

// decide plans behind a barrier, proposes what is confirmed, and returns what is to be dropped. That is
// returned also where only the confirmation failed.
func (s *Session) decide(ctx context.Context, report []ReportedReplica) ([]*metasrvpb.DropRegion, error) {
	// An answer that waits longer than to the next beat would make the node doubt its stream.
	ctx, cancel := context.WithTimeout(ctx, s.cfg.Tracker.cfg.Interval)
	defer cancel()
	view, err := s.cfg.Barrier.Barrier(ctx)
	if err != nil {
		return nil, err
	}
	drop, confirmed := s.cfg.PlanDrops(view, s.stream.id, report)
	if len(confirmed) == 0 {
		return drop, nil
	}
	_, err = s.cfg.Proposer.Propose(ctx, state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CONFIRM_DROPPED,
		Payload: &storagepb.ConfirmDropped{
			NodeId: uint64(s.stream.id), Incarnation: uint64(s.stream.incarnation), Replicas: confirmed,
		},
		PlannedTerm: s.cfg.Tracker.term,
	})
	return drop, err
}

func (s *Session) reported(stats []*metasrvpb.RegionStat) []ReportedReplica {
	report := s.verdict.report[:0]
	for _, stat := range stats {
		report = append(report, ReportedReplica{
			Region:      metasrv.RegionID(stat.GetRegionId()),
			Replica:     metasrv.ReplicaID(stat.GetReplicaId()),
			LeaderEpoch: stat.GetLeaderEpoch(),
			ConfVersion: stat.GetConfVersion(),
		})
	}
	s.verdict.report = report
	return report
}

func encodeDrops(drops []*metasrvpb.DropRegion) [][]byte {
	if len(drops) == 0 {
		return nil
	}
	drops = drops[:min(len(drops), maxInstructions)]
	payload := make([][]byte, len(drops))
	for i, drop := range drops {
		payload[i] = state.Encode(&metasrvpb.Instruction{Instruction: &metasrvpb.Instruction_DropRegion{DropRegion: drop}})
	}
	return payload
}
