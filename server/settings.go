package server

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/config"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// settingsPeriod is how often the metasrv leader looks what is set for the whole cluster.
const settingsPeriod = 100 * time.Millisecond

// configuredSince is the cluster version from which on settings are recorded.
const configuredSince = 2

// flags are what this member's command line says of nodes.
type flags struct {
	beats       heartbeat.Config
	repairAfter time.Duration
}

// settings are what is set for the whole cluster, as far as the metasrv leader acts on it again and again.
type settings struct {
	// lease is the length of what is granted, longest that of the longest leases that may run, 0 where that is lease.
	lease, longest time.Duration
	// changes counts those of lease.
	changes     uint64
	repairAfter time.Duration
	// recorded: the state has them. Before that, all that counts is the flags.
	recorded bool
}

// settings returns those of a state.
func (f flags) settings(v state.View) (settings, error) {
	c, err := config.Of(v)
	if err != nil {
		return settings{}, err
	}
	s := settings{
		lease: milliseconds(c.LeaseMs), longest: milliseconds(c.LongestLeaseMs), changes: c.LeaseChanges,
		repairAfter: milliseconds(c.GetRepairAfterMs()), recorded: c.LeaseMs > 0 && c.RepairAfterMs != nil,
	}
	if c.LeaseMs == 0 {
		s.lease = f.beats.Lease
	}
	if c.RepairAfterMs == nil {
		s.repairAfter = f.repairAfter
	}
	return s, nil
}

func milliseconds(ms uint64) time.Duration {
	return time.Duration(ms) * time.Millisecond //nolint:gosec // bounded where it is set
}

func inMilliseconds(d time.Duration) uint64 {
	return uint64(d.Milliseconds()) //nolint:gosec // never negative
}

// tracking returns the configuration of a tracker under these settings. A lease that would end before the next beat is due would
// stop all writes: where this member's own interval is that long, nodes beat more often.
func (f flags) tracking(s settings) heartbeat.Config {
	cfg := f.beats
	cfg.Lease, cfg.Longest = s.lease, s.longest
	cfg.Interval = max(time.Millisecond, min(cfg.Interval, s.lease/minBeats))
	return cfg
}

// minBeats is how many beats a lease must outlast.
const minBeats = 2

// checkLease returns ErrInvalidArgument for a length of leases that this member could not lead with.
func (f flags) checkLease(ms uint64) error {
	least := max(config.MinLease, minBeats*f.beats.Interval)
	if ms < inMilliseconds(least) || ms > inMilliseconds(config.MaxLease) {
		return metasrv.InvalidArgument("lease_ms", "is %d ms; it can be %s (%d heartbeat intervals, or one lost heartbeat stops all writes "+
			"on its node) to %s", ms, least, minBeats, config.MaxLease)
	}
	return nil
}

// checkRepairAfter returns ErrInvalidArgument for a silence after which nothing can be rebuilt.
func (f flags) checkRepairAfter(ms uint64) error {
	if ms > 0 && ms < inMilliseconds(f.beats.DownAfter) || ms > inMilliseconds(config.MaxRepairAfter) {
		return metasrv.InvalidArgument("repair_after_ms", "is %d ms; it can be 0 for never, or %s (--down-after) to %s",
			ms, f.beats.DownAfter, config.MaxRepairAfter)
	}
	return nil
}

// recordSettings records what is set for the whole cluster where nothing is, by this member's flags. Members of an older build
// don't know the command: then it is for later.
func (d *duties) recordSettings(ctx context.Context, term uint64) error {
	view := d.node.View()
	s, err := d.flags.settings(view)
	if err != nil || s.recorded || view.ClusterVersion() < configuredSince {
		return err
	}
	return d.configure(ctx, term, &storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_Found{Found: &storagepb.FoundConfig{
		LeaseMs: inMilliseconds(d.flags.beats.Lease), RepairAfterMs: inMilliseconds(d.flags.repairAfter),
	}}})
}

func (d *duties) configure(ctx context.Context, term uint64, command proto.Message) error {
	_, err := d.node.Propose(ctx, state.Proposal{
		Kind: storagepb.CommandKind_COMMAND_KIND_CONFIGURE_CLUSTER, Payload: command, PlannedTerm: term,
	})
	if err != nil {
		return fmt.Errorf("configure the cluster: %w", err)
	}
	return nil
}

// followSettings acts on what is set for the whole cluster until ctx ends: it has leases granted as long as they are set to be and,
// once none can run any more that is longer, says so in the state.
func (d *duties) followSettings(ctx context.Context, t *term, log *slog.Logger) {
	ticker := time.NewTicker(settingsPeriod)
	defer ticker.Stop()
	since := time.Now() // when what is set now began to count here
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		var now settings
		var version uint32
		var err error
		d.node.Glance(func(v state.View) {
			now, err = d.flags.settings(v)
			version = v.ClusterVersion()
		})
		before := *t.settings.Load()
		switch {
		case err != nil:
		case now != before:
			t.tracker.SetLease(now.lease, now.longest)
			t.settings.Store(&now)
			since = time.Now()
			log.Info("settings of the cluster count now", "lease", now.lease, "longest_lease", now.longest, "repair_after", now.repairAfter)
		case !now.recorded && version >= configuredSince:
			err = d.recordSettings(ctx, t.leadership.Term)
		case now.longest > 0 && time.Since(since) > heartbeat.HeldFor(now.longest):
			err = d.configure(ctx, t.leadership.Term, &storagepb.ConfigureCluster{Change: &storagepb.ConfigureCluster_SettleLease{
				SettleLease: &storagepb.SettleLease{LeaseChanges: now.changes},
			}})
		}
		if err != nil && ctx.Err() == nil {
			log.Warn("settings of the cluster could not be followed yet", "error", err)
		}
	}
}

// compareFlags logs once which of this member's flags say something else than what is set for the whole cluster, as soon as the
// member knows that.
func (s *Server) compareFlags(ctx context.Context) error {
	ticker := time.NewTicker(healthPeriod)
	defer ticker.Stop()
	for {
		if s.usable() {
			own := s.services.flags
			var set settings
			var err error
			s.services.node.Glance(func(v state.View) { set, err = own.settings(v) })
			if err != nil {
				return err
			}
			if set.recorded {
				own.logDifference(s.cfg.Logger, set)
				return nil
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

func (f flags) logDifference(log *slog.Logger, set settings) {
	if set.lease == f.beats.Lease.Truncate(time.Millisecond) && set.repairAfter == f.repairAfter.Truncate(time.Millisecond) {
		return
	}
	log.Info("this member's flags say something else than what is set for the whole cluster, which counts; see: metactl config get",
		"lease", set.lease, "flag_region_lease", f.beats.Lease, "repair_after", set.repairAfter, "flag_repair_after", f.repairAfter)
}
