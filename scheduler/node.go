package scheduler

import (
	"fmt"
	"strings"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

const (
	// nearlyFull is the share of the disk, in thousandths, from which a node is chosen only where others don't
	// suffice; from full on it is not chosen at all.
	nearlyFull = 900
	full       = 980
)

// NodeLoad is a registered node as placement sees it.
type NodeLoad struct {
	ID          metasrv.NodeID
	Incarnation metasrv.Incarnation
	// Role: frontends are left out.
	Role metasrvpb.NodeRole
	// State: only live nodes are chosen.
	State metasrvpb.NodeState
	// Legacy nodes speak only the early public protocol, see Request.AllowLegacy.
	Legacy bool
	// Grouped nodes are those of a group that replicates by its own means: they are chosen with their group, not one by one.
	Grouped bool
	// Draining nodes get nothing: they are being drained, or were.
	Draining bool
	// Zone is the failure domain. Nodes without one are taken to share one.
	Zone string
	// Rack and Host are failure domains within a zone, "" where the node names none.
	Rack, Host string

	// Replicas and Leaders count what the routes place on the node, also what is under way.
	Replicas, Leaders int

	// Measured says that the node has reported; else it is taken for an average one.
	Measured bool
	// Rates per second, and what the node can serve of them; 0 means unknown.
	RCUs, WCUs                   float64
	RCUsPerSecond, WCUsPerSecond uint64
	// CPU is the share of all cores in use, 0 to 1.
	CPU float64
	// CPUCores is 0 where it is unknown.
	CPUCores uint32
	// Bytes; a capacity of 0 means unknown.
	MemoryUsed, MemoryBytes uint64
	DiskUsed, DiskBytes     uint64
}

// diskUse returns the share of the disk in use in thousandths, 0 where it is unknown.
func (n *NodeLoad) diskUse() int64 { return share(float64(n.DiskUsed), float64(n.DiskBytes)) }

// census counts the datanodes of a cluster by what keeps them from being chosen.
type census struct {
	registered, live, suspect, down, unknown, legacy, full, draining int
}

// candidates returns the datanodes that may be chosen, in the order of their ids, those with a nearly full
// disk apart.
func candidates(nodes []NodeLoad, allowLegacy bool) (fit, tight []*NodeLoad, c census) {
	for i := range nodes {
		n := &nodes[i]
		if n.Role == metasrvpb.NodeRole_NODE_ROLE_FRONTEND || n.Grouped {
			continue
		}
		c.registered++
		switch n.State {
		case metasrvpb.NodeState_NODE_STATE_LIVE:
		case metasrvpb.NodeState_NODE_STATE_SUSPECT:
			c.suspect++
			continue
		case metasrvpb.NodeState_NODE_STATE_DOWN:
			c.down++
			continue
		default:
			c.unknown++
			continue
		}
		c.live++
		switch use := n.diskUse(); {
		case n.Legacy && !allowLegacy:
			c.legacy++
		case n.Draining:
			c.draining++
		case use >= full:
			c.full++
		case use >= nearlyFull:
			tight = append(tight, n)
		default:
			fit = append(fit, n)
		}
	}
	sortByID(fit)
	sortByID(tight)
	return fit, tight, c
}

// String says what was found, for people: "3 registered: 1 live, 2 down".
func (c census) String() string {
	if c.registered == 0 {
		return "none is registered"
	}
	parts := []string{fmt.Sprintf("%d live", c.live)}
	for _, part := range []struct {
		count int
		what  string
	}{
		{c.suspect, "suspect"}, {c.down, "down"}, {c.unknown, "not heard yet by the new metasrv leader"},
	} {
		if part.count > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", part.count, part.what))
		}
	}
	if c.full > 0 {
		parts = append(parts, fmt.Sprintf("%d of the live with a full disk", c.full))
	}
	if c.draining > 0 {
		parts = append(parts, fmt.Sprintf("%d of the live drained, or being drained", c.draining))
	}
	if c.legacy > 0 {
		parts = append(parts, fmt.Sprintf("%d of the live speak only the early public protocol", c.legacy))
	}
	return fmt.Sprintf("%d registered: %s", c.registered, strings.Join(parts, ", "))
}
