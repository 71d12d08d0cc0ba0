package linear

import (
	"fmt"

	"github.com/anishathalye/porcupine"
)

// TableOp is what is done to a table's name.
type TableOp string

// The operations on tables.
const (
	// CreateTable reserves the name; the answer has the id.
	CreateTable TableOp = "create"
	// CommitTable makes the creation with an id public, AbortTable gives it up.
	CommitTable TableOp = "commit"
	AbortTable  TableOp = "abort"
	// DropTable drops the public table with the name; the answer has its id.
	DropTable TableOp = "drop"
	// GetTable reads the public table with the name.
	GetTable TableOp = "get"
)

// TableCall is an operation on a table's name.
type TableCall struct {
	Op   TableOp
	Name string
	// ID of the creation to commit or to abort.
	ID uint64
}

// TableAnswer is the answer. It is refused where a table with the name exists (create), the creation has ended or is
// no more (commit, abort), or no public table has the name (drop, get).
type TableAnswer struct {
	Refused bool
	ID      uint64
}

type tableState struct {
	phase tablePhase
	// id is 0 where the answer of the creation is unknown.
	id uint64
}

type tablePhase string

const (
	tableAbsent   tablePhase = "absent"
	tableCreating tablePhase = "creating"
	tablePublic   tablePhase = "public"
)

// tableModel is the life of a name. Nothing is aborted but by AbortTable: deadlines are longer than the histories.
var tableModel = porcupine.Model{
	Partition:         partitionBy(func(in any) string { return in.(TableCall).Name }),
	Init:              func() any { return tableState{phase: tableAbsent} },
	Step:              func(s, in, out any) (bool, any) { return stepTable(s.(tableState), in.(TableCall), out) },
	DescribeOperation: describeTable,
	DescribeState:     func(s any) string { return fmt.Sprintf("%s %d", s.(tableState).phase, s.(tableState).id) },
}

func stepTable(s tableState, call TableCall, out any) (bool, tableState) {
	after, want := runTable(s, call)
	if out == nil {
		return true, after
	}
	got := out.(TableAnswer)
	if call.Op == CreateTable && !want.Refused && !got.Refused {
		return true, tableState{tableCreating, got.ID} // which id it gets is not the model's business
	}
	return got == want, after
}

func runTable(s tableState, call TableCall) (tableState, TableAnswer) {
	refused := TableAnswer{Refused: true}
	switch call.Op {
	case CreateTable:
		if s.phase == tableAbsent {
			return tableState{phase: tableCreating}, TableAnswer{}
		}
	case CommitTable:
		if s.phase != tableAbsent && s.id == call.ID {
			return tableState{tablePublic, s.id}, TableAnswer{ID: call.ID}
		}
	case AbortTable:
		if s.phase == tableCreating && s.id == call.ID {
			return tableState{phase: tableAbsent}, TableAnswer{ID: call.ID}
		}
	case DropTable:
		if s.phase == tablePublic {
			return tableState{phase: tableAbsent}, TableAnswer{ID: s.id}
		}
	case GetTable:
		if s.phase == tablePublic {
			return s, TableAnswer{ID: s.id}
		}
	}
	return s, refused
}

func describeTable(in, out any) string {
	call := in.(TableCall)
	text := fmt.Sprintf("%s %s", call.Op, call.Name)
	if call.ID != 0 {
		text += fmt.Sprintf(" (id %d)", call.ID)
	}
	if out == nil {
		return text + " → ?"
	}
	if answer := out.(TableAnswer); !answer.Refused {
		return fmt.Sprintf("%s → id %d", text, answer.ID)
	}
	return text + " → refused"
}
