package client

import (
	"context"
	"log/slog"
	"time"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// HeartbeatReport is what a node says in one beat.
type HeartbeatReport struct {
	// NodeStat has the node's counters (rcus, wcus) since the previous call of Collect, and its gauges.
	NodeStat *metasrvpb.NodeStat
	// RegionStats names every replica on the node; its counters are since the previous call of Collect.
	RegionStats []*metasrvpb.RegionStat
	// IsLeader: the node is the writer of a group of nodes that replicate by their own means.
	IsLeader bool
	// ReplicaStats describes the followers of a group writer.
	ReplicaStats []*metasrvpb.ReplicaStat
}

// HeartbeatConfig says who beats and what it reports.
type HeartbeatConfig struct {
	// Peer is the node's id and the address that frontends dial.
	Peer *metasrvpb.Peer
	// NodeInfo is what the node registers with. Its registration_nonce is filled in.
	NodeInfo *metasrvpb.NodeInfo
	// Interval is the time between beats until metasrv names another one. Default 5 s.
	Interval time.Duration
	// Collect returns the report of the time since its previous call. Without it beats carry no statistics.
	Collect func(ctx context.Context) (HeartbeatReport, error)
	// OnInstruction executes an instruction. It is called for one at a time; metasrv repeats an instruction
	// until the node's reports show that it was done, so it must be idempotent. An error is reported.
	OnInstruction func(ctx context.Context, instruction *metasrvpb.Instruction) error
	// OnRegistered is told the incarnation of the registration. It must not block.
	OnRegistered func(incarnation uint64)
	// Logger is told of broken streams and failed instructions. Default: that of the client.
	Logger *slog.Logger
}

// HeartbeatTask keeps a node registered.
type HeartbeatTask struct {
	client *Client
	cfg    HeartbeatConfig
}

// NewHeartbeatTask returns a task that beats while Run runs.
func NewHeartbeatTask(c *Client, cfg HeartbeatConfig) *HeartbeatTask {
	return &HeartbeatTask{client: c, cfg: cfg}
}

// Run beats until ctx ends.
func (t *HeartbeatTask) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Incarnation returns the incarnation of the node's registration, 0 before it is registered.
func (t *HeartbeatTask) Incarnation() uint64 { return 0 }

// Beat asks for a beat at once.
func (t *HeartbeatTask) Beat() {}
