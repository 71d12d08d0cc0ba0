package router

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/catalog"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Registered returns the incarnation of a node's present registration, and whether it has one. It reads
// nothing but the view.
type Registered func(v state.View, id metasrv.NodeID) (metasrv.Incarnation, bool)

// Applier runs the commands of the router.
type Applier struct {
	registered Registered
}

// NewApplier returns the applier of the router.
func NewApplier(registered Registered) *Applier { return &Applier{registered: registered} }

// Kinds returns the commands of the router.
func (*Applier) Kinds() []storagepb.CommandKind {
	return []storagepb.CommandKind{
		storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE,
		storagepb.CommandKind_COMMAND_KIND_COMMIT_TABLE,
		storagepb.CommandKind_COMMAND_KIND_ABORT_TABLE,
		storagepb.CommandKind_COMMAND_KIND_DROP_TABLE,
		storagepb.CommandKind_COMMAND_KIND_CONFIRM_DROPPED,
	}
}

// Apply executes a command and answers with a TableResult: the table and its route as the command left them,
// of ConfirmDropped an empty one.
func (a *Applier) Apply(tx state.Tx, kind storagepb.CommandKind, payload []byte) (proto.Message, error) {
	switch kind {
	case storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE:
		return run(tx, payload, &storagepb.CreateTable{}, a.createTable)
	case storagepb.CommandKind_COMMAND_KIND_COMMIT_TABLE:
		return run(tx, payload, &storagepb.CommitTable{}, a.commitTable)
	case storagepb.CommandKind_COMMAND_KIND_ABORT_TABLE:
		return run(tx, payload, &storagepb.AbortTable{}, abortTable)
	case storagepb.CommandKind_COMMAND_KIND_DROP_TABLE:
		return run(tx, payload, &storagepb.DropTable{}, dropTable)
	case storagepb.CommandKind_COMMAND_KIND_CONFIRM_DROPPED:
		return run(tx, payload, &storagepb.ConfirmDropped{}, a.confirmDropped)
	}
	return nil, fmt.Errorf("router was given a command of kind %s", kind)
}

// run decodes a command and executes it. A command or a record that this build can't decode is not a
// *metasrv.Error: it stops the member instead of being answered, for other members may understand it.
func run[C proto.Message](tx state.Tx, payload []byte, cmd C, apply func(state.Tx, C) (*storagepb.TableResult, error)) (proto.Message, error) {
	if err := state.Decode(payload, cmd); err != nil {
		return nil, err
	}
	result, err := apply(tx, cmd)
	if err != nil {
		return nil, err
	}
	return result, nil
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
