package client

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// DefaultHeartbeatInterval is the time between beats until metasrv names another one.
const DefaultHeartbeatInterval = 5 * time.Second

// silentIntervals is how many intervals without a response break a stream.
const silentIntervals = 3

// HeartbeatReport is what a node says in one beat.
type HeartbeatReport struct {
	// NodeStat has the node's counters (rcus, wcus) since the previous call of Collect, and its gauges.
	NodeStat *metasrvpb.NodeStat
	// RegionStats names every replica on the node; its counters are since the previous call of Collect.
	RegionStats []*metasrvpb.RegionStat
	// IsLeader: the node is the writer of a group of nodes that replicate by their own means. With a GroupKeeper that says
	// it.
	IsLeader bool
	// ReplicaStats describes all followers of a group writer. Those that are in_sync and not is_learner make up, with the
	// writer, the in-sync set that it wants: see GroupKeeper.Require.
	ReplicaStats []*metasrvpb.ReplicaStat
	// LogEpoch and LogSequence are the end of the log of a node in a group: the epoch in which its last write was numbered,
	// and that number. Of the nodes that are in sync, the one with the longest log is elected.
	LogEpoch, LogSequence uint64
}

// HeartbeatConfig says who beats and what it reports. Only Peer has no default.
type HeartbeatConfig struct {
	// Peer is the node's id and the address that frontends dial.
	Peer *metasrvpb.Peer
	// ClusterID is the cluster that the node's data belongs to; members of another one refuse its beats.
	// Default: whichever answers first, which HeartbeatTask.ClusterID returns.
	ClusterID uint64
	// NodeInfo is what the node registers with. A registration_nonce of 0 is replaced by a random number.
	NodeInfo *metasrvpb.NodeInfo
	// Interval is the time between beats until metasrv names another one. Default 5 s.
	Interval time.Duration
	// Collect returns the report of the time since its previous call; what it returns is not kept or changed.
	// Counts that a broken stream lost are added to those of the next report. After an error the beat says
	// only that the node is alive. Default: empty reports.
	Collect func(ctx context.Context) (HeartbeatReport, error)
	// OnInstruction executes an instruction, off the receiving goroutine. It is called for one at a time, or for some of
	// different regions where InstructionWorkers says so.
	// metasrv repeats an instruction until the node's reports show that it was done, so doing it twice must
	// do no harm. An error is reported with the next beat. Default: every instruction is refused.
	OnInstruction func(ctx context.Context, instruction *metasrvpb.Instruction) error
	// InstructionWorkers is how many instructions are executed at the same time. Those about one region are executed one
	// after the other in any case. Default 1.
	InstructionWorkers int
	// Keeper keeps the leases under which the node serves its regions. With it the node is registered as one that keeps
	// leases, so it must ask the keeper before and after each write, and execute every kind of instruction. A DemoteRegion
	// ends the leadership in the keeper before OnInstruction is called. Default: the node serves without leases, and its
	// regions are never given to another one.
	Keeper *RegionKeeper
	// GroupKeeper keeps the lease under which the node writes for the group that NodeInfo names. A node of a group has no
	// leases of regions, so it can't have a Keeper.
	GroupKeeper *GroupKeeper
	// OnGroup is told of the group whenever something of it has changed, off the receiving goroutine; only the newest
	// counts. A node that is named as the writer, of a group that is not being handed over, and that does not write under
	// the epoch yet, makes the epoch durable, begins to write and calls GroupKeeper.Lead; any other follows the writer. The
	// keeper has ended the office of a writer that is no longer one before. Needed with a GroupKeeper.
	OnGroup func(ctx context.Context, status *metasrvpb.GroupStatus)
	// OnInSyncResult is told the outcome of each HeartbeatTask.ChangeInSync. Responses wait while it runs.
	OnInSyncResult func(result *metasrvpb.InSyncResult)
	// OnRegistered is told the incarnation when the node is registered; it is called again should metasrv name
	// its cluster only later. Responses wait while it runs.
	OnRegistered func(incarnation uint64)
	// Logger is told of heartbeats that don't reach metasrv and of failed instructions; its lines get the node_id.
	// Default: that of the client.
	Logger *slog.Logger
}

