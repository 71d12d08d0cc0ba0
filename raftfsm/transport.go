package raftfsm

import (
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

// transport is raft's own without its fast path for heartbeats, which handles AppendEntries beside raft's main
// goroutine and can make logs differ (hashicorp/raft#695, not fixed in v1.7.3).
type transport struct {
	*raft.NetworkTransport
}

func newTransport(layer raft.StreamLayer, timeout time.Duration, logger hclog.Logger) *transport {
	return &transport{raft.NewNetworkTransportWithConfig(&raft.NetworkTransportConfig{
		Stream:  layer,
		MaxPool: 3,
		// One request in flight keeps replication off the pipeline, which can deadlock a follower
		// (hashicorp/raft#612). With group commit it costs nothing measurable.
		MaxRPCsInFlight: 1,
		Timeout:         timeout,
		Logger:          logger,
	})}
}

// SetHeartbeatHandler leaves heartbeats to raft's main goroutine.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}
