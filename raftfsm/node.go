package raftfsm

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/machine"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Raft's own numbers that are not a matter of the cluster's speed.
const (
	maxAppend = 32
	// A member must have stored a message of maxAppend entries within this time. What sends it may pause as long.
	transportTimeout = 10 * time.Second
)

// Node is one member.
type Node struct {
	cfg     Config
	log     *slog.Logger
	raft    *raft.Raft
	fsm     *fsm
	flusher *flusher
	store   *logStore
	// logCache is above store: raft reads and writes the log through both.
	logCache *logCache
	watch    *watchdog
	disk     *disk
	// majoritySpace is known while this member leads, or knows nobody who does.
	majoritySpace majoritySpace

	mux   *mux
	trans *transport
	peers *peerClient

	proposer  *proposer
	transfers *transferGuard
	// rounds are the proofs of a metasrv leader, asks the questions of a member that follows.
	rounds     rounds
	voterLinks voterLinks
	asks       rounds
	leaderLink peerLink
	fresh      freshness

	// file is what the member remembers of its way into the cluster.
	fileMu sync.Mutex
	file   *memberFile
	// admitted: other members may speak raft to this one.
	admitted atomic.Bool
	// settled is the member's identity once it has one.
	settled atomic.Pointer[identity]
	// waiting says what a member without data waits for.
	waiting atomic.Pointer[string]
	// knocks are raft addresses of members that spoke to this one before it was admitted; knock tells of a new one.
	knocksMu sync.Mutex
	knocks   []string
	knock    chan struct{}
	// changing has a value in it while this member changes the members of the cluster.
	changing chan struct{}

	leading        atomic.Pointer[Leadership]
	leadingMu      sync.Mutex
	leadingChanged chan struct{}

	// down ends when raft has stopped, or the member has failed: what it has not answered by then it never will.
	down    context.Context
	setDown context.CancelFunc
	// started is closed when raft runs; other members may ask before.
	started chan struct{}
	// ctx ends when the node closes.
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	// asking has those who ask raft, futures what it has not answered yet.
	asking, futures sync.WaitGroup

	caughtUp atomic.Bool
	// split says how the states of members differ where no majority agrees, nil where all is well. compared is the latest
	// index at which this member's state was the same as another's.
	split     atomic.Pointer[split]
	compared  atomic.Uint64
	failOnce  sync.Once
	failure   error
	failed    chan struct{}
	stopping  *atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

// Open starts a member from its data folder, or founds it there. The member takes part in the cluster when Open
// returns.
func Open(cfg Config) (*Node, error) {
	cfg.setDefaults()
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg.Member.Id, cfg.Member.CommandVersion = cfg.MemberID, cfg.CommandVersion
	ctx, cancel := context.WithCancel(context.Background())
	n := &Node{
		cfg: cfg, log: cfg.Logger.With("member", cfg.MemberID),
		proposer: newProposer(), leadingChanged: make(chan struct{}),
		ctx: ctx, cancel: cancel, started: make(chan struct{}), failed: make(chan struct{}),
		knock: make(chan struct{}, 1), changing: make(chan struct{}, 1),
	}
	n.down, n.setDown = context.WithCancel(context.Background())
	n.watch = newWatchdog(cfg.Timing.DiskTimeout, n.fail)
	n.transfers = &transferGuard{election: cfg.Timing.Election, fail: n.fail}
	n.disk = newDisk(cfg.MemberID, cfg.DataDir, cfg.MinFreeDisk, n.log)
	n.disk.gone = n.fail
	if cfg.freeSpace != nil {
		n.disk.free = cfg.freeSpace
	}
	if err := n.open(); err != nil {
		cancel()
		return nil, errors.Join(err, n.release())
	}
	return n, nil
}

func (n *Node) open() error {
	if err := os.MkdirAll(n.cfg.DataDir, 0o700); err != nil {
		return err
	}
	if err := checkSwapped(n.cfg.DataDir); err != nil {
		return err
	}
	n.disk.look(time.Now())
	n.wg.Go(func() { n.watch.run(n.ctx) })
	n.wg.Go(func() { n.disk.run(n.ctx) })
	if err := n.openStores(); err != nil {
		return err
	}
	if err := n.claimLog(); err != nil {
		return err
	}
	listener, err := n.cfg.Network.Listen(n.cfg.RaftAddr)
	if err != nil {
		return fmt.Errorf("listen for members on %s: %w", n.cfg.RaftAddr, err)
	}
	logger := newRaftLogger(n.log)
	n.stopping = logger.stopping
	n.mux = newMux(n.cfg.Network, listener, n.cfg.Member.RaftAddr, n.servePeer, raftGate{greet: n.greet, admit: n.admit})
	n.trans = newTransport(n.mux, transportTimeout, n.disk, n.store.pins, logger)
	n.peers = newPeerClient(n.mux, n.cfg.Timing.PeerTimeout)
	n.wg.Go(n.leaveWhenFailed)
	n.leaderLink.peers = n.peers
	// Buffered, for raft waits until the channel takes a change of leadership.
	notify := make(chan bool, 64)
	if err := n.startRaft(n.raftConfig(logger, notify)); err != nil {
		return err
	}
	close(n.started)
	n.trans.reach.setWanted(n.feeds)
	n.trans.pace.setSlow(n.mayWait)
	n.flusher.start()
	n.asking.Go(func() { n.runLeadership(n.ctx, notify) })
	n.asking.Go(func() { n.proposer.run(n.ctx, n.commit) })
	n.wg.Go(func() { n.publishMember(n.ctx) })
	n.wg.Go(func() { n.catchUp(n.ctx) })
	n.wg.Go(func() { n.keepLog(n.ctx) })
	n.wg.Go(func() { n.compareHashes(n.ctx) })
	n.wg.Go(func() { n.refresh(n.ctx) })
	n.wg.Go(func() { n.succeed(n.ctx) })
	n.wg.Go(func() { n.watchStanding(n.ctx) })
	n.wg.Go(func() { n.yieldWithoutSpace(n.ctx) })
	n.wg.Go(func() { n.watchMajoritySpace(n.ctx) })
	return nil
}

func (n *Node) snapshots() *snapshotStore {
	return &snapshotStore{fsm: n.fsm, flusher: n.flusher, dir: n.cfg.DataDir, logger: n.log, checkVersion: n.checkVersion,
		beforeDisk: n.cfg.beforeInstallCall}
}

func (n *Node) raftConfig(logger *raftLogger, notify chan bool) *raft.Config {
	c := raft.DefaultConfig()
	c.LocalID = raft.ServerID(n.cfg.MemberID)
	c.HeartbeatTimeout = n.cfg.Timing.Heartbeat
	c.ElectionTimeout = n.cfg.Timing.Election
	c.LeaderLeaseTimeout = n.cfg.Timing.LeaderLease
	c.MaxAppendEntries = maxAppend
	c.TrailingLogs = n.cfg.Log.Trailing
	c.SnapshotThreshold = n.cfg.Log.Threshold
	c.SnapshotInterval = n.cfg.Log.Interval
	c.NoSnapshotRestoreOnStart = true // the image is loaded already
	c.NoLegacyTelemetry = true
	c.NotifyCh = notify
	c.Logger = logger
	return c
}

func (n *Node) startRaft(c *raft.Config) error {
	n.store.kept = func() (uint64, uint64) { return n.flusher.flushed.Load(), n.fsm.current.index() }
	n.fsm.installed = n.store.expectReset
	snapshots := n.snapshots()
	exists, err := raft.HasExistingState(n.store, n.store, snapshots)
	if err != nil {
		return fmt.Errorf("read %s: %w", n.cfg.DataDir, err)
	}
	if !exists && n.cfg.InitialClusterState == "" {
		return ErrClusterStateNeeded
	}
	n.admitted.Store(exists)
	if n.raft, err = n.newRaft(c, snapshots); err != nil {
		return fmt.Errorf("start raft on %s: %w", n.cfg.DataDir, err)
	}
	if exists {
		return n.checkAddress()
	}
	return n.enter(n.ctx)
}

// newRaft starts raft in a goroutine, which ends without a result where the log can't be read, see raftLog.
func (n *Node) newRaft(c *raft.Config, snapshots raft.SnapshotStore) (r *raft.Raft, err error) {
	log := raftLog{n.store}
	n.logCache = newLogCache(log, logCacheBytes)
	started := make(chan struct{})
	go func() {
		defer close(started)
		r, err = raft.NewRaft(c, n.fsm, n.logCache, log, snapshots, n.trans)
	}()
	<-started
	if r == nil && err == nil {
		err = n.Err()
	}
	return r, err
}

// View returns the state of this member, however old.
func (n *Node) View() state.View { return n.fsm.current.Load().view }

// Glance runs use on the present state, between two entries: for a look that is done in microseconds, for entries wait for
// it, and that is repeated again and again. A view makes the machine copy what it changes afterwards, use of this one
// doesn't. What it shows must not be kept.
func (n *Node) Glance(use func(state.View)) { n.fsm.current.glance(use) }

// WaitRevision returns the state of this member as soon as it has reached a revision.
func (n *Node) WaitRevision(ctx context.Context, revision uint64) (state.View, error) {
	a, err := n.fsm.current.wait(ctx, func(p *machine.Position) bool { return p.Revision >= revision })
	if err != nil {
		return nil, err
	}
	return a.view, nil
}

// Read returns the changes of whole revisions, see state.Feed.
func (n *Node) Read(ctx context.Context, from uint64) ([]state.Revision, error) {
	return n.fsm.feed.Read(ctx, from)
}

// Remembered returns what the feed holds, see state.Feed.
func (n *Node) Remembered() (oldest uint64, bytes int) { return n.fsm.feed.Remembered() }

// fail records why the member can't go on. The process must end.
func (n *Node) fail(err error) {
	n.failOnce.Do(func() {
		n.failure = err
		n.log.Error("this member has failed and must stop", "error", err)
		close(n.failed)
	})
}

// Done is closed when the member has failed; Err says why.
func (n *Node) Done() <-chan struct{} { return n.failed }

// Err returns why the member has failed, nil if it hasn't.
func (n *Node) Err() error {
	select {
	case <-n.failed:
		return n.failure
	default:
		return nil
	}
}

var (
	_ state.Proposer = (*Node)(nil)
	_ state.Barrier  = (*Node)(nil)
	_ state.Viewer   = (*Node)(nil)
	_ state.Feed     = (*Node)(nil)
)

// configuration returns raft's latest configuration.
func (n *Node) configuration() raft.Configuration { return n.raft.GetConfiguration().Configuration() }

// memberRecord returns what a member has published, or at least its raft address.
func (n *Node) memberRecord(server raft.Server) *storagepb.MemberRecord {
	if record, ok := n.publishedMember(string(server.ID)); ok {
		return record
	}
	return &storagepb.MemberRecord{Id: string(server.ID), RaftAddr: string(server.Address)}
}