// Validate returns metasrv.ErrInvalidArgument naming the field that can't be used.
func (c HeartbeatConfig) Validate() error {
	switch {
	case c.Peer.GetId() == 0:
		return metasrv.InvalidArgument("Peer.id", "is 0")
	case c.Peer.GetAddr() == "":
		return metasrv.InvalidArgument("Peer.addr", "is empty")
	case c.Interval < 0:
		return metasrv.InvalidArgument("Interval", "%s is negative", c.Interval)
	case c.Keeper != nil && c.NodeInfo.GetStorageUuid() == "":
		return metasrv.InvalidArgument("NodeInfo.storage_uuid", "is empty: a node that keeps leases must name its storage")
	case c.GroupKeeper != nil && c.NodeInfo.GetGroup() == "":
		return metasrv.InvalidArgument("NodeInfo.group", "is empty, and there is a GroupKeeper")
	case c.GroupKeeper != nil && c.NodeInfo.GetStorageUuid() == "":
		return metasrv.InvalidArgument("NodeInfo.storage_uuid", "is empty: a node that writes for a group must name its storage")
	case c.GroupKeeper != nil && c.OnGroup == nil:
		return metasrv.InvalidArgument("OnGroup", "is nil, and there is a GroupKeeper")
	case c.Keeper != nil && c.NodeInfo.GetGroup() != "":
		return metasrv.InvalidArgument("Keeper", "is there, but a node of a group has no leases of regions")
	case c.InstructionWorkers < 0:
		return metasrv.InvalidArgument("InstructionWorkers", "%d is negative", c.InstructionWorkers)
	}
	return nil
}

// HeartbeatTask keeps a node registered with metasrv: it reports the node's state to whichever member leads,
// and has instructions executed. Changes of the metasrv leader don't show.
type HeartbeatTask struct {
	client *Client
	cfg    HeartbeatConfig
	logger *slog.Logger
	// began is the origin of report intervals: wall time once, then by the monotonic clock.
	began time.Time
	// wake asks for a beat at once.
	wake chan struct{}
	// groupNews has a token when OnGroup is to be called.
	groupNews chan struct{}
	// outage belongs to the receiving goroutine of a stream, and to Run between streams.
	outage outage

	mu          sync.Mutex
	cluster     uint64
	incarnation uint64
	interval    time.Duration
	// digests: the last answer had a digest.
	digests bool
	ledger  ledger
	// inSync has the changes of in-sync sets that have no outcome yet.
	inSync map[replicaKey]*inSyncRequest
}

// NewHeartbeatTask returns a task that beats while Run runs. A process uses one task for its node: the task
// is what the node's incarnation belongs to.
func NewHeartbeatTask(c *Client, cfg HeartbeatConfig) *HeartbeatTask {
	info := &metasrvpb.NodeInfo{}
	if cfg.NodeInfo != nil {
		info = proto.CloneOf(cfg.NodeInfo)
	}
	for info.RegistrationNonce == 0 {
		info.RegistrationNonce = rand.Uint64() //nolint:gosec // tells processes apart, guards nothing
	}
	info.KeepsLeases = cfg.Keeper != nil || cfg.GroupKeeper != nil
	cfg.NodeInfo = info
	cfg.Peer = proto.CloneOf(cfg.Peer)
	if cfg.Interval == 0 {
		cfg.Interval = DefaultHeartbeatInterval
	}
	if cfg.Logger == nil {
		cfg.Logger = c.cfg.Logger
	}
	if cfg.Collect == nil {
		cfg.Collect = func(context.Context) (HeartbeatReport, error) { return HeartbeatReport{}, nil }
	}
	if cfg.OnInstruction == nil {
		cfg.OnInstruction = func(context.Context, *metasrvpb.Instruction) error {
			return errors.New("this node executes no instructions")
		}
	}
	t := &HeartbeatTask{
		client:    c,
		cfg:       cfg,
		logger:    cfg.Logger.With("node_id", cfg.Peer.GetId()),
		began:     time.Now(),
		wake:      make(chan struct{}, 1),
		groupNews: make(chan struct{}, 1),
		cluster:   cfg.ClusterID,
		interval:  cfg.Interval,
	}
	t.outage.logger = t.logger
	t.ledger.reset(t.nowMillis())
	return t
}

