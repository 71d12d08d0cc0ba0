package router

import (
	"fmt"

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

// PlanAborts returns the creations whose deadline has passed, and those that can't be committed any more
// because a planned node is gone. gone says whether the given incarnation of a node is, and why, for people.
func PlanAborts(v state.View, now state.LeaderTime, gone func(metasrv.NodeID, metasrv.Incarnation) (bool, string)) ([]Abort, error) {
	var aborts []Abort
	gone = askedOnce(gone)
	for table, err := range catalog.Pending(v) {
		if err != nil {
			return nil, err
		}
		if table.State != metasrvpb.TableState_TABLE_STATE_CREATING {
			continue
		}
		reason, err := abortReason(v, table, now, gone)
		if err != nil {
			return nil, err
		}
		if reason != "" {
			id := metasrv.TableID(table.Id)
			aborts = append(aborts, Abort{Table: id, Name: catalog.Name(table), Token: table.CreationToken, Reason: reason})
		}
	}
	return aborts, nil
}

// askedOnce returns gone for one moment: with many creations under way, the same few incarnations come again and again.
func askedOnce(gone func(metasrv.NodeID, metasrv.Incarnation) (bool, string)) func(metasrv.NodeID, metasrv.Incarnation) (bool, string) {
	type node struct {
		id          metasrv.NodeID
		incarnation metasrv.Incarnation
	}
	type answer struct {
		is  bool
		why string
	}
	known := make(map[node]answer)
	return func(id metasrv.NodeID, incarnation metasrv.Incarnation) (bool, string) {
		a, asked := known[node{id, incarnation}]
		if !asked {
			a.is, a.why = gone(id, incarnation)
			known[node{id, incarnation}] = a
		}
		return a.is, a.why
	}
}

// abortReason returns "" for a creation that goes on.
func abortReason(v state.View, table *storagepb.TableRecord, now state.LeaderTime, gone func(metasrv.NodeID, metasrv.Incarnation) (bool, string)) (string, error) {
	if uint64(now) >= table.CreationDeadlineMs {
		return "it was not committed before its deadline", nil
	}
	record, err := located(v, table)
	if err != nil {
		return "", err
	}
	for region, replica := range replicas(record.Route) {
		if is, why := gone(metasrv.NodeID(replica.NodeId), metasrv.Incarnation(replica.PlannedIncarnation)); is {
			return fmt.Sprintf("node %d, planned for region %s, %s", replica.NodeId, metasrv.RegionID(region.RegionId), why), nil
		}
	}
	return "", nil
}
