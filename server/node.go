package server

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	"github.com/metasrv/metasrv/config"
	"github.com/metasrv/metasrv/heartbeat"
	"github.com/metasrv/metasrv/kv"
	"github.com/metasrv/metasrv/lock"
	"github.com/metasrv/metasrv/procedure"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm"
	"github.com/metasrv/metasrv/raftfsm/snapshot"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/router"
)

// Membership changes the members of the cluster, on the metasrv leader.
type Membership interface {
	AddMember(ctx context.Context, server raftfsm.Server, change raftfsm.Change) (uint64, error)
	PromoteMember(ctx context.Context, id string, change raftfsm.Change) (uint64, error)
	RemoveMember(ctx context.Context, id string, allowed raftfsm.Removal, change raftfsm.Change) (uint64, error)
	UpdateMember(ctx context.Context, server raftfsm.Server, change raftfsm.Change) (uint64, error)
	TransferLeadership(ctx context.Context, id string) (string, error)
}

var _ Node = (*raftfsm.Node)(nil)

// Node is the part of a member that replicates: what the services need of raftfsm.Node.
type Node interface {
	state.Proposer
	state.Barrier
	state.Viewer
	state.Feed
	Membership

	// ReadBarrier returns a view that contains every command acknowledged by any member before the call, on any member
	// that reaches the metasrv leader.
	ReadBarrier(ctx context.Context) (state.View, error)
	// Age returns how far a view that is taken after the call may be behind at most: it contains every command that was
	// acknowledged longer ago than that before the call. False: that is not known.
	Age() (time.Duration, bool)
	// WaitRevision returns a view at or after a revision, as soon as this member has one.
	WaitRevision(ctx context.Context, revision uint64) (state.View, error)
	// Glance runs use on the present state, between two commands: for a look that takes microseconds and is repeated again
	// and again. What it shows must not be kept.
	Glance(use func(state.View))
	// Leader returns the metasrv leader as this member knows it. The record may lack addresses.
	Leader() (*storagepb.MemberRecord, bool)
	// Leadership returns the term of this member as metasrv leader, if it is that, and ready.
	Leadership() (raftfsm.Leadership, bool)
	Members() []raftfsm.Member
	Status() raftfsm.Status
	// Hashes returns the hashes of the states of this member.
	Hashes() raftfsm.Hashes
	// Shortage returns ErrDiskFull where the disks of too many members are full for a majority to take anything.
	Shortage() error
	// Snapshot returns the present state, for a backup.
	Snapshot() snapshot.Snapshot
	// WhileMapped runs use while log and image stay mapped where they are, or not at all.
	WhileMapped(use func())
	// Done is closed when the node failed and the process must end; Err then says why.
	Done() <-chan struct{}
	Err() error
	// Close hands leadership over, flushes and closes.
	Close(ctx context.Context) error
}

// leader returns the metasrv leader in its public form, nil where this member knows none.
func (s *services) leader() *metasrvpb.Member {
	record, ok := s.node.Leader()
	if !ok {
		return nil
	}
	m := memberOf(record)
	m.Leader, m.Voter = true, true
	return m
}

// leaderElsewhere returns the metasrv leader where it is another member than this one.
func (s *services) leaderElsewhere() *metasrvpb.Member {
	if m := s.leader(); m.GetId() != s.memberID {
		return m
	}
	return nil
}

// requireLeader returns ErrNotLeader or ErrNotReady unless this member is the metasrv leader and does its duties.
func (s *services) requireLeader() error {
	l, ok := s.node.Leadership()
	if t := s.term.Load(); ok && t != nil && t.leadership.Term == l.Term {
		return nil
	}
	return s.notLeader()
}

// notLeader says why this member does not answer what belongs to the metasrv leader.
func (s *services) notLeader() error {
	record, ok := s.node.Leader()
	if !ok || record.GetId() == s.memberID {
		if err := s.node.Shortage(); err != nil {
			return err
		}
	}
	switch {
	case !ok:
		return metasrv.ErrNotLeader.With("there is no metasrv leader at present")
	case record.GetId() == s.memberID:
		return metasrv.ErrNotReady.With("member %s is taking over as metasrv leader", s.memberID)
	}
	return metasrv.ErrNotLeader.With("member %s is not the metasrv leader, %s at %q is", s.memberID, record.GetId(), record.GetGrpcAddr())
}

func memberOf(r *storagepb.MemberRecord) *metasrvpb.Member {
	return &metasrvpb.Member{
		Id: r.GetId(), RaftAddr: r.GetRaftAddr(), GrpcAddr: r.GetGrpcAddr(), HttpAddr: r.GetHttpAddr(), Version: r.GetVersion(),
	}
}

// openNode opens the replicated node of a member.
func openNode(s *Server) (Node, error) {
	cfg := &s.cfg
	raftAddr := advertised(cfg.AdvertiseRaftAddr, s.listeners.raft)
	founders := cfg.InitialCluster
	if len(founders) == 0 && cfg.InitialClusterState != raftfsm.ClusterExisting {
		founders = []raftfsm.Server{{ID: cfg.NodeID, RaftAddr: raftAddr}}
	}
	node, err := raftfsm.Open(raftfsm.Config{
		MemberID: cfg.NodeID,
		DataDir:  cfg.DataDir,
		RaftAddr: cfg.RaftAddr,
		Member: &storagepb.MemberRecord{
			Id: cfg.NodeID, RaftAddr: raftAddr, Version: cfg.Version,
			GrpcAddr: advertised(cfg.AdvertiseGRPCAddr, s.listeners.grpc),
			HttpAddr: advertisedHTTP(cfg, s.listeners.http),
		},
		InitialCluster:      founders,
		InitialClusterState: cfg.InitialClusterState,
		Appliers:            Appliers(),
		Duties:              s.duties.run,
		Network:             opened{Network: cfg.Network, listener: s.listeners.raft},
		Logger:              cfg.Logger,
		Timing:              cfg.Timing,
		Log:                 cfg.Log,
		LogStore:            cfg.LogStore,
		MinFreeDisk:         cfg.MinFreeDisk,
		SessionTTL:          cfg.SessionTTL,
		Disk:                cfg.Disk,
	})
	if errors.Is(err, raftfsm.ErrClusterStateNeeded) {
		return nil, wrong("initial-cluster-state", "is needed, because %s holds no data of a member yet: new founds the cluster that "+
			"--initial-cluster names, existing waits until a cluster takes this member in", cfg.DataDir)
	}
	if other, ok := errors.AsType[*raftfsm.LogStoreError](err); ok {
		return nil, wrong("log-store", "%v", other)
	}
	if err != nil {
		return nil, fmt.Errorf("open member %s in %s: %w", cfg.NodeID, cfg.DataDir, err)
	}
	return node, nil
}

// Appliers returns those of every package that has commands.
func Appliers() []state.Applier {
	return []state.Applier{
		kv.NewApplier(), catalog.NewApplier(), router.NewApplier(heartbeat.Registration), heartbeat.NewApplier(), lock.NewApplier(),
		procedure.NewApplier(procedure.Effects{
			ChangeRegions: router.Changer(heartbeat.Registration), SetReplicas: router.SetReplicas,
			SetDrain: heartbeat.SetDrain, RemoveNode: heartbeat.Remove, NodeRemoved: router.NodeRemoved,
		}),
		config.NewApplier(),
	}
}