// Run beats until ctx ends, and then returns nil; all of its goroutines have ended by then. It returns an
// error only where beating on is pointless: HeartbeatConfig.Validate's, metasrv.ErrStaleIncarnation (another
// process took the node id), metasrv.ErrNodeIDTaken (a live process with other storage has it), metasrv.ErrNodeRemoved,
// metasrv.ErrClusterMismatch, metasrv.ErrInvalidArgument, or that the client was closed. It must not be called twice at the same time.
func (t *HeartbeatTask) Run(ctx context.Context) error {
	if err := t.cfg.Validate(); err != nil {
		return err
	}
	runCtx, done, err := t.client.enter(ctx)
	if err != nil {
		return err
	}
	defer done()
	runCtx, cancel := context.WithCancel(runCtx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	worker := newInstructionWorker(t)
	for _, queue := range worker.queues {
		work.Go(func() { worker.run(runCtx, queue) })
	}
	if t.cfg.GroupKeeper != nil {
		work.Go(func() { t.tellGroup(runCtx) })
	}

	w := t.client.members.walk(firstLeader)
	for {
		answered, err := t.beatAt(runCtx, w, worker)
		t.mu.Lock()
		t.ledger.broken()
		t.mu.Unlock()
		switch {
		case ctx.Err() != nil:
			return nil
		case runCtx.Err() != nil:
			return errClosed
		case endsHeartbeats(err):
			if Reason(err) == metasrv.ErrClusterMismatch.Reason {
				err = t.explainMismatch(runCtx, w.target, err)
			}
			return newError(metasrvpb.Heartbeat_Heartbeat_FullMethodName, err, nil)
		}
		if answered {
			w.restart()
		}
		v := classify(err)
		if elsewhere, ok := errors.AsType[*elsewhereError](err); ok {
			v = verdict{action: follow, leader: elsewhere.leader}
		}
		if v.action != follow {
			t.outage.failed(w.target, err)
			if v.action != again {
				v.action = another
			}
		}
		if !pause(runCtx, w.next(v)) {
			if ctx.Err() != nil {
				return nil
			}
			return errClosed
		}
	}
}

// endsHeartbeats reports whether no member will ever take the node's beats.
func endsHeartbeats(err error) bool {
	switch Reason(err) {
	case metasrv.ErrStaleIncarnation.Reason, metasrv.ErrNodeIDTaken.Reason, metasrv.ErrNodeRemoved.Reason,
		metasrv.ErrClusterMismatch.Reason, metasrv.ErrInvalidArgument.Reason:
		return true
	}
	return false
}

// Incarnation returns the incarnation of the node's registration, 0 before it is registered.
func (t *HeartbeatTask) Incarnation() uint64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.incarnation
}

// Beat asks for a beat at once, for example after a region was created or dropped. It does not wait; several
// calls may become one beat, which is collected after the last of them.
func (t *HeartbeatTask) Beat() {
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

func (t *HeartbeatTask) currentInterval() time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.interval
}

// nowMillis is the node's clock for report intervals: it never runs backwards.
func (t *HeartbeatTask) nowMillis() uint64 {
	return uint64(t.began.UnixMilli() + time.Since(t.began).Milliseconds()) //nolint:gosec // after 1970
}
