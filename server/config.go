package server

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/config"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/raftfsm"
)

// Default addresses: loopback, so that nothing is open to others unless asked for.
const (
	DefaultGRPCAddr = "127.0.0.1:3002"
	DefaultRaftAddr = "127.0.0.1:3003"
	DefaultHTTPAddr = "127.0.0.1:3004"
)

// Config is how one member runs. Its zero value with Default is `metasrv dev` without a data folder.
type Config struct {
	// NodeID names the member in the cluster for ever.
	NodeID string
	// DataDir is the folder of the member's log and image.
	DataDir string

	// Addresses to listen on, host:port.
	GRPCAddr, RaftAddr, HTTPAddr string
	// PprofAddr serves Go's profiler, on loopback only. Empty: nothing does.
	PprofAddr string
	// Addresses that others dial, where they differ from those above. Empty: the address listened on.
	AdvertiseGRPCAddr, AdvertiseRaftAddr string

	// InitialCluster holds the members that form a new cluster, this one included. Empty: this one alone.
	InitialCluster []raftfsm.Server
	// InitialClusterState is needed for a member without data: it founds a cluster, or waits to be added to one.
	InitialClusterState raftfsm.ClusterState

	// LogStore says how the log is kept; the data folder of a member keeps what it began with.
	LogStore raftfsm.LogStore

	// Insecure allows to listen beyond this machine without encryption.
	Insecure bool

	// HeartbeatInterval is how often nodes are asked to send heartbeats.
	HeartbeatInterval time.Duration
	// SuspectAfter is how long a node may be silent before it gets no new regions.
	SuspectAfter time.Duration
	// SuspectPhi is how unlikely a silence must be, by the node's own history, for the same before that: 8 for one in 10^8. 0 has
	// only SuspectAfter count.
	SuspectPhi float64
	// DownAfter is how long a node may be silent before it counts as down.
	DownAfter time.Duration
	// RepairAfter is how long a datanode may be silent before its replicas are rebuilt elsewhere; 0: nothing is rebuilt. As
	// RegionLease, it says only what a cluster begins with: then it is set for the whole cluster.
	RepairAfter time.Duration
	// RegionLease is how long a node may serve its regions after a heartbeat that was answered.
	RegionLease time.Duration

	// MinFreeDisk is the free space in bytes of the data folder's disk below which writes are refused.
	MinFreeDisk uint64

	// ShutdownTimeout bounds how long an orderly stop waits for requests under way.
	ShutdownTimeout time.Duration

	// Version of the program, for display.
	Version string
	Logger  *slog.Logger
	// Network connects the members, TCP by default.
	Network raftfsm.Network
	// Listen opens the ports for clients, TCP by default.
	Listen func(addr string) (net.Listener, error)
	// Timing holds the intervals of raft, raftfsm.DefaultTiming by default.
	Timing raftfsm.Timing
	// Log says how much of the log is kept, raftfsm.DefaultLogRetention by default.
	Log raftfsm.LogRetention
	// SessionTTL and Disk are those of raftfsm.Config, with the same defaults.
	SessionTTL time.Duration
	Disk       func(write func() error) error
}

// Default returns a configuration in which only NodeID and DataDir are missing.
func Default() Config {
	beats := heartbeat.DefaultConfig()
	return Config{
		GRPCAddr:            DefaultGRPCAddr,
		RaftAddr:            DefaultRaftAddr,
		HTTPAddr:            DefaultHTTPAddr,
		InitialClusterState: raftfsm.ClusterNew,
		LogStore:            raftfsm.LogStoreBolt,
		HeartbeatInterval:   beats.Interval,
		SuspectAfter:        beats.SuspectAfter,
		SuspectPhi:          beats.SuspectPhi,
		DownAfter:           beats.DownAfter,
		RepairAfter:         10 * time.Minute,
		RegionLease:         beats.Lease,
		MinFreeDisk:         256 << 20,
		ShutdownTimeout:     5 * time.Second,
		Version:             "devel",
		Logger:              slog.Default(),
		Network:             raftfsm.TCP{},
		Listen:              listenTCP,
		Timing:              raftfsm.DefaultTiming(),
		Log:                 raftfsm.DefaultLogRetention(),
	}
}

// heartbeats returns the part of the configuration that is about nodes. A new metasrv leader judges a node that
// it never heard after DownAfter, when the node would be down had it been heard.
func (c *Config) heartbeats() heartbeat.Config {
	return heartbeat.Config{
		Interval: c.HeartbeatInterval, SuspectAfter: c.SuspectAfter, SuspectPhi: c.SuspectPhi, DownAfter: c.DownAfter, Grace: c.DownAfter,
		Lease: c.RegionLease,
	}
}

