package datanode

import (
	"context"
	"errors"
	"fmt"

	"github.com/metasrv/metasrv"
	tsdbpb "github.com/metasrv/metasrv/examples/tsdb/proto/tsdb/v1"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	leaderRole   = metasrvpb.ReplicaRole_REPLICA_ROLE_LEADER
	followerRole = metasrvpb.ReplicaRole_REPLICA_ROLE_FOLLOWER
	learnerRole  = metasrvpb.ReplicaRole_REPLICA_ROLE_LEARNER
)

// Instruct does what metasrv instructs. What was done is durable when it returns; doing it twice does no harm. An
// instruction that names another replica, or an older leader_epoch and conf_version than the replica's, is refused.
func (s *Service) Instruct(ctx context.Context, instruction *metasrvpb.Instruction) error {
	if err := s.opened(); err != nil {
		return err
	}
	switch i := instruction.GetInstruction().(type) {
	case *metasrvpb.Instruction_DropRegion:
		return s.dropInstructed(ctx, i.DropRegion)
	case *metasrvpb.Instruction_OpenRegion:
		return s.openRegion(i.OpenRegion)
	case *metasrvpb.Instruction_CloseRegion:
		return s.closeRegion(i.CloseRegion)
	case *metasrvpb.Instruction_PromoteRegion:
		return s.promote(ctx, i.PromoteRegion)
	case *metasrvpb.Instruction_DemoteRegion:
		return s.demote(ctx, i.DemoteRegion)
	case *metasrvpb.Instruction_FlushRegion:
		return s.flush(ctx, i.FlushRegion)
	case *metasrvpb.Instruction_CatchUpRegion:
		return s.catchUp(ctx, i.CatchUpRegion)
	case *metasrvpb.Instruction_AddLearner:
		return s.addLearner(ctx, i.AddLearner)
	}
	return metasrv.InvalidArgument("instruction", "is none that this datanode knows")
}

// instructed returns the replica that an instruction is about.
func (s *Service) instructed(region, replica uint64) (*store.Replica, error) {
	r, err := s.store.Replica(metasrv.RegionID(region))
	switch {
	case err != nil:
		return nil, err
	case uint64(r.ID()) != replica:
		return nil, fmt.Errorf("region %s: the replica here is %s, not %d: %w", r.Region(), r.ID(), replica, store.ErrNotFound)
	}
	return r, r.Damage()
}

// checkPair returns ErrStaleEpoch for an instruction that is older than what the replica knows.
func checkPair(state *store.State, epoch, conf uint64) error {
	if state.Older(epoch, conf) {
		return fmt.Errorf("%w: the instruction names leader_epoch %d, conf_version %d; the replica is at %d, %d",
			store.ErrStaleEpoch, epoch, conf, state.LeaderEpoch, state.ConfVersion)
	}
	return nil
}

// adopt has a state know a configuration, under an epoch.
func adopt(state *store.State, config *metasrvpb.RegionConfig) {
	state.LeaderEpoch, state.ConfVersion, state.Config = config.GetLeaderEpoch(), config.GetConfVersion(), config
}

// promote has a replica lead. The epoch is durable before anything is done under it, and begins behind the last write that is
// here: the others take back what they have beyond.
func (s *Service) promote(ctx context.Context, i *metasrvpb.PromoteRegion) error {
	config := i.GetConfig()
	r, err := s.instructed(config.GetRegionId(), i.GetReplicaId())
	if err != nil {
		return err
	}
	if config.GetLeaderReplicaId() != i.GetReplicaId() {
		return metasrv.InvalidArgument("config.leader_replica_id", "is %d, not replica %d that is to lead", config.GetLeaderReplicaId(), i.GetReplicaId())
	}
	g := s.region(r)
	if l := g.leadership(); l != nil && l.epoch == config.GetLeaderEpoch() {
		// Known before it is reported: what metasrv hears of, a write must heed.
		l.configure(config)
	}
	g.stopLeading(config.GetLeaderEpoch(), errHandedOver(g))
	g.storing.Lock()
	defer g.storing.Unlock()
	err = r.Change(ctx, func(state *store.State) error {
		if err := checkPair(state, config.GetLeaderEpoch(), config.GetConfVersion()); err != nil {
			return err
		}
		if state.Role != leaderRole || config.GetLeaderEpoch() > state.LeaderEpoch {
			state.Role, state.EpochStart = leaderRole, state.StoredSeq
		}
		state.Demoted = false
		adopt(state, config)
		return nil
	})
	if err != nil {
		return err
	}
	g.lead()
	if l := g.leadership(); l != nil && l.epoch == config.GetLeaderEpoch() {
		l.vouch()
	}
	s.logger.Info("region led", "region_id", r.Region(), "replica_id", r.ID(),
		"leader_epoch", config.GetLeaderEpoch(), "conf_version", config.GetConfVersion())
	return nil
}

