// Package clienttest has what tests of a whole metasrv need around it: datanodes that keep no rows, and the steps
// of a frontend that creates a table on them.
package clienttest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"
	"testing"
	"time"

	"github.com/metasrv/metasrv/client"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Datanode sends heartbeats for replicas that exist in its memory only. It does as it is told.
type Datanode struct {
	ID   uint64
	t    testing.TB
	task *client.HeartbeatTask
	done chan error
	end  context.CancelFunc

	mu       sync.Mutex
	replicas map[uint64]*metasrvpb.RegionStat
	deaf     bool
	rcus     uint64
}

// beat is how often a Datanode reports until metasrv names another interval.
const beat = 50 * time.Millisecond

// StartDatanode registers a datanode with the members at the endpoints and keeps it beating until the test ends.
func StartDatanode(t testing.TB, c *client.Client, id uint64) *Datanode {
	t.Helper()
	d := &Datanode{ID: id, t: t, replicas: map[uint64]*metasrvpb.RegionStat{}, done: make(chan error, 1)}
	registered := make(chan struct{})
	var once sync.Once
	d.task = client.NewHeartbeatTask(c, client.HeartbeatConfig{
		Peer:          &metasrvpb.Peer{Id: id, Addr: fmt.Sprintf("127.0.0.1:%d", 10_000+id)},
		NodeInfo:      &metasrvpb.NodeInfo{Role: metasrvpb.NodeRole_NODE_ROLE_DATANODE, StorageUuid: fmt.Sprintf("storage-%d", id)},
		Interval:      beat,
		Collect:       d.collect,
		OnInstruction: d.execute,
		OnRegistered:  func(uint64) { once.Do(func() { close(registered) }) },
	})
	ctx, end := context.WithCancel(context.Background())
	d.end = end
	go func() { d.done <- d.task.Run(ctx) }()
	t.Cleanup(d.Stop)
	select {
	case <-registered:
	case err := <-d.done:
		t.Fatalf("datanode %d: %v", id, err)
	case <-time.After(30 * time.Second):
		t.Fatalf("datanode %d was not registered within 30 s", id)
	}
	return d
}

// Stop ends the heartbeats.
func (d *Datanode) Stop() {
	d.end()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.done != nil {
		if err := <-d.done; err != nil {
			d.t.Errorf("datanode %d: %v", d.ID, err)
		}
		d.done = nil
	}
}

// Incarnation returns that of the datanode's registration.
func (d *Datanode) Incarnation() uint64 { return d.task.Incarnation() }

// Create makes a replica, as a frontend asks for.
func (d *Datanode) Create(region, replica, epoch, conf uint64) {
	d.mu.Lock()
	d.replicas[region] = &metasrvpb.RegionStat{RegionId: region, ReplicaId: replica, LeaderEpoch: epoch, ConfVersion: conf}
	d.mu.Unlock()
	d.task.Beat()
}

// Replicas returns the replica id of each region that the datanode has.
func (d *Datanode) Replicas() map[uint64]uint64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	have := map[uint64]uint64{}
	for region, r := range d.replicas {
		have[region] = r.ReplicaId
	}
	return have
}

// Deafen makes the datanode fail every instruction, or obey again.
func (d *Datanode) Deafen(deaf bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.deaf = deaf
}

func (d *Datanode) collect(context.Context) (client.HeartbeatReport, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	report := client.HeartbeatReport{NodeStat: &metasrvpb.NodeStat{RegionNum: uint64(len(d.replicas)), Rcus: d.rcus}}
	for _, r := range maps.Clone(d.replicas) {
		report.RegionStats = append(report.RegionStats, r)
	}
	return report, nil
}

func (d *Datanode) execute(_ context.Context, instruction *metasrvpb.Instruction) error {
	drop := instruction.GetDropRegion()
	if drop == nil {
		return errors.New("unknown instruction")
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	have := d.replicas[drop.RegionId]
	switch {
	case d.deaf:
		return errors.New("deaf")
	case have != nil && have.ReplicaId != drop.ReplicaId:
		return fmt.Errorf("replica %d is here, not %d", have.ReplicaId, drop.ReplicaId)
	}
	delete(d.replicas, drop.RegionId)
	return nil
}
