package router

import (
	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Registered returns what a node's present registration says, and whether it has one. It reads nothing but the view.
type Registered func(v state.View, id metasrv.NodeID) (metasrv.Registration, bool)

// once returns the function for one view that asks once for each node: the replicas of a table are on a few.
func (r Registered) once(v state.View) func(metasrv.NodeID) (metasrv.Registration, bool) {
	type answer struct {
		id           metasrv.NodeID
		registration metasrv.Registration
		ok           bool
	}
	var room [16]answer
	known := room[:0] // a table has replicas on few nodes, so no map
	return func(id metasrv.NodeID) (metasrv.Registration, bool) {
		for i := range known {
			if known[i].id == id {
				return known[i].registration, known[i].ok
			}
		}
		a := answer{id: id}
		a.registration, a.ok = r(v, id)
		if len(known) < maxKnown {
			known = append(known, a)
		}
		return a.registration, a.ok
	}
}

// maxKnown bounds the nodes that are searched one by one.
const maxKnown = 64

// applier has what the commands of the router need beside the state.
type applier struct {
	registered Registered
}

// NewApplier returns the applier of the router. Its commands answer with a TableResult: the table and its route as the
// command left them, of ConfirmDropped an empty one.
func NewApplier(registered Registered) state.Applier {
	a := &applier{registered: registered}
	return state.NewApplier(
		state.Needing(state.On(storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE, a.createTable), creationNeeds),
		state.On(storagepb.CommandKind_COMMAND_KIND_COMMIT_TABLE, a.commitTable),
		state.On(storagepb.CommandKind_COMMAND_KIND_ABORT_TABLE, a.abortTable),
		state.On(storagepb.CommandKind_COMMAND_KIND_DROP_TABLE, a.dropTable),
		state.On(storagepb.CommandKind_COMMAND_KIND_CONFIRM_DROPPED, a.confirmDropped),
		state.On(storagepb.CommandKind_COMMAND_KIND_CHANGE_REGIONS, a.changeRegions).Since(ChangesSince),
	)
}

// ChangesSince is the command version with which changes of regions came, and what they rest on: CreateTable.replicas and
// unclean_failover. Commands that say more than the version allows are refused before the log.
const ChangesSince = 2

// creationNeeds returns the command version that a creation needs.
func creationNeeds(cmd *storagepb.CreateTable) uint32 {
	if cmd.GetReplicas() > 0 || cmd.GetUncleanFailover() {
		return ChangesSince
	}
	return 0
}

// creation returns the table that a creation token names, whatever became of it. ErrCreationEnded: the
// table's records are gone, or another creation has the token.
func creation(v state.View, id metasrv.TableID, token uint64) (Record, error) {
	table, err := catalog.GetTable(v, id)
	switch {
	case isNotFound(err):
		return Record{}, metasrv.ErrCreationEnded.With("table %d does not exist: its creation was given up, or never began", id)
	case err != nil:
		return Record{}, err
	case table.CreationToken != token:
		return Record{}, metasrv.ErrCreationEnded.With("table %d was not created with this token", id)
	}
	return located(v, table)
}

// ended returns ErrCreationEnded for a table that is no longer in state CREATING.
func ended(table *storagepb.TableRecord) error {
	name := catalog.Name(table)
	switch table.State {
	case metasrvpb.TableState_TABLE_STATE_PUBLIC:
		return metasrv.ErrCreationEnded.With("table %q (id %d) was committed", name, table.Id)
	case metasrvpb.TableState_TABLE_STATE_DROPPING:
		return metasrv.ErrCreationEnded.With("table %q (id %d) was dropped", name, table.Id)
	}
	return metasrv.ErrCreationEnded.With("creation of table %q (id %d) was aborted: %s", name, table.Id, table.Reason)
}

func result(r Record) *storagepb.TableResult {
	return &storagepb.TableResult{Table: r.Table, Route: r.Route}
}
