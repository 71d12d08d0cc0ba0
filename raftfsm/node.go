package raftfsm

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
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
	// A message of maxAppend entries must be sent and stored within this time.
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
	watch   *watchdog
	disk    *disk
	mux     *mux
	trans   *transport
	peers   *peerClient

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
	split     atomic.Pointer[string]
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
	n.trans = newTransport(n.mux, transportTimeout, n.disk, logger)
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
	return nil
}

// openStores opens log and image and checks that they belong together.
func (n *Node) openStores() error {
	snapshots := &snapshotStore{dir: n.cfg.DataDir}
	if err := n.openFile(); err != nil {
		return err
	}
	store, err := n.openLog(snapshots.imagePath())
	if err != nil {
		return err
	}
	if n.cfg.wrapLog != nil {
		store.db = n.cfg.wrapLog(store.db)
	}
	store.watch, store.disk, store.stop = n.watch, n.disk, n.ctx.Done()
	n.store = store
	img, err := openImage(snapshots.imagePath())
	if err != nil {
		return err
	}
	from, err := img.load()
	if err != nil {
		return errors.Join(err, img.close())
	}
	if err := n.checkVersion(from.view.Position().Version); err != nil {
		return errors.Join(err, img.close())
	}
	if err := n.reconcile(from.view.Position()); err != nil {
		return errors.Join(err, img.close())
	}
	// The files are there for good before the member promises anything.
	if err := errors.Join(syncDir(n.cfg.DataDir), syncDir(filepath.Dir(n.cfg.DataDir))); err != nil {
		return errors.Join(err, img.close())
	}
	n.fsm = newFSM(from, n.cfg.Appliers, store, n.fail)
	n.fsm.machine.Know(n.cfg.CommandVersion)
	n.flusher = newFlusher(n.fsm, img, n.cfg.Timing, n.fail)
	n.flusher.watch, n.flusher.disk = n.watch, n.disk
	n.fsm.install = n.snapshots().install
	return nil
}

func (n *Node) openLog(imagePath string) (*logStore, error) {
	asked := cmp.Or(n.cfg.LogStore, LogStoreBolt)
	if err := checkLogStore(n.cfg.DataDir, asked); err != nil {
		return nil, err
	}
	if asked == LogStoreWAL {
		return openWAL(walPath(n.cfg.DataDir), walSegment, newRaftLogger(n.log), n.fail)
	}
	path := boltLogPath(n.cfg.DataDir)
	if err := checkLost(path, imagePath); err != nil {
		return nil, err
	}
	return openLog(path, n.fail)
}

// checkLost returns an error if the log is there but empty while there is an image: bbolt makes the log first, so it was
// not always so.
func checkLost(logPath, imagePath string) error {
	log, err := os.Stat(logPath)
	if err != nil || log.Size() > 0 {
		return nil //nolint:nilerr // a log that is not there is found out by what the image has
	}
	if _, err := os.Stat(imagePath); err != nil {
		return nil //nolint:nilerr // the member ended while it made its files
	}
	return damaged(logPath, "it is empty")
}

// openFile reads what the member remembers of its way into the cluster, and checks whether it may go on.
func (n *Node) openFile() error {
	_, hadLog, err := logOf(n.cfg.DataDir)
	if err != nil {
		return err
	}
	if n.file, err = openMemberFile(n.cfg.DataDir); err != nil {
		return err
	}
	if n.file.Ended != "" {
		return errors.New(n.file.Ended)
	}
	return n.checkFounded(hadLog)
}

// logOf returns which kind of log a data folder has; false where it has none.
func logOf(dir string) (LogStore, bool, error) {
	for _, kind := range []LogStore{LogStoreBolt, LogStoreWAL} {
		path := boltLogPath(dir)
		if kind == LogStoreWAL {
			path = walPath(dir)
		}
		if there, err := exists(path); there || err != nil {
			return kind, there, err
		}
	}
	return LogStoreBolt, false, nil
}

