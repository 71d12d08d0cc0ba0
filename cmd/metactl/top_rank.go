package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// topKeys are what top can be sorted by; the first is the default. Regions have some of them only, and are sorted by load for
// the others.
var topKeys = []string{"load", "reads", "writes", "size", "cpu", "memory", "disk", "leaders", "replicas", "id"}

// rankNodes returns nodes with the highest value of a key first.
func rankNodes(nodes []*metasrvpb.Node, key string) []*metasrvpb.Node {
	value := func(n *metasrvpb.Node) float64 {
		switch key {
		case "reads":
			return n.GetRcusPerSecond()
		case "writes":
			return n.GetWcusPerSecond()
		case "cpu":
			return n.GetStat().GetCpuUsage()
		case "memory":
			return float64(n.GetStat().GetMemoryUsedBytes())
		case "disk", "size":
			return float64(n.GetStat().GetDiskUsedBytes())
		case "leaders":
			return float64(n.GetRegionLeaders())
		case "replicas":
			return float64(n.GetReplicas())
		case "id":
			return 0
		}
		return n.GetRcusPerSecond() + n.GetWcusPerSecond()
	}
	return ranked(nodes, value, func(n *metasrvpb.Node) uint64 { return n.GetPeer().GetId() })
}

// rankRegions returns regions with the highest value of a key first.
func rankRegions(regions []*metasrvpb.RegionInfo, periods map[uint64]float64, key string) []*metasrvpb.RegionInfo {
	value := func(r *metasrvpb.RegionInfo) float64 {
		reads, writes := regionRates(r, periods)
		switch key {
		case "reads":
			return reads
		case "writes":
			return writes
		case "size", "disk":
			leader, _ := replicas(r)
			return float64(leader.GetStat().GetApproximateSize())
		case "id":
			return 0
		}
		return reads + writes
	}
	return ranked(regions, value, (*metasrvpb.RegionInfo).GetRegionId)
}

func ranked[T any](list []T, value func(T) float64, id func(T) uint64) []T {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b T) int { return cmp.Or(-cmp.Compare(value(a), value(b)), cmp.Compare(id(a), id(b))) })
	return list
}

// periods returns the seconds that the last report of each node covers, which its regions' counters are of.
func (l *topLoad) periods() map[uint64]float64 {
	periods := map[uint64]float64{}
	for _, n := range l.nodes.GetNodes() {
		if rate := n.GetRcusPerSecond() + n.GetWcusPerSecond(); rate > 0 {
			periods[n.GetPeer().GetId()] = float64(n.GetStat().GetRcus()+n.GetStat().GetWcus()) / rate
		}
	}
	return periods
}

// regionRates returns what the leader of a region read and wrote per second, in capacity units.
func regionRates(r *metasrvpb.RegionInfo, periods map[uint64]float64) (reads, writes float64) {
	leader, _ := replicas(r)
	period := periods[leader.GetPeer().GetId()]
	if leader.GetStat() == nil || period == 0 {
		return 0, 0
	}
	return float64(leader.Stat.Rcus) / period, float64(leader.Stat.Wcus) / period
}

// frame returns what is shown, in at most height lines; 0 means as many as there are.
func (l *topLoad) frame(o topOptions, height int) []string {
	lines := []string{l.summary()}
	if l.failure != "" {
		lines = append(lines, "NOT UP TO DATE: "+l.failure)
	}
	nodes := rankNodes(l.nodes.GetNodes(), o.sort)
	regions := rankRegions(l.regions.GetRegions(), l.periods(), o.sort)
	nodeRows, regionRows := min(len(nodes), o.rows), min(len(regions), o.rows)
	if height > 0 {
		// Two blank lines and two headers besides. Regions give way first, down to half of the room.
		room := max(2, height-len(lines)-4)
		nodeRows = min(nodeRows, max(room-regionRows, room-room/2))
		regionRows = min(regionRows, room-nodeRows)
	}
	lines = append(lines, "")
	lines = append(lines, nodeLines(nodes[:nodeRows])...)
	lines = append(lines, more(len(nodes)-nodeRows, "node"))
	lines = append(lines, l.regionLines(regions[:regionRows])...)
	return lines
}

// more returns the line between two tables, which says how many rows there are besides.
func more(n int, noun string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("… and %s", plural(uint64(n), "more "+noun)) //nolint:gosec // never negative
}

func (l *topLoad) summary() string {
	s := l.stats
	at := l.nodes.GetHeader().GetMember()
	return fmt.Sprintf("from %s · nodes: %d live, %d suspect, %d down · %s, %s · %s RCU/s, %s WCU/s",
		at, s.GetLiveNodes(), s.GetSuspectNodes(), s.GetDownNodes(), plural(s.GetTables(), "table"), plural(s.GetRegions(), "region"),
		rate(s.GetRcusPerSecond()), rate(s.GetWcusPerSecond()))
}

func nodeLines(nodes []*metasrvpb.Node) []string {
	var b strings.Builder
	g := newGrid(&b, "NODE", "ADDRESS", "STATE", "RCU/S", "WCU/S", "CPU", "MEMORY", "DISK", "LEADERS", "REPLICAS", "BEAT")
	for _, n := range nodes {
		g.row(number(n.GetPeer().GetId()), n.GetPeer().GetAddr(), nodeStates(n), rate(n.GetRcusPerSecond()), rate(n.GetWcusPerSecond()),
			cpu(n.GetStat()), bytesOf(n.GetStat().GetMemoryUsedBytes()), bytesOf(n.GetStat().GetDiskUsedBytes()),
			number(n.GetRegionLeaders()), number(n.GetReplicas()), lastBeat(n))
	}
	g.end()
	return linesOf(b.String())
}

func (l *topLoad) regionLines(regions []*metasrvpb.RegionInfo) []string {
	var b strings.Builder
	title := "REGION"
	if l.of != 0 {
		title = fmt.Sprintf("REGION OF NODE %d", l.of)
	}
	g := newGrid(&b, title, "TABLE", "LEADER", "RCU/S", "WCU/S", "ROWS", "SIZE")
	periods := l.periods()
	for _, r := range regions {
		leader, _ := replicas(r)
		reads, writes := regionRates(r, periods)
		g.row(metasrv.RegionID(r.GetRegionId()).String(), tableName(r.GetTableName()), replicaText(leader), rate(reads), rate(writes),
			number(leader.GetStat().GetApproximateRows()), size(leader.GetStat().GetApproximateSize()))
	}
	g.end()
	return linesOf(b.String())
}

func linesOf(s string) []string { return strings.Split(strings.TrimSuffix(s, "\n"), "\n") }

// rate returns a number of things per second with three digits or so.
func rate(perSecond float64) string {
	const units = " kMG"
	i := 0
	for perSecond >= 1000 && i < len(units)-1 {
		perSecond, i = perSecond/1000, i+1
	}
	switch {
	case i > 0:
		return fmt.Sprintf("%.1f%c", perSecond, units[i])
	case perSecond == 0 || perSecond >= 10:
		return fmt.Sprintf("%.0f", perSecond)
	}
	return fmt.Sprintf("%.1f", perSecond)
}
