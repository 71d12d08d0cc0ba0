package router

import (
	"fmt"
	"slices"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Abort is a creation that is to be given up.
type Abort struct {
	Table  metasrv.TableID
	Name   metasrv.TableName
	Token  uint64
	Reason string
}

// Command returns the command that gives the creation up. It names the creation, so it can't hit another one.
func (a Abort) Command() *storagepb.AbortTable {
	return &storagepb.AbortTable{TableId: uint64(a.Table), CreationToken: a.Token, Reason: a.Reason}
}

// Creations finds the creations that are to be given up. It remembers what never changes of those that are under way, so
// that each look reads only those that began since the last one. It is of one term: the state that it looks at never
// goes back.
type Creations struct {
	known map[metasrv.TableID]pendingTable
}

// pendingTable is what decides about a table that is not PUBLIC.
type pendingTable struct {
	// ended: the table is no longer CREATING, and never will be again.
	ended    bool
	deadline state.LeaderTime
	planned  []plannedNode
}

// plannedNode is a node on which a creation wants replicas, and the first of its regions there.
type plannedNode struct {
	incarnation
	region metasrv.RegionID
}

type incarnation struct {
	node metasrv.NodeID
	is   metasrv.Incarnation
}

// Gone says whether an incarnation of a node will not come back, and why, for people.
type Gone func(metasrv.NodeID, metasrv.Incarnation) (bool, string)

// PlanAborts returns the creations whose deadline has passed, and those that can't be committed any more because a planned
// node is gone.
func (c *Creations) PlanAborts(v state.View, now state.LeaderTime, gone Gone) ([]Abort, error) {
	var aborts []Abort
	gone = askedOnce(gone)
	pending := make(map[metasrv.TableID]pendingTable, len(c.known))
	for id, err := range catalog.PendingIDs(v) {
		if err != nil {
			return nil, err
		}
		one, known := c.known[id]
		if !known {
			if one, err = readPending(v, id); err != nil {
				return nil, err
			}
		}
		if reason := one.abortReason(now, gone); reason != "" {
			table, err := catalog.GetTable(v, id)
			if err != nil {
				return nil, err
			}
			if one.ended = table.State != metasrvpb.TableState_TABLE_STATE_CREATING; !one.ended {
				aborts = append(aborts, Abort{Table: id, Name: catalog.Name(table), Token: table.CreationToken, Reason: reason})
			}
		}
		pending[id] = one
	}
	c.known = pending
	return aborts, nil
}

func readPending(v state.View, id metasrv.TableID) (pendingTable, error) {
	table, err := catalog.GetTable(v, id)
	if err != nil {
		return pendingTable{}, err
	}
	if table.State != metasrvpb.TableState_TABLE_STATE_CREATING {
		return pendingTable{ended: true}, nil
	}
	record, err := located(v, table)
	if err != nil {
		return pendingTable{}, err
	}
	c := pendingTable{deadline: state.LeaderTime(table.CreationDeadlineMs)}
	for region, replica := range replicas(record.Route) {
		on := incarnation{metasrv.NodeID(replica.NodeId), metasrv.Incarnation(replica.PlannedIncarnation)}
		if !slices.ContainsFunc(c.planned, func(p plannedNode) bool { return p.incarnation == on }) {
			c.planned = append(c.planned, plannedNode{on, metasrv.RegionID(region.RegionId)})
		}
	}
	return c, nil
}

// abortReason returns "" for a creation that goes on, or has ended.
func (c *pendingTable) abortReason(now state.LeaderTime, gone Gone) string {
	switch {
	case c.ended:
		return ""
	case now >= c.deadline:
		return "it was not committed before its deadline"
	}
	for _, p := range c.planned {
		if is, why := gone(p.node, p.is); is {
			return fmt.Sprintf("node %d, planned for region %s, %s", p.node, p.region, why)
		}
	}
	return ""
}

// askedOnce returns gone for one moment: with many creations under way, the same few incarnations come again and again.
func askedOnce(gone Gone) Gone {
	type answer struct {
		is  bool
		why string
	}
	known := make(map[incarnation]answer)
	return func(id metasrv.NodeID, i metasrv.Incarnation) (bool, string) {
		a, asked := known[incarnation{id, i}]
		if !asked {
			a.is, a.why = gone(id, i)
			known[incarnation{id, i}] = a
		}
		return a.is, a.why
	}
}
