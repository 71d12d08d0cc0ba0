package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// ClusterState says whether a member without data founds a cluster or waits to be added to one.
type ClusterState string

// The states of the cluster that a new member finds.
const (
	// ClusterNew: a member without data founds the cluster together with the others of InitialCluster.
	ClusterNew ClusterState = "new"
	// ClusterExisting: a member without data waits until the cluster takes it in.
	ClusterExisting ClusterState = "existing"
)

// ErrClusterStateNeeded: the member has no data, and nobody said whether it founds a cluster. Founding again after a loss
// of data would give away what the other members acknowledged, so it is never done by default.
var ErrClusterStateNeeded = errors.New("this member has no data: choose whether it founds a new cluster or waits to be added to an existing one")

// Server is a member as raft knows it.
type Server struct {
	ID       string
	RaftAddr string
}

// Config describes one member.
type Config struct {
	// MemberID names the member for ever; it must be among InitialCluster where the cluster is new.
	MemberID string
	// DataDir holds the log and the image; it is created.
	DataDir string
	// RaftAddr is the address to listen on for other members. The one that they dial is in Member.
	RaftAddr string
	// Member is what the member tells the others of itself. Its id is set to MemberID.
	Member *storagepb.MemberRecord
	// InitialCluster has the founding members. It is read only while the member has no data.
	InitialCluster []Server
	// InitialClusterState must be chosen for a member without data: ErrClusterStateNeeded. One with data goes on.
	InitialClusterState ClusterState
	// Appliers execute the commands.
	Appliers []state.Applier
	// Duties runs in its own goroutine while this member is the metasrv leader. Its context ends the moment
	// the leadership is lost, and the next term's begins when it has returned. An error ends the node.
	Duties func(ctx context.Context, l Leadership) error
	// Network connects the members, TCP by default.
	Network Network
	Logger  *slog.Logger
	Timing  Timing
	Log     LogRetention
	// LogStore says how the log is kept, by raft-boltdb by default. Open returns a LogStoreError where the data folder
	// has one of another kind.
	LogStore LogStore
	// SessionTTL is how long after its last use a session is forgotten. It counts for a cluster in which nothing is
	// configured yet, which is a new one; from then on the replicated configuration does. Default DefaultSessionTTL.
	SessionTTL time.Duration
	// MinFreeDisk is the free space in bytes of the data folder's disk below which writes are refused, 0 for none.
	MinFreeDisk uint64
	// Disk, where it is set, makes each write that is to be on the disk: it calls write, and may wait before and after it.
	// A test has a slow disk by it.
	Disk func(write func() error) error
	// CommandVersion is the highest command version that the member knows: that of this build, unless a test plays another
	// one.
	CommandVersion uint32

	// wrapLog, freeSpace and beforeInstallCall let tests have disks that fail.
	wrapLog           func(logDB) logDB
	freeSpace         func(dir string) (uint64, error)
	beforeInstallCall func(what string)
	// wal lets tests look at segment files, and have small ones.
	wal walOptions
}

// LogRetention says how much of the log is kept.
type LogRetention struct {
	// Trailing entries stay behind the image. A member that lags by less is fed from them, so they must outlast
	// the transfer of a snapshot; one that lags by more gets a snapshot.
	Trailing uint64
	// Bytes bounds the entries that stay: where they are large, fewer than Trailing do. 0: no bound.
	Bytes uint64
	// Threshold is the number of new entries after which older ones are dropped.
	Threshold uint64
	// Interval is how often that is looked at.
	Interval time.Duration
}

// DefaultLogRetention suits states of up to a gigabyte.
func DefaultLogRetention() LogRetention { return RetainEntries(100_000) }

// MinLogEntries is the least number of entries that RetainEntries takes.
const MinLogEntries = minTrailing

// RetainEntries keeps a number of entries, and looks the more often the fewer they are: what comes in between two looks
// stays too.
func RetainEntries(n uint64) LogRetention {
	interval := max(time.Duration(min(n, 100_000))*30*time.Second/100_000, time.Second) //nolint:gosec // is small
	return LogRetention{Trailing: n, Bytes: 1 << 30, Threshold: n / 2, Interval: interval}
}

