package heartbeat

import (
	"context"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// changeInSync proposes the changes of in-sync sets that region leaders on the node ask for, and returns their outcomes.
// Without an outcome the node asks again: a change names the leader_epoch and conf_version that it was planned on, so it is
// carried out once, and only for the process that the node is registered as.
func (s *Session) changeInSync(ctx context.Context, changes []*metasrvpb.InSyncChange) ([]*metasrvpb.InSyncResult, error) {
	if len(changes) == 0 || !s.keepsLeases() {
		return nil, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, s.cfg.Tracker.cfg.Interval, errLate)
	defer cancel()
	cmd := &storagepb.ChangeRegions{}
	for _, c := range changes {
		cmd.Changes = append(cmd.Changes, &storagepb.RegionChange{
			RegionId: c.GetRegionId(), LeaderEpoch: c.GetLeaderEpoch(), ConfVersion: c.GetConfVersion(),
			Change: &storagepb.RegionChange_SetInSync{SetInSync: &storagepb.SetInSync{
				ReplicaIds: c.GetInSyncReplicaIds(), Incarnation: uint64(s.stream.incarnation),
			}},
		})
	}
	out, err := s.cfg.Proposer.Propose(ctx, state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS, Payload: cmd, PlannedTerm: s.cfg.Tracker.term,
	})
	result := &storagepb.ChangeRegionsResult{}
	if err == nil {
		if err = out.Decode(result); err != nil {
			err = metasrv.ErrInternal.With("result of changes of in-sync sets: %v", err)
		}
	}
	if endsStream(err) {
		return nil, err
	}
	if err != nil {
		s.log.Warn("changes of in-sync sets are put off", "changes", len(changes), "error", err)
		return nil, nil
	}
	return inSyncResults(changes, result.GetResults()), nil
}

func inSyncResults(changes []*metasrvpb.InSyncChange, results []*storagepb.RegionChangeResult) []*metasrvpb.InSyncResult {
	var list []*metasrvpb.InSyncResult
	for i, r := range results[:min(len(results), len(changes))] {
		result := &metasrvpb.InSyncResult{
			RegionId: changes[i].GetRegionId(), ReplicaId: changes[i].GetReplicaId(), Refused: r.GetRefusal().GetMessage(),
			LeaderEpoch: r.GetRegion().GetLeaderEpoch(), ConfVersion: r.GetRegion().GetConfVersion(),
		}
		for _, replica := range r.GetRegion().GetReplicas() {
			if replica.GetInSync() {
				result.InSyncReplicaIds = append(result.InSyncReplicaIds, replica.GetReplicaId())
			}
		}
		list = append(list, result)
	}
	return list
}
