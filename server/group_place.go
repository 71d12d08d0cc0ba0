package server

import (
	"slices"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/heartbeat"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
	"github.com/metasrv/metasrv/scheduler"
)

// placeTable chooses the nodes of a table's regions: datanodes that are in no group or, where a group is named or all are in
// groups, groups. loads are those of statuses.
func placeTable(
	view state.View, group string, statuses []heartbeat.NodeStatus, loads []scheduler.NodeLoad, req scheduler.Request,
) ([][]scheduler.Assignment, error) {
	grouped, alone := false, false
	for i, status := range statuses {
		grouped = grouped || loads[i].Grouped
		alone = alone || !loads[i].Grouped && status.Role == metasrvpb.NodeRole_NODE_ROLE_DATANODE
	}
	if group == "" && (alone || !grouped) {
		return scheduler.Policy{}.Place(loads, req)
	}
	return placeInGroups(view, group, statuses, loads, req)
}

// placeInGroups places each region in one group: its writer leads, its other live nodes follow.
func placeInGroups(
	view state.View, group string, statuses []heartbeat.NodeStatus, loads []scheduler.NodeLoad, req scheduler.Request,
) ([][]scheduler.Assignment, error) {
	if group != "" {
		if _, err := heartbeat.Group(view, group); err != nil {
			return nil, err
		}
	}
	followers := make(map[metasrv.NodeID][]scheduler.Assignment)
	var writers []scheduler.NodeLoad
	for g, err := range heartbeat.Groups(view) {
		if err != nil {
			return nil, err
		}
		live := liveMembers(g, statuses)
		writer := slices.IndexFunc(live, func(i int) bool { return uint64(statuses[i].ID) == g.WriterNodeId })
		if writer < 0 || len(live) < req.Replicas || group != "" && g.Name != group {
			continue
		}
		load := loads[live[writer]]
		load.Grouped = false
		writers = append(writers, load)
		for _, i := range slices.Delete(live, writer, writer+1) {
			followers[load.ID] = append(followers[load.ID], scheduler.Assignment{Node: loads[i].ID, Incarnation: loads[i].Incarnation})
		}
	}
	if len(writers) == 0 {
		return nil, metasrv.ErrTooFewDatanodes.With(
			"no group of nodes that may be chosen has a live writer and %d live nodes: see metactl group list", max(1, req.Replicas))
	}
	req.Replicas = 1
	placed, err := scheduler.Policy{}.Place(writers, req)
	if err != nil {
		return nil, err
	}
	for i, replicas := range placed {
		placed[i] = append(replicas, followers[replicas[0].Node]...)
	}
	return placed, nil
}

// liveMembers returns where the live members of a group stand in statuses.
func liveMembers(g *storagepb.GroupRecord, statuses []heartbeat.NodeStatus) []int {
	var live []int
	for i, status := range statuses {
		if status.Record.GetInfo().GetGroup() == g.Name && status.State == metasrvpb.NodeState_NODE_STATE_LIVE {
			live = append(live, i)
		}
	}
	return live
}
