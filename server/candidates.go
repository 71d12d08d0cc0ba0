package server

import (
	"time"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/scheduler"
)

const (
	// fewCandidates is up to how many nodes are gathered for each creation: that takes less than the rest of it.
	fewCandidates = 32
	// candidatesFor is how long more nodes are kept for further creations. So long a creation may choose a node that has
	// become suspect, or count on the load that a node had.
	candidatesFor = 50 * time.Millisecond
)

// candidates are the registered nodes as placement sees them.
type candidates struct {
	statuses []heartbeat.NodeStatus
	// loads are those of the same nodes. Their counts are those of the last placement.
	loads []scheduler.NodeLoad

	tracker *heartbeat.Tracker
	// nodes is the revision of the last change of a node's record that they have.
	nodes uint64
	until time.Time
}

// gather returns the candidates of a view, with the counts of nothing.
func gather(view state.View, t *heartbeat.Tracker, nodes uint64, now time.Time) (*candidates, error) {
	statuses, err := t.Nodes(view, now)
	if err != nil {
		return nil, err
	}
	c := &candidates{statuses: statuses, loads: each(statuses, placement{}.load), tracker: t, nodes: nodes, until: now}
	if len(statuses) > fewCandidates {
		c.until = now.Add(candidatesFor)
	}
	return c, nil
}

// serve says whether candidates that were gathered before serve for a placement at now.
func (c *candidates) serve(t *heartbeat.Tracker, nodes uint64, now time.Time) bool {
	return c != nil && c.tracker == t && c.nodes == nodes && now.Before(c.until)
}

// load returns a node as placement sees it.
func (p placement) load(status heartbeat.NodeStatus) scheduler.NodeLoad {
	info, stat := status.Record.GetInfo(), status.Stat
	load := scheduler.NodeLoad{
		ID:            status.ID,
		Incarnation:   metasrv.Incarnation(status.Record.GetIncarnation()),
		Role:          status.Role,
		State:         status.State,
		Legacy:        status.Record.GetLegacy(),
		Grouped:       info.GetGroup() != "",
		Draining:      status.Record.GetDrain() != metasrvpb.NodeDrain_NODE_DRAIN_UNSPECIFIED,
		Zone:          info.GetLabels()["zone"],
		Rack:          info.GetLabels()["rack"],
		Host:          info.GetLabels()["host"],
		Measured:      stat != nil,
		RCUs:          status.Rates.RCUs,
		WCUs:          status.Rates.WCUs,
		RCUsPerSecond: info.GetCapacity().GetRcusPerSecond(),
		WCUsPerSecond: info.GetCapacity().GetWcusPerSecond(),
		CPU:           stat.GetCpuUsage(),
		CPUCores:      info.GetCapacity().GetCpuCores(),
		MemoryUsed:    stat.GetMemoryUsedBytes(),
		MemoryBytes:   info.GetCapacity().GetMemoryBytes(),
		DiskUsed:      stat.GetDiskUsedBytes(),
		DiskBytes:     info.GetCapacity().GetDiskBytes(),
	}
	n := p[uint64(status.ID)]
	load.Replicas, load.Leaders = n.replicas, n.leaders
	return load
}
