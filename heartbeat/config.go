package heartbeat

import (
	"time"

	"github.com/metasrv/metasrv"
)

// Config says when a silent node is suspected and given up.
type Config struct {
	// Interval is the time between two beats that nodes are asked for. Default 1 s.
	Interval time.Duration
	// SuspectAfter is the silence after which a node gets no new replicas. Default 3 s.
	SuspectAfter time.Duration
	// SuspectPhi is how unlikely a silence is, by the node's own history, from which it gets none before that: 8 for one in 10^8,
	// which is the default. 0 is never.
	SuspectPhi float64
	// DownAfter is the silence after which a node counts as down. Default 10 s.
	DownAfter time.Duration
	// Grace is how long a new metasrv leader waits before it judges nodes that it has never heard. At least
	// DownAfter, which is the default: before, their silence may be the leader's own newness.
	Grace time.Duration
	// Lease is how long a node may serve its regions after a request, by its own clock from when it sent that. Default 3 s.
	Lease time.Duration
	// Longest is the length of the longest lease that may run: one that was granted before Lease became shorter. 0: Lease.
	Longest time.Duration
}

// DefaultConfig returns the default of every field.
func DefaultConfig() Config {
	return Config{
		Interval: time.Second, SuspectAfter: 3 * time.Second, DownAfter: 10 * time.Second, Grace: 10 * time.Second,
		Lease: 3 * time.Second, SuspectPhi: 8,
	}
}

// Validate returns ErrInvalidArgument, naming the field at fault, for a configuration that can't work.
func (c Config) Validate() error {
	switch {
	case c.Interval < time.Millisecond:
		return metasrv.InvalidArgument("heartbeat_interval", "%s is shorter than 1ms", c.Interval)
	case c.SuspectAfter <= c.Interval:
		return metasrv.InvalidArgument("suspect_after", "%s is not longer than heartbeat_interval %s", c.SuspectAfter, c.Interval)
	case c.DownAfter <= c.SuspectAfter:
		return metasrv.InvalidArgument("down_after", "%s is not longer than suspect_after %s", c.DownAfter, c.SuspectAfter)
	case c.Grace < c.DownAfter:
		return metasrv.InvalidArgument("grace", "%s is shorter than down_after %s", c.Grace, c.DownAfter)
	case c.Lease <= c.Interval:
		return metasrv.InvalidArgument("region_lease", "%s is not longer than heartbeat_interval %s", c.Lease, c.Interval)
	}
	return nil
}