// demote ends a leadership. Nothing is acknowledged under it from here on.
func (s *Service) demote(ctx context.Context, i *metasrvpb.DemoteRegion) error {
	config := i.GetConfig()
	r, err := s.instructed(config.GetRegionId(), i.GetReplicaId())
	if err != nil {
		return err
	}
	state := r.State()
	if err := checkPair(&state, config.GetLeaderEpoch(), config.GetConfVersion()); err != nil {
		return err
	}
	g := s.region(r)
	g.stopLeading(config.GetLeaderEpoch()+1, errHandedOver(g))
	err = r.Change(ctx, func(state *store.State) error {
		if err := checkPair(state, config.GetLeaderEpoch(), config.GetConfVersion()); err != nil {
			return err
		}
		if config.GetLeaderReplicaId() != i.GetReplicaId() {
			adoptAsFollower(state, config, i.GetReplicaId())
			return nil
		}
		state.Demoted = state.Role == leaderRole
		adopt(state, config)
		return nil
	})
	if err != nil {
		return err
	}
	s.logger.Info("region led no longer", "region_id", r.Region(), "replica_id", r.ID(),
		"leader_epoch", config.GetLeaderEpoch(), "conf_version", config.GetConfVersion(), "reason", i.GetReason())
	return nil
}

// adoptAsFollower has a state follow the leader of a configuration.
func adoptAsFollower(state *store.State, config *metasrvpb.RegionConfig, replica uint64) {
	state.Role, state.Demoted = followerRole, false
	for _, c := range config.GetReplicas() {
		if c.GetReplicaId() == replica && c.GetLearner() {
			state.Role = learnerRole
		}
	}
	adopt(state, config)
}

// catchUp has a replica follow the leader of an epoch, which feeds it.
func (s *Service) catchUp(ctx context.Context, i *metasrvpb.CatchUpRegion) error {
	config := i.GetConfig()
	r, err := s.instructed(config.GetRegionId(), i.GetReplicaId())
	if err != nil {
		return err
	}
	if config.GetLeaderReplicaId() == i.GetReplicaId() {
		return metasrv.InvalidArgument("config.leader_replica_id", "is replica %d that is to follow", i.GetReplicaId())
	}
	state := r.State()
	if err := checkPair(&state, config.GetLeaderEpoch(), config.GetConfVersion()); err != nil {
		return err
	}
	g := s.region(r)
	g.stopLeading(config.GetLeaderEpoch()+1, errHandedOver(g))
	return r.Change(ctx, func(state *store.State) error {
		if err := checkPair(state, config.GetLeaderEpoch(), config.GetConfVersion()); err != nil {
			return err
		}
		adoptAsFollower(state, config, i.GetReplicaId())
		return nil
	})
}