// ConfigError says which option is wrong, and how to set it right.
type ConfigError struct {
	// Flag is the option as the command line has it, without dashes: grpc-addr.
	Flag    string
	Message string
}

func (e *ConfigError) Error() string {
	return fmt.Sprintf("--%s (or %s): %s", e.Flag, EnvName(e.Flag), e.Message)
}

// EnvName returns the name that an option has in the environment: METASRV_GRPC_ADDR for grpc-addr.
func EnvName(flag string) string {
	return "METASRV_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

func wrong(flag, format string, args ...any) error {
	return &ConfigError{Flag: flag, Message: fmt.Sprintf(format, args...)}
}

// Validate returns a ConfigError for each option that is wrong, joined.
func (c *Config) Validate() error {
	return errors.Join(c.validateIdentity(), c.validateAddresses(), c.validateCluster(), c.validateTimes())
}

func (c *Config) validateIdentity() error {
	var errs []error
	if c.NodeID == "" {
		errs = append(errs, wrong("node-id", "is required; give each member a name of its own, for example m1"))
	} else if err := validateMemberID(c.NodeID); err != nil {
		errs = append(errs, wrong("node-id", "%v", err))
	}
	if c.DataDir == "" {
		errs = append(errs, wrong("data-dir", "is required; name a folder on a local disk that only this member uses"))
	}
	if s := c.LogStore; s != "" && s != raftfsm.LogStoreBolt && s != raftfsm.LogStoreWAL {
		errs = append(errs, wrong("log-store", "%q is neither %s nor %s", s, raftfsm.LogStoreBolt, raftfsm.LogStoreWAL))
	}
	return errors.Join(errs...)
}

// validateMemberID returns ErrInvalidArgument for what can't be the name of a member.
func validateMemberID(id string) error {
	if err := metasrv.ValidateName("id", id); err != nil || strings.ContainsAny(id, "=, ") {
		return metasrv.InvalidArgument("", "%q can't be the name of a member: use letters, digits and '-', for example m1", id)
	}
	return nil
}

func (c *Config) validateAddresses() error {
	var errs []error
	for _, a := range []struct{ flag, addr string }{
		{"grpc-addr", c.GRPCAddr}, {"raft-addr", c.RaftAddr}, {"http-addr", c.HTTPAddr},
	} {
		errs = append(errs, c.validateListen(a.flag, a.addr))
	}
	errs = append(errs, c.validatePprof(),
		validateAdvertised("advertise-grpc-addr", c.AdvertiseGRPCAddr, "grpc-addr", c.GRPCAddr),
		validateAdvertised("advertise-raft-addr", c.AdvertiseRaftAddr, "raft-addr", c.RaftAddr))
	return errors.Join(errs...)
}

func (c *Config) validateListen(flag, addr string) error {
	host, err := splitAddr(addr)
	if err != nil {
		return wrong(flag, "%q is not an address: %v; write host:port, for example 127.0.0.1:3002", addr, err)
	}
	if !c.Insecure && !loopback(host) {
		return wrong(flag, "%s can be reached from other machines, and metasrv does not encrypt yet: whoever "+
			"reaches it can read and change the metadata. Add --insecure if that network is trusted, or listen on 127.0.0.1",
			addr)
	}
	return nil
}

// validatePprof refuses a profiler that others can reach, whatever --insecure says.
func (c *Config) validatePprof() error {
	if c.PprofAddr == "" {
		return nil
	}
	host, err := splitAddr(c.PprofAddr)
	switch {
	case err != nil:
		return wrong("pprof-addr", "%q is not an address: %v; write host:port, for example 127.0.0.1:3005", c.PprofAddr, err)
	case !loopback(host):
		return wrong("pprof-addr", "%s can be reached from other machines, and profiles show what this process does; "+
			"listen on 127.0.0.1 and reach it through ssh", c.PprofAddr)
	}
	return nil
}

// validateAdvertised checks the address that others dial, which is the one listened on where it is not set.
func validateAdvertised(flag, addr, listenFlag, listen string) error {
	if addr == "" {
		if host, err := splitAddr(listen); err == nil && unspecified(host) {
			return wrong(flag, "is needed, since others can't dial --%s %s; name the address at which they reach this member",
				listenFlag, listen)
		}
		return nil
	}
	host, err := splitAddr(addr)
	switch {
	case err != nil:
		return wrong(flag, "%q is not an address: %v; write host:port", addr, err)
	case unspecified(host):
		return wrong(flag, "%s can't be dialled; name the address at which others reach this member", addr)
	}
	return nil
}

func (c *Config) validateCluster() error {
	var errs []error
	if s := c.InitialClusterState; s != "" && s != raftfsm.ClusterNew && s != raftfsm.ClusterExisting {
		errs = append(errs, wrong("initial-cluster-state", "%q is neither new nor existing", c.InitialClusterState))
	}
	if len(c.InitialCluster) == 0 {
		return errors.Join(errs...)
	}
	addresses, own := map[string]string{}, false
	for _, p := range c.InitialCluster {
		if other, taken := addresses[p.RaftAddr]; taken {
			errs = append(errs, wrong("initial-cluster", "members %s and %s have the same address %s", other, p.ID, p.RaftAddr))
		}
		addresses[p.RaftAddr] = p.ID
		if p.ID != c.NodeID {
			continue
		}
		own = true
		if advertised := c.advertisedRaft(); p.RaftAddr != advertised {
			errs = append(errs, wrong("initial-cluster", "has %s for member %s, but that member is reached at %s; make it the same as "+
				"--advertise-raft-addr (or --raft-addr)", p.RaftAddr, p.ID, advertised))
		}
	}
	if !own {
		errs = append(errs, wrong("initial-cluster", "has the members %s, but not this one, --node-id %s",
			strings.Join(memberIDs(c.InitialCluster), ", "), c.NodeID))
	}
	return errors.Join(errs...)
}

func (c *Config) validateTimes() error {
	var errs []error
	if c.HeartbeatInterval < time.Millisecond {
		errs = append(errs, wrong("heartbeat-interval", "%s is shorter than 1ms", c.HeartbeatInterval))
	}
	if c.SuspectAfter <= c.HeartbeatInterval {
		errs = append(errs, wrong("suspect-after", "%s must be longer than --heartbeat-interval %s, or every node is suspect",
			c.SuspectAfter, c.HeartbeatInterval))
	}
	if c.DownAfter <= c.SuspectAfter {
		errs = append(errs, wrong("down-after", "%s must be longer than --suspect-after %s", c.DownAfter, c.SuspectAfter))
	}
	if c.RepairAfter < 0 || c.RepairAfter > 0 && c.RepairAfter < c.DownAfter {
		errs = append(errs, wrong("repair-after", "%s is shorter than --down-after %s; 0 means never", c.RepairAfter, c.DownAfter))
	}
	if c.RegionLease > config.MaxLease {
		errs = append(errs, wrong("region-lease", "%s is longer than %s", c.RegionLease, config.MaxLease))
	}
	if c.RegionLease < minBeats*c.HeartbeatInterval {
		errs = append(errs, wrong("region-lease", "%s must be at least twice as long as --heartbeat-interval %s, or one lost heartbeat "+
			"stops all writes on its node", c.RegionLease, c.HeartbeatInterval))
	}
	if t := c.Timing.DiskTimeout; t < 0 || t > 0 && t < time.Second {
		errs = append(errs, wrong("disk-timeout", "%s is too short for a disk: use 1s or more, or 0 to wait for ever", t))
	}
	if c.ShutdownTimeout <= 0 {
		errs = append(errs, wrong("shutdown-timeout", "%s is not a time span above 0", c.ShutdownTimeout))
	}
	return errors.Join(errs...)
}

func (c *Config) advertisedRaft() string {
	if c.AdvertiseRaftAddr != "" {
		return c.AdvertiseRaftAddr
	}
	return c.RaftAddr
}

// ParseInitialCluster reads "id=raft-addr,id=raft-addr".
func ParseInitialCluster(s string) ([]raftfsm.Server, error) {
	if strings.TrimSpace(s) == "" {
		return nil, nil
	}
	var peers []raftfsm.Server
	seen := map[string]bool{}
	for part := range strings.SplitSeq(s, ",") {
		id, addr, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok || id == "" {
			return nil, wrong("initial-cluster", "%q is not id=host:port", part)
		}
		if _, err := splitAddr(addr); err != nil {
			return nil, wrong("initial-cluster", "address of member %s: %q: %v", id, addr, err)
		}
		if seen[id] {
			return nil, wrong("initial-cluster", "names member %s twice", id)
		}
		seen[id] = true
		peers = append(peers, raftfsm.Server{ID: id, RaftAddr: addr})
	}
	return peers, nil
}

func memberIDs(peers []raftfsm.Server) []string {
	ids := make([]string, len(peers))
	for i, p := range peers {
		ids[i] = p.ID
	}
	return ids
}

func splitAddr(addr string) (host string, err error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if n, err := strconv.Atoi(port); err != nil || n < 0 || n > 65535 {
		return "", fmt.Errorf("%q is not a port", port)
	}
	return host, nil
}

func loopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}

// unspecified reports whether a host means every address of this machine.
func unspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}
