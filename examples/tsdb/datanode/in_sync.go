package datanode

import (
	"context"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/examples/tsdb/store"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	// shrinkAfter is how long an in-sync replica may lack a write without getting on before it is to leave the in-sync set.
	shrinkAfter = 1500 * time.Millisecond
	// growAfter is how long a replica that comes in must have got on.
	growAfter = 500 * time.Millisecond
)

// review asks metasrv for another in-sync set where followers have stopped to get on, or have caught up. One change is
// under way at a time. passed is the time since the last review.
func (l *leadership) review(passed time.Duration) {
	l.leased() // noted, so that reads are answered when metasrv is away later
	change := l.plan(passed)
	if change == nil {
		return
	}
	s := l.region.service
	s.logger.Info("region asks for another in-sync set", "region_id", l.region.replica.Region(), "replica_id", l.region.replica.ID(),
		"leader_epoch", l.epoch, "conf_version", change.GetConfVersion(), "in_sync", change.GetInSyncReplicaIds())
	s.registration.ChangeInSync(change)
}

// plan returns the change that is to be asked for, nil where none is. A replica that comes in is required from here on: it has
// all that was ever acknowledged, and until the outcome is known nothing is acknowledged that it lacks.
func (l *leadership) plan(passed time.Duration) *metasrvpb.InSyncChange {
	l.mu.Lock()
	defer l.mu.Unlock()
	set := []uint64{uint64(l.region.replica.ID())}
	shrinks := false
	var grows []*follower
	for _, f := range l.followers {
		f.rested += passed
		if f.known && f.confirmed >= l.last {
			f.late = 0
		} else {
			f.late += passed
		}
		switch {
		case f.inSync && f.late > shrinkAfter:
			shrinks = true
		case f.inSync:
			set = append(set, f.id)
		case f.known && f.confirmed >= l.committed && f.late < growAfter && f.rested > growAfter:
			grows = append(grows, f)
		}
	}
	if l.over != nil || l.asked != nil || !shrinks && len(grows) == 0 {
		return nil
	}
	for _, f := range grows {
		f.growing = true
		set = append(set, f.id)
	}
	slices.Sort(set)
	l.asked = &metasrvpb.InSyncChange{
		RegionId: uint64(l.region.replica.Region()), ReplicaId: uint64(l.region.replica.ID()), LeaderEpoch: l.epoch,
		ConfVersion: l.config.GetConfVersion(), InSyncReplicaIds: set,
	}
	return l.asked
}

// outcome takes the outcome of a change, and returns the configuration that it made, nil where it made none.
//
// A refusal may be the answer to a repetition of what was carried out before. So what counts is what is in force now; where
// that is neither the configuration of before nor the one asked for, metasrv's next instruction says what it is.
func (l *leadership) outcome(result *metasrvpb.InSyncResult) *metasrvpb.RegionConfig {
	l.mu.Lock()
	defer l.mu.Unlock()
	asked := l.asked
	if asked == nil || l.over != nil || result.GetLeaderEpoch() != l.epoch {
		return nil
	}
	ids := slices.Sorted(slices.Values(result.GetInSyncReplicaIds()))
	switch {
	case result.GetConfVersion() == asked.GetConfVersion():
		l.asked = nil
		for _, f := range l.followers {
			f.growing = f.growing && slices.Contains(ids, f.id)
			f.rested = -longestPause // not at once again
		}
		l.commit()
		l.broadcast()
		return nil
	case result.GetConfVersion() != asked.GetConfVersion()+1 || !slices.Equal(ids, asked.GetInSyncReplicaIds()):
		return nil
	}
	config := proto.CloneOf(l.config)
	config.ConfVersion = result.GetConfVersion()
	for _, r := range config.GetReplicas() {
		r.InSync = slices.Contains(ids, r.GetReplicaId())
		r.Learner = r.GetLearner() && !r.GetInSync()
	}
	return config
}

// inSyncResult takes the outcome of a change of an in-sync set.
func (s *Service) inSyncResult(result *metasrvpb.InSyncResult) {
	r, err := s.store.Replica(metasrv.RegionID(result.GetRegionId()))
	if err != nil || uint64(r.ID()) != result.GetReplicaId() {
		return
	}
	g := s.region(r)
	l := g.leadership()
	if l == nil {
		return
	}
	if result.GetRefused() != "" {
		s.logger.Warn("another in-sync set was refused", "region_id", r.Region(), "replica_id", r.ID(), "reason", result.GetRefused())
	}
	config := l.outcome(result)
	if config == nil {
		return
	}
	l.configure(config)
	s.begin(func() {
		if err := s.keepConfig(s.ctx, r, config); err != nil && s.ctx.Err() == nil {
			s.logger.Warn("configuration of a region was not stored, metasrv will name it again",
				"region_id", r.Region(), "replica_id", r.ID(), "error", err)
		}
		s.registration.Beat()
	})
}

// keepConfig makes a configuration of the epoch that the replica leads durable, unless it has that or a newer one.
func (s *Service) keepConfig(ctx context.Context, r *store.Replica, config *metasrvpb.RegionConfig) error {
	return r.Change(ctx, func(state *store.State) error {
		if state.Leads() && state.LeaderEpoch == config.GetLeaderEpoch() && config.GetConfVersion() > state.ConfVersion {
			state.ConfVersion, state.Config = config.GetConfVersion(), config
		}
		return nil
	})
}