// addLearner makes an empty replica, which the region leader feeds. One that can't be read is made anew: nothing was ever
// acknowledged because of it.
func (s *Service) addLearner(ctx context.Context, i *metasrvpb.AddLearner) error {
	config := i.GetConfig()
	region := metasrv.RegionID(config.GetRegionId())
	r, err := s.store.Replica(region)
	switch {
	case err == nil && uint64(r.ID()) != i.GetReplicaId():
		return fmt.Errorf("region %s: replica %s is here: %w", region, r.ID(), store.ErrExists)
	case err == nil && r.Damage() == nil:
		s.reopen(r)
		return nil
	case err == nil:
		if err := checkUnreadable(r, config); err != nil {
			return err
		}
		if _, err := s.drop(ctx, region, r.ID(), config.GetLeaderEpoch(), "a learner that can't be read is made anew"); err != nil {
			return err
		}
	}
	r, err = s.store.Create(ctx, &tsdbpb.CreateRegionRequest{
		Route:       &tsdbpb.Route{RegionId: uint64(region), ReplicaId: i.GetReplicaId(), LeaderEpoch: config.GetLeaderEpoch()},
		ConfVersion: config.GetConfVersion(), Role: learnerRole,
		TableName: i.GetTable().GetTableName(), Schema: i.GetTable().GetSchema(),
	})
	if err != nil {
		return err
	}
	s.logger.Info("learner added", "region_id", region, "replica_id", r.ID(),
		"leader_epoch", config.GetLeaderEpoch(), "conf_version", config.GetConfVersion())
	return r.Change(ctx, func(state *store.State) error {
		if state.LeaderEpoch == config.GetLeaderEpoch() && state.ConfVersion == config.GetConfVersion() {
			state.Config = config
		}
		return nil
	})
}

// checkUnreadable returns an error where a damaged replica must not be made anew as a learner: what was known of it before the
// damage shows that it is none any more, so the instruction comes late. Of a file that could not be read from the start on
// nothing is known; such a replica is not reported, so it has not become more than metasrv calls it now.
func checkUnreadable(r *store.Replica, config *metasrvpb.RegionConfig) error {
	state := r.State()
	if state.LeaderEpoch == 0 || state.Role == learnerRole {
		return checkPair(&state, config.GetLeaderEpoch(), config.GetConfVersion())
	}
	return r.Damage()
}

// openRegion has a replica reported and served that is here. It makes none.
func (s *Service) openRegion(i *metasrvpb.OpenRegion) error {
	r, err := s.instructed(i.GetConfig().GetRegionId(), i.GetReplicaId())
	if err != nil {
		return err
	}
	s.reopen(r)
	return nil
}

// closeRegion has a replica neither reported nor served until it is opened again. Its data stays.
func (s *Service) closeRegion(i *metasrvpb.CloseRegion) error {
	r, err := s.instructed(i.GetRegionId(), i.GetReplicaId())
	if err != nil {
		return err
	}
	state := r.State()
	if err := checkPair(&state, i.GetLeaderEpoch(), i.GetConfVersion()); err != nil {
		return err
	}
	g := s.region(r)
	g.mu.Lock()
	g.closed = true
	g.mu.Unlock()
	g.stopLeading(state.LeaderEpoch+1, errClosed(r))
	return nil
}

func errClosed(r *store.Replica) error {
	return invalid(r.Region(), nil, "the replica on this datanode is closed")
}

func (s *Service) reopen(r *store.Replica) {
	g := s.region(r)
	g.mu.Lock()
	g.closed = false
	g.mu.Unlock()
	g.lead()
}

// flush writes out what only SQLite's log has. It is durable there already.
func (s *Service) flush(ctx context.Context, i *metasrvpb.FlushRegion) error {
	r, err := s.instructed(i.GetRegionId(), i.GetReplicaId())
	if err != nil {
		return err
	}
	state := r.State()
	if err := checkPair(&state, i.GetLeaderEpoch(), i.GetConfVersion()); err != nil {
		return err
	}
	return r.Flush(ctx)
}

func (s *Service) dropInstructed(ctx context.Context, d *metasrvpb.DropRegion) error {
	r, err := s.instructed(d.GetRegionId(), d.GetReplicaId())
	if err != nil && !errors.Is(err, store.ErrDamaged) && !errors.Is(err, store.ErrFormat) {
		if errors.Is(err, store.ErrNotFound) && r == nil {
			return s.absent(d, err)
		}
		return err
	}
	state := r.State()
	if err := checkPair(&state, d.GetLeaderEpoch(), d.GetConfVersion()); err != nil {
		return err
	}
	_, err = s.drop(ctx, r.Region(), r.ID(), d.GetLeaderEpoch(), d.GetReason())
	return err
}

// absent returns nil where there is no replica of the region that is to be dropped, an error where another one is.
func (s *Service) absent(d *metasrvpb.DropRegion, other error) error {
	if _, err := s.store.Replica(metasrv.RegionID(d.GetRegionId())); err != nil {
		return nil //nolint:nilerr // it is gone
	}
	return other
}