func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (n *Node) snapshots() *snapshotStore {
	return &snapshotStore{fsm: n.fsm, flusher: n.flusher, dir: n.cfg.DataDir, logger: n.log, checkVersion: n.checkVersion}
}

func (n *Node) reconcile(image machine.Position) error {
	term, err := n.store.GetUint64(keyCurrentTerm)
	if err != nil {
		return err
	}
	if term == 0 && image.Index > 0 {
		return fmt.Errorf("%s has a state at index %d but no log: a member that has lost its log may have voted and must not vote again; "+
			"remove this member from the cluster and let it join again with an empty folder under a new id", n.cfg.DataDir, image.Index)
	}
	return reconcile(n.store, image.Index, image.Term)
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
	cache := newLogCache(log, logCacheBytes)
	started := make(chan struct{})
	go func() {
		defer close(started)
		r, err = raft.NewRaft(c, n.fsm, cache, log, snapshots, n.trans)
	}()
	<-started
	if r == nil && err == nil {
		err = n.Err()
	}
	return r, err
}

// View returns the state of this member, however old.
func (n *Node) View() state.View { return n.fsm.current.Load().view }

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

// Close ends the member: it hands the leadership to another one if it has it, writes the image and closes its
// files. ctx bounds the hand-over only.
func (n *Node) Close(ctx context.Context) error {
	n.closeOnce.Do(func() {
		n.transferLeadership(ctx)
		n.stopping.Store(true)
		n.cancel()
		n.closeErr = n.release()
	})
	return n.closeErr
}

// transferLeadership makes another voter the metasrv leader, so that the cluster need not wait for an election.
func (n *Node) transferLeadership(ctx context.Context) {
	if ctx.Err() != nil || n.Err() != nil || n.raft.State() != raft.Leader || len(n.voters()) < 2 {
		return
	}
	if err := n.awaitFuture(ctx, n.raft.LeadershipTransfer()); err != nil {
		n.log.Info("the leadership was not handed over, the other members will elect", "error", err)
	}
}

// leaveWhenFailed breaks all connections to the other members once this one has failed: heartbeats that it goes on
// sending until the process ends would keep the others from electing.
func (n *Node) leaveWhenFailed() {
	select {
	case <-n.failed:
		n.mux.shut()
		n.setDown()
	case <-n.ctx.Done():
	}
}

// failedCloseLimit is how long the close of a member that has failed may take. Calls to a disk that hangs never return.
const failedCloseLimit = 2 * time.Second

// release closes what open has opened. Where the member has failed it leaves to the end of the process what doesn't end
// by itself.
func (n *Node) release() error {
	if n.Err() == nil {
		return n.releaseAll()
	}
	released := make(chan error, 1)
	go func() { released <- n.releaseAll() }()
	select {
	case err := <-released:
		return err
	case <-time.After(failedCloseLimit):
		return errors.New("the files of the member are not closed, for a call to the disk has not returned")
	}
}

// releaseAll closes in the reverse order.
func (n *Node) releaseAll() error {
	var errs []error
	if n.raft != nil {
		n.awaitAnswers()
		errs = append(errs, n.raft.Shutdown().Error())
	}
	n.setDown()
	n.asking.Wait()
	n.wg.Wait()
	if n.peers != nil {
		n.peers.close()
	}
	if n.trans != nil {
		n.trans.CloseStreams()
		errs = append(errs, n.trans.Close())
	}
	if n.mux != nil {
		errs = append(errs, n.mux.Close())
	}
	n.rounds.wg.Wait()
	n.asks.wg.Wait()
	n.voterLinks.close()
	n.leaderLink.close()
	if n.flusher != nil {
		errs = append(errs, n.flusher.close(n.Err() != nil))
	}
	if n.store != nil {
		errs = append(errs, n.store.Close())
	}
	return errors.Join(errs...)
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
