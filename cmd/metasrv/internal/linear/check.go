package linear

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Report is the judgement on a history.
type Report struct {
	// Illegal names the parts of the history that no order of its operations explains.
	Illegal []string
	// Undecided names the parts for which the time was too short to tell.
	Undecided []string
	// Problems are promises about revisions and ids that were broken.
	Problems []string
	// Pages are the files that show the illegal parts.
	Pages []string
	// Ops counts the operations, Unknown those of unknown outcome.
	Ops, Unknown int
}

// Failed reports whether the history is wrong. One that is undecided is not.
func (r *Report) Failed() bool { return len(r.Illegal)+len(r.Problems) > 0 }

// maxProblems bounds what String tells: one mistake has many consequences.
const maxProblems = 8

// String says what is wrong, and where it can be seen.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d operations, %d of unknown outcome", r.Ops, r.Unknown)
	for _, part := range r.Undecided {
		fmt.Fprintf(&b, "\nundecided in the given time: %s", part)
	}
	for _, part := range r.Illegal {
		fmt.Fprintf(&b, "\nnot linearizable: %s", part)
	}
	for i, p := range r.Problems {
		if i == maxProblems {
			fmt.Fprintf(&b, "\nand %d more", len(r.Problems)-i)
			break
		}
		b.WriteString("\n" + p)
	}
	for _, page := range r.Pages {
		fmt.Fprintf(&b, "\nsee %s", page)
	}
	return b.String()
}

// Check judges a history. Each part may take up to the limit of real time. Pages that show what is illegal go to the
// folder dir, which is made when it is needed; none are written where dir is empty.
func Check(ops []Op, limit time.Duration, dir string) (*Report, error) {
	r := &Report{Ops: len(ops)}
	for _, op := range ops {
		if !op.Known() {
			r.Unknown++
		}
	}
	var current, tables []Op
	for _, op := range ops {
		switch op.In.(type) {
		case KVCall:
			if !op.Stale {
				current = append(current, op)
			}
		case TableCall:
			tables = append(tables, op)
		}
	}
	for _, part := range []struct {
		name  string
		model porcupine.Model
		ops   []Op
	}{
		{"store", kvModel, current},
		{"store-by-revision", kvModel, byRevision(ops)},
		{"tables", tableModel, tables},
	} {
		if err := r.check(part.name, part.model, part.ops, limit, dir); err != nil {
			return nil, err
		}
	}
	r.Problems = slices.Concat(checkIDs(ops), checkRevisions(ops), checkExpiries(ops))
	if r.Failed() && dir != "" {
		return r, r.list(ops, dir)
	}
	return r, nil
}

// list writes all operations as text.
func (r *Report) list(ops []Op, dir string) error {
	var b strings.Builder
	for i := range ops {
		op := &ops[i]
		level := ""
		if op.Stale {
			level = fmt.Sprintf(" stale, from %d on", op.MinRevision)
		}
		fmt.Fprintf(&b, "[%d, %d] client %d, revision %d, member %s%s: %s\n", op.Call, op.Return, op.Client, op.Revision, op.Member, level, describe(op))
	}
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return err
	}
	page := filepath.Join(dir, "operations.txt")
	r.Pages = append(r.Pages, page)
	return os.WriteFile(page, []byte(b.String()), 0o600)
}

func (r *Report) check(name string, model porcupine.Model, ops []Op, limit time.Duration, dir string) error {
	history := make([]porcupine.Operation, len(ops))
	for i, op := range ops {
		history[i] = porcupine.Operation{ClientId: op.Client, Input: op.In, Call: op.Call, Output: op.Out, Return: op.Return, Metadata: op.Member}
	}
	for _, part := range model.Partition(history) {
		alone := model
		alone.Partition = nil
		switch porcupine.CheckOperationsTimeout(alone, part, limit) {
		case porcupine.Ok:
			continue
		case porcupine.Unknown:
			r.Undecided = append(r.Undecided, fmt.Sprintf("%s %s", name, partName(part)))
			continue
		}
		r.Illegal = append(r.Illegal, fmt.Sprintf("%s %s", name, partName(part)))
		if dir == "" {
			continue
		}
		if err := os.MkdirAll(dir, 0o750); err != nil {
			return err
		}
		page := filepath.Join(dir, fmt.Sprintf("%s-%s.html", name, partName(part)))
		_, info := porcupine.CheckOperationsVerbose(alone, part, limit)
		if err := porcupine.VisualizePath(alone, info, page); err != nil {
			return err
		}
		r.Pages = append(r.Pages, page)
	}
	return nil
}

func partName(part []porcupine.Operation) string {
	switch in := part[0].Input.(type) {
	case KVCall:
		return in.Group
	case TableCall:
		return in.Name
	}
	return "all"
}