// Timing holds the intervals of the node.
type Timing struct {
	// Heartbeat is how long a follower waits for the metasrv leader before it stands for election.
	Heartbeat time.Duration
	// Election is how long a candidate waits for votes.
	Election time.Duration
	// LeaderLease is how long a metasrv leader stays one without contact to a majority.
	LeaderLease time.Duration
	// PeerTimeout bounds one exchange with another member.
	PeerTimeout time.Duration
	// Fresh is how often a member that serves no linearizable reads finds out how current its state is, for the age of
	// stale reads. 0: never.
	Fresh time.Duration
	// Flush is how long a change may wait for its place in the image on disk. It is durable in the log
	// before.
	Flush time.Duration
	// FlushBytes of entries, or entries that took FlushReplay to execute, are flushed at once: a member that is killed executes
	// them again at its next start. FlushReplay of 0: no bound.
	FlushBytes  int
	FlushReplay time.Duration
	// Compare is how often members compare the hashes of their states.
	Compare time.Duration
	// DiskTimeout is how long a call to the disk may take before the member ends, so that the others go on without it.
	// 0 means for ever. A flush may take longer, by its size.
	DiskTimeout time.Duration
}

// DefaultTiming is for members in one region on disks of usual speed.
func DefaultTiming() Timing {
	return Timing{
		Heartbeat:   300 * time.Millisecond,
		Election:    300 * time.Millisecond,
		LeaderLease: 200 * time.Millisecond,
		PeerTimeout: 2 * time.Second,
		Fresh:       time.Second,
		Flush:       40 * time.Second,
		FlushBytes:  256 << 20,
		FlushReplay: 3 * time.Second,
		Compare:     10 * time.Second,
		DiskTimeout: 8 * time.Second,
	}
}

func (c *Config) setDefaults() {
	if c.Network == nil {
		c.Network = TCP{}
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.Timing == (Timing{}) {
		c.Timing = DefaultTiming()
	}
	if c.Timing.Compare == 0 {
		c.Timing.Compare = DefaultTiming().Compare
	}
	if c.Log == (LogRetention{}) {
		c.Log = DefaultLogRetention()
	}
	if c.CommandVersion == 0 {
		c.CommandVersion = machine.EntryVersion
	}
	if c.Disk == nil {
		c.Disk = atOnce
	}
	if c.SessionTTL == 0 {
		c.SessionTTL = DefaultSessionTTL
	}
	if c.Duties == nil {
		c.Duties = func(ctx context.Context, _ Leadership) error {
			<-ctx.Done()
			return nil
		}
	}
}

// atOnce is a disk that is as fast as it can.
func atOnce(write func() error) error { return write() }

// Validate returns an error that names the first field at fault.
func (c *Config) Validate() error {
	switch {
	case c.MemberID == "":
		return errors.New("MemberID is empty")
	case c.DataDir == "":
		return errors.New("DataDir is empty")
	case c.RaftAddr == "":
		return errors.New("RaftAddr is empty")
	case c.Member.GetRaftAddr() == "":
		return errors.New("Member.RaftAddr is empty")
	case c.SessionTTL < time.Millisecond:
		return fmt.Errorf("SessionTTL is %s, it must be a millisecond at least", c.SessionTTL)
	case c.LogStore != "" && c.LogStore != LogStoreBolt && c.LogStore != LogStoreWAL:
		return fmt.Errorf("LogStore is %q, want %q or %q", c.LogStore, LogStoreBolt, LogStoreWAL)
	case !slices.Contains([]ClusterState{ClusterNew, ClusterExisting, ""}, c.InitialClusterState):
		return fmt.Errorf("InitialClusterState is %q, want %q or %q", c.InitialClusterState, ClusterNew, ClusterExisting)
	}
	if c.InitialClusterState != ClusterNew {
		return nil
	}
	return c.validateInitialCluster()
}

func (c *Config) validateInitialCluster() error {
	ids, addrs := map[string]bool{}, map[string]bool{}
	for _, s := range c.InitialCluster {
		switch {
		case s.ID == "" || s.RaftAddr == "":
			return fmt.Errorf("InitialCluster has an entry without id or address: %q=%q", s.ID, s.RaftAddr)
		case ids[s.ID]:
			return fmt.Errorf("InitialCluster names member %q twice", s.ID)
		case addrs[s.RaftAddr]:
			return fmt.Errorf("InitialCluster names address %s twice", s.RaftAddr)
		case s.ID == c.MemberID && s.RaftAddr != c.Member.RaftAddr:
			return fmt.Errorf("InitialCluster has %s for this member %q, which is reached at %s", s.RaftAddr, s.ID, c.Member.RaftAddr)
		}
		ids[s.ID], addrs[s.RaftAddr] = true, true
	}
	if !ids[c.MemberID] {
		return fmt.Errorf("InitialCluster doesn't name this member %q", c.MemberID)
	}
	return nil
}
