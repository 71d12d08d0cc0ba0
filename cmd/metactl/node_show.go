package main

import (
	"fmt"
	"strings"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// nodeRows returns all that is known of a node, line by line.
func nodeRows(n *metasrvpb.Node) [][2]string {
	info, stat, capacity := n.GetInfo(), n.GetStat(), n.GetInfo().GetCapacity()
	return [][2]string{
		{"Node", number(n.GetPeer().GetId())},
		{"Address", n.GetPeer().GetAddr()},
		{"Role", nodeRole(n)},
		{"State", nodeStates(n)},
		{"Last heartbeat", lastBeat(n)},
		{"Incarnation", number(n.GetIncarnation())},
		{"Registered", date(n.GetRegisteredAtMs())},
		{"Version", info.GetVersion()},
		{"Labels", pairs(info.GetLabels())},
		{"Attributes", pairs(info.GetAttrs())},
		{"Storage", storageText(n)},
		{"Leases", leaseText(n)},
		{"Group", groupText(n)},
		{"Replicas", replicasText(n)},
		{"Reads", perSecond(n.GetRcusPerSecond(), "RCU", capacity.GetRcusPerSecond())},
		{"Writes", perSecond(n.GetWcusPerSecond(), "WCU", capacity.GetWcusPerSecond())},
		{"CPU", ofCapacity(cpu(stat), uint64(capacity.GetCpuCores()), "%d cores")},
		{"Memory used", ofBytes(stat.GetMemoryUsedBytes(), capacity.GetMemoryBytes())},
		{"Disk used", ofBytes(stat.GetDiskUsedBytes(), capacity.GetDiskBytes())},
	}
}

func storageText(n *metasrvpb.Node) string {
	s := n.GetInfo().GetStorageUuid()
	if times := n.GetStorageGeneration(); times > 0 {
		s = strings.TrimSpace(fmt.Sprintf("%s (replaced %d times)", s, times))
	}
	return s
}

// leaseText says whether others can take over from the node, and when.
func leaseText(n *metasrvpb.Node) string {
	switch {
	case n.GetLegacy():
		return "none: it speaks the early protocol, so nobody ever takes over from it"
	case !n.GetKeepsLeases() && n.GetInfo().GetRole() != metasrvpb.NodeRole_NODE_ROLE_FRONTEND:
		return "none: it keeps no leases, so nobody ever takes over from it"
	case !n.GetKeepsLeases():
		return none
	case n.GetLeaseLeftMs() > 0:
		return "end in " + span(millis(n.GetLeaseLeftMs())) + " at the latest"
	}
	return "ended"
}

// groupText says in which group the node is, and what it says that it is there.
func groupText(n *metasrvpb.Node) string {
	name := n.GetInfo().GetGroup()
	if !n.GetIsLeader() {
		return name
	}
	said := "says that it writes"
	if name == "" {
		said += ", by its own choice"
	} else {
		said = name + ", " + said
	}
	var followers []string
	for _, f := range n.GetReplicaStats() {
		text := nodeText(f.GetPeer())
		switch {
		case f.GetIsLearner():
			text += " learner"
		case !f.GetInSync():
			text += " not in sync"
		}
		followers = append(followers, text)
	}
	if len(followers) > 0 {
		said += "; followed by " + strings.Join(followers, ", ")
	}
	return said
}

func replicasText(n *metasrvpb.Node) string {
	s := fmt.Sprintf("%d, %d of them region leaders; it reports %d", n.GetReplicas(), n.GetRegionLeaders(), n.GetReportedReplicas())
	if lost := n.GetLostReplicas(); lost > 0 {
		s += fmt.Sprintf("; %d are lost with its earlier storage", lost)
	}
	return s
}

func perSecond(value float64, unit string, capacity uint64) string {
	return ofCapacity(rate(value)+" "+unit+"/s", capacity, "%d")
}

func ofBytes(used, capacity uint64) string {
	if used == 0 || capacity == 0 {
		return bytesOf(used)
	}
	return size(used) + " of " + size(capacity)
}

// ofCapacity says of how much a value is, where that is known.
func ofCapacity(value string, capacity uint64, format string) string {
	if capacity == 0 || value == none {
		return value
	}
	return value + " of " + fmt.Sprintf(format, capacity)
}
