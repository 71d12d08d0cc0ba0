package linear

import (
	"fmt"
	"math"
	"slices"
)

// IDCall asks for a new number of a sequence, IDAnswer is the number. They are given out in rising order, each once,
// also to others than the clients of the history.
type IDCall struct{ Sequence string }

// IDAnswer is a number that was given out.
type IDAnswer struct{ ID uint64 }

// checkIDs returns what is wrong with the numbers of every sequence.
func checkIDs(ops []Op) (problems []string) {
	sequences := map[string][]Op{}
	for _, op := range ops {
		if call, ok := op.In.(IDCall); ok && op.Known() {
			sequences[call.Sequence] = append(sequences[call.Sequence], op)
		}
	}
	for name, given := range sequences {
		id := func(op *Op) uint64 { return op.Out.(IDAnswer).ID }
		owner := map[uint64]bool{}
		for _, op := range given {
			if owner[id(&op)] {
				problems = append(problems, fmt.Sprintf("%s %d was given out twice", name, id(&op)))
			}
			owner[id(&op)] = true
		}
		problems = append(problems, inOrder(given, func(before, after *Op) string {
			if id(before) < id(after) {
				return ""
			}
			return fmt.Sprintf("%s %d was given out after %d", name, id(after), id(before))
		}, id)...)
	}
	return problems
}

// inOrder compares each operation with the one of the greatest rank among those that returned before it was called,
// and collects what compare says against it.
func inOrder(ops []Op, compare func(before, after *Op) string, rank func(*Op) uint64) (problems []string) {
	byCall, byReturn := slices.Clone(ops), slices.Clone(ops)
	slices.SortFunc(byCall, func(a, b Op) int { return int(a.Call - b.Call) })
	slices.SortFunc(byReturn, func(a, b Op) int { return int(a.Return - b.Return) })
	var greatest *Op
	next := 0
	for i := range byCall {
		for next < len(byReturn) && byReturn[next].Return < byCall[i].Call {
			if greatest == nil || rank(&byReturn[next]) > rank(greatest) {
				greatest = &byReturn[next]
			}
			next++
		}
		if greatest == nil {
			continue
		}
		if problem := compare(greatest, &byCall[i]); problem != "" {
			problems = append(problems, problem)
		}
	}
	return problems
}

// checkRevisions returns what is wrong with the revisions in the answers: those of linearizable operations rise with
// the time, those of one member too, min_revision is kept, and no two changes have the same one.
func checkRevisions(ops []Op) (problems []string) {
	var linearizable []Op
	members := map[string][]Op{}
	changes := map[uint64]*Op{}
	for i := range ops {
		op := &ops[i]
		if !op.Known() || op.Revision == 0 {
			continue
		}
		if op.Revision < op.MinRevision {
			problems = append(problems, fmt.Sprintf("revision %d was asked for, member %s answered from %d: %s", op.MinRevision, op.Member, op.Revision, describe(op)))
		}
		if !op.Stale {
			linearizable = append(linearizable, *op)
		}
		call, kv := op.In.(KVCall)
		if kv && !call.Writes() {
			members[op.Member] = append(members[op.Member], *op)
		}
		if !kv || !madeRevision(op) {
			continue
		}
		if other := changes[op.Revision]; other != nil {
			problems = append(problems, fmt.Sprintf("two changes have revision %d: %s; %s", op.Revision, describe(other), describe(op)))
		}
		changes[op.Revision] = op
	}
	revision := func(op *Op) uint64 { return op.Revision }
	problems = append(problems, inOrder(linearizable, func(before, after *Op) string {
		if before.Revision < after.Revision || before.Revision == after.Revision && !madeRevision(after) {
			return ""
		}
		return fmt.Sprintf("a linearizable answer is of revision %d after one of %d: %s (by %s); %s (by %s)",
			after.Revision, before.Revision, describe(before), before.Member, describe(after), after.Member)
	}, revision)...)
	for member, reads := range members {
		problems = append(problems, inOrder(reads, func(before, after *Op) string {
			if before.Revision <= after.Revision {
				return ""
			}
			return fmt.Sprintf("member %s went back from revision %d to %d: %s; %s", member, before.Revision, after.Revision, describe(before), describe(after))
		}, revision)...)
	}
	return problems
}

// madeRevision reports whether an answered operation is known to have made a revision of its own.
func madeRevision(op *Op) bool {
	call, ok := op.In.(KVCall)
	if !ok {
		return false
	}
	answer := op.Out.(KVAnswer)
	return changed(&call, &answer)
}

func describe(op *Op) string {
	switch in := op.In.(type) {
	case KVCall:
		return kvModel.DescribeOperation(in, op.Out)
	case TableCall:
		return describeTable(in, op.Out)
	}
	return fmt.Sprintf("%v → %v", op.In, op.Out)
}

// byRevision returns the operations of the store, old reads among them, with their revisions in the place of time: what
// is read at a revision, by whatever member, is what the changes up to it have made. Changes of unknown outcome come
// after what was known when they were called.
func byRevision(ops []Op) []Op {
	var known []Op
	for _, op := range ops {
		if _, kv := op.In.(KVCall); kv && op.Known() && op.Revision > 0 && !op.Stale {
			known = append(known, op)
		}
	}
	slices.SortFunc(known, func(a, b Op) int { return int(a.Return - b.Return) })
	reached := make([]uint64, len(known)) // the greatest revision of the first so many answers
	for i, op := range known {
		reached[i] = op.Revision
		if i > 0 {
			reached[i] = max(reached[i], reached[i-1])
		}
	}
	var out []Op
	for _, op := range ops {
		if _, kv := op.In.(KVCall); !kv {
			continue
		}
		switch {
		case !op.Known():
			at, _ := slices.BinarySearchFunc(known, op.Call, func(o Op, t int64) int { return int(o.Return - t) })
			op.Call, op.Return = 0, math.MaxInt64
			if at > 0 {
				op.Call = 2*int64(reached[at-1]) + 2 //nolint:gosec // revisions are small
			}
		case op.Revision == 0:
			continue
		case madeRevision(&op):
			op.Call = 2 * int64(op.Revision) //nolint:gosec // revisions are small
			op.Return = op.Call
		default:
			op.Call = 2*int64(op.Revision) + 1 //nolint:gosec // revisions are small
			op.Return = op.Call
		}
		out = append(out, op)
	}
	return out
}
