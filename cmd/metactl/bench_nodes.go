package main

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// firstBenchNode is the id of the first simulated datanode. Nobody numbers machines like this.
const firstBenchNode = 900_000_001

// benchNodes are simulated datanodes: they send heartbeats that name no replicas, and confirm whatever is dropped.
type benchNodes struct {
	tasks map[uint64]*client.HeartbeatTask
	stop  context.CancelFunc
	work  *errgroup.Group
}

func benchNodeName(id uint64) string {
	return fmt.Sprintf("metactl-bench-%d.invalid:4001", id-firstBenchNode+1)
}

func benchNodeID(i int) uint64 { return uint64(firstBenchNode + i) } //nolint:gosec // a small number

// benchNodeInfo is what a simulated datanode registers with. The nonce is always the same, so it is one process to metasrv,
// whatever is measured by it.
func benchNodeInfo(id uint64) *metasrvpb.NodeInfo {
	return &metasrvpb.NodeInfo{
		Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, Version: "metactl bench", RegistrationNonce: id,
		Labels: map[string]string{"simulated": "metactl-bench"}, StorageUuid: fmt.Sprintf("metactl-bench-%d", id),
	}
}

// otherDatanodes returns an error where the cluster has datanodes of its own: they would be given regions whose data
// nobody makes.
func otherDatanodes(ctx context.Context, c *client.Client) error {
	resp, err := c.Cluster().ListNodes(ctx, &metasrvpb.ListNodesRequest{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE})
	if err != nil {
		return err
	}
	for _, n := range resp.GetNodes() {
		if n.GetPeer().GetId() < firstBenchNode && n.GetState() != metasrvpb.NodeState_NODE_STATE_DOWN {
			return usagef("the cluster has datanodes of its own, such as %s: they would be given regions that exist nowhere. "+
				"Creating tables is only measured on a cluster without datanodes", nodeText(n.GetPeer()))
		}
	}
	return nil
}

// startBenchNodes registers simulated datanodes and keeps them alive until end is called.
func startBenchNodes(ctx context.Context, c *client.Client, count int) (*benchNodes, error) {
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	b := &benchNodes{tasks: map[uint64]*client.HeartbeatTask{}, stop: stop, work: &errgroup.Group{}}
	var registered sync.WaitGroup
	failed := make(chan error, count)
	for i := range count {
		id := benchNodeID(i)
		registered.Add(1)
		once := sync.OnceFunc(registered.Done)
		task := client.NewHeartbeatTask(c, client.HeartbeatConfig{
			Peer: &metasrvpb.Peer{Id: id, Addr: benchNodeName(id)}, NodeInfo: benchNodeInfo(id),
			OnRegistered:  func(uint64) { once() },
			OnInstruction: func(context.Context, *metasrvpb.Instruction) error { return nil },
			Logger:        discardLogger,
		})
		b.tasks[id] = task
		b.work.Go(func() error {
			err := task.Run(running)
			if err != nil {
				failed <- fmt.Errorf("simulated datanode %d: %w", id, err)
			}
			return err
		})
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		registered.Wait()
	}()
	var err error
	select {
	case <-done:
		return b, nil
	case err = <-failed:
	case <-ctx.Done():
		err = ctx.Err()
	}
	b.end()
	return nil, err
}

// end stops the heartbeats. The nodes stay registered and count as down after a while.
func (b *benchNodes) end() {
	b.stop()
	_ = b.work.Wait() // an error was told when it happened
}

// names returns what end leaves behind.
func (b *benchNodes) names() string {
	ids := make([]uint64, 0, len(b.tasks))
	for id := range b.tasks {
		ids = append(ids, id)
	}
	return fmt.Sprintf("the registrations of simulated datanodes %d to %d", slices.Min(ids), slices.Max(ids))
}

// incarnation returns that of a simulated node.
func (b *benchNodes) incarnation(node uint64) (uint64, bool) {
	task := b.tasks[node]
	if task == nil {
		return 0, false
	}
	return task.Incarnation(), true
}
