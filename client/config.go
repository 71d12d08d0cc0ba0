package client

import (
	"log/slog"
	"net"
	"slices"
	"time"

	"google.golang.org/grpc"

	"github.com/metasrv/metasrv"
)

// Defaults of Config.
const (
	DefaultCallTimeout    = 10 * time.Second
	DefaultAttemptTimeout = 3 * time.Second
	DefaultMinBackoff     = 25 * time.Millisecond
	DefaultMaxBackoff     = time.Second
	DefaultIdleTimeout    = time.Minute
)

// ReadFrom says which members a Client asks for linearizable reads. Each of them gives the same answers; what only the
// metasrv leader knows (Cluster.ListNodes, GetNode, ListRegions, Stats) is asked of it in any case.
type ReadFrom int

const (
	// ReadFromLeader asks the metasrv leader: the least work for the cluster and, in one place, the least delay.
	ReadFromLeader ReadFrom = iota
	// ReadFromAny asks the members in turn, which spreads the load. One that follows asks the metasrv leader how current
	// its state must be, in one exchange for all that wait.
	ReadFromAny
	// ReadFromNearest asks the first of Endpoints that answers, also for stale reads: list the nearest first. It is for
	// clients that are far from the metasrv leader and get large answers.
	ReadFromNearest
)

// Config says how a Client reaches the cluster. Only Endpoints has no default.
type Config struct {
	// Endpoints are gRPC addresses of members, host:port. One that is reachable is enough: the client learns
	// the others. They are tried in this order.
	Endpoints []string
	// ReadFrom says who is asked for linearizable reads; default: the metasrv leader. Where a member can't answer, another
	// one is asked.
	ReadFrom ReadFrom
	// Logger is told of changes of the metasrv leader and of broken heartbeat streams. Default: nowhere.
	Logger *slog.Logger
	// DialOptions are used for every connection. Where there are none, connections are plaintext; whoever
	// gives some gives the transport credentials too.
	DialOptions []grpc.DialOption

	// CallTimeout ends unary calls whose context has no deadline. Default 10 s.
	CallTimeout time.Duration
	// AttemptTimeout is how long the first attempt of a call waits for one member before another is asked. It
	// doubles with each attempt of the call that it ends, so that slow calls succeed too. Default 3 s.
	AttemptTimeout time.Duration
	// MinBackoff is the longest first pause of a call, which is made when every member was asked in vain; each further one
	// is a quarter longer. Pauses are random, from half of that to the whole. Default 25 ms.
	MinBackoff time.Duration
	// MaxBackoff is the longest pause between two attempts that no member asked for. Default 1 s.
	MaxBackoff time.Duration
	// IdleTimeout is how long a connection to a member outside of Endpoints may stay unused. Default 1 min.
	IdleTimeout time.Duration
}

// withDefaults returns the configuration with its zero values filled in.
func (c Config) withDefaults() Config {
	var endpoints []string
	for _, e := range c.Endpoints {
		if !slices.Contains(endpoints, e) {
			endpoints = append(endpoints, e)
		}
	}
	c.Endpoints = endpoints
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{
		{&c.CallTimeout, DefaultCallTimeout},
		{&c.AttemptTimeout, DefaultAttemptTimeout},
		{&c.MinBackoff, DefaultMinBackoff},
		{&c.MaxBackoff, max(DefaultMaxBackoff, c.MinBackoff)},
		{&c.IdleTimeout, DefaultIdleTimeout},
	} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return c
}

// Validate returns metasrv.ErrInvalidArgument naming the field that can't be used. Zero values stand for
// defaults and are valid.
func (c Config) Validate() error {
	if len(c.Endpoints) == 0 {
		return metasrv.InvalidArgument("Endpoints", "names no member")
	}
	for _, e := range c.Endpoints {
		host, port, err := net.SplitHostPort(e)
		if err != nil || host == "" || port == "" {
			return metasrv.InvalidArgument("Endpoints", "%q is not host:port", e)
		}
	}
	if c.ReadFrom < ReadFromLeader || c.ReadFrom > ReadFromNearest {
		return metasrv.InvalidArgument("ReadFrom", "%d is none of ReadFromLeader, ReadFromAny and ReadFromNearest", c.ReadFrom)
	}
	for _, d := range []struct {
		field string
		value time.Duration
	}{
		{"CallTimeout", c.CallTimeout},
		{"AttemptTimeout", c.AttemptTimeout},
		{"MinBackoff", c.MinBackoff},
		{"MaxBackoff", c.MaxBackoff},
		{"IdleTimeout", c.IdleTimeout},
	} {
		if d.value < 0 {
			return metasrv.InvalidArgument(d.field, "%s is negative", d.value)
		}
	}
	if c.MaxBackoff != 0 && c.MaxBackoff < c.MinBackoff {
		return metasrv.InvalidArgument("MaxBackoff", "%s is less than MinBackoff %s", c.MaxBackoff, c.MinBackoff)
	}
	return nil
}
