package linear

import (
	"fmt"
	"strings"

	"github.com/anishathalye/porcupine"
)

// Slots is the number of keys in a group.
const Slots = 3

// KVState holds the values of a group's keys, empty where there is none. Values that are written are never empty.
type KVState [Slots]string

// All as the slot of an action means every key of the group.
const All = -1

// Action is one part of an operation on a group.
type Action struct {
	// Put writes Value, Delete removes, Move gives the key To the value of Slot, which is removed; none of them reads.
	Put, Delete, Move bool
	Slot, To          int
	Value             string
	// Blind: the answer does not tell the values before the action.
	Blind bool
}

// Compare is a condition: that the key has Value or, where that is empty, is absent. Of All keys at least one must be
// there, and each that is must have Value; where that is empty, none may be there. Not wants another value, or the key,
// or any of All, to be there.
type Compare struct {
	Slot  int
	Value string
	Not   bool
}

func (c Compare) holds(s KVState) bool {
	there, all := false, true
	for i, value := range s {
		if value != "" && covers(c.Slot, i) {
			there = true
			all = all && (value == c.Value) != c.Not
		}
	}
	if c.Value == "" {
		return there == c.Not
	}
	return there && all
}

// covers reports whether a slot of an operation means a key.
func covers(slot, key int) bool { return slot == All || slot == key }

// KVCall is an operation on one group of keys: Then where every comparison holds, else Else. Actions see those before
// them. An operation without comparisons does Then.
type KVCall struct {
	Group   string
	Compare []Compare
	Then    []Action
	Else    []Action
	// Name says which request the operation is.
	Name string
}

// KVAnswer says which branch was taken, and what each of its actions found: the values before it, in its own slots. A
// move tells the value that it moves or, where there is none, the one that To has.
type KVAnswer struct {
	Else  bool
	Found []KVState
}

// Writes reports whether the operation can change something.
func (c *KVCall) Writes() bool {
	for _, a := range append(c.Then[:len(c.Then):len(c.Then)], c.Else...) {
		if a.Put || a.Delete || a.Move {
			return true
		}
	}
	return false
}

// taken returns the actions of the branch that an answer names.
func (c *KVCall) taken(a *KVAnswer) []Action {
	if a.Else {
		return c.Else
	}
	return c.Then
}

// run returns the state after the operation, and its answer.
func (c *KVCall) run(s KVState) (KVState, KVAnswer) {
	var answer KVAnswer
	for _, cmp := range c.Compare {
		answer.Else = answer.Else || !cmp.holds(s)
	}
	for _, a := range c.taken(&answer) {
		var found KVState
		s, found = a.run(s)
		answer.Found = append(answer.Found, found)
	}
	return s, answer
}

// run returns the state after the action, and what it found.
func (a Action) run(s KVState) (after, found KVState) {
	after = s
	if a.Move {
		told := a.Slot
		if s[a.Slot] == "" {
			told = a.To
		} else {
			after[a.Slot] = ""
			after[a.To] = s[a.Slot]
		}
		found[told] = s[told]
		return after, found
	}
	for i := range s {
		if !covers(a.Slot, i) {
			continue
		}
		if !a.Blind {
			found[i] = s[i]
		}
		if a.Put || a.Delete {
			after[i] = a.Value
		}
	}
	return after, found
}

// Known returns what a client knows of the values after an answer, where it took before for them until then.
func (c *KVCall) Known(before KVState, answer KVAnswer) KVState {
	for i, a := range c.taken(&answer) {
		for slot, value := range answer.Found[i] {
			if covers(a.Slot, slot) && !a.Blind || value != "" {
				before[slot] = value
			}
		}
		before, _ = a.run(before)
	}
	return before
}

func (a *KVAnswer) equal(b *KVAnswer) bool {
	if a.Else != b.Else || len(a.Found) != len(b.Found) {
		return false
	}
	for i := range a.Found {
		if a.Found[i] != b.Found[i] {
			return false
		}
	}
	return true
}

// changed reports whether an answered operation changed something, as far as the answer tells.
func changed(c *KVCall, answer *KVAnswer) bool {
	for i, a := range c.taken(answer) {
		switch found := answer.Found[i]; {
		case a.Put, a.Delete && (a.Blind || found != KVState{}), a.Move && a.Slot != a.To && found[a.Slot] != "":
			return true
		}
	}
	return false
}

// kvModel is the sequential store. Groups are independent of each other.
var kvModel = porcupine.Model{
	Partition: partitionBy(func(in any) string { return in.(KVCall).Group }),
	Init:      func() any { return KVState{} },
	Step: func(s, in, out any) (bool, any) {
		call := in.(KVCall)
		after, answer := call.run(s.(KVState))
		if out == nil {
			return true, after
		}
		got := out.(KVAnswer)
		return answer.equal(&got), after
	},
	DescribeOperation: func(in, out any) string {
		call := in.(KVCall)
		return call.String() + " → " + describeAnswer(out)
	},
	DescribeState: func(s any) string { return s.(KVState).String() },
}

func (s KVState) String() string {
	var b strings.Builder
	for i, v := range s {
		if v == "" {
			v = "-"
		}
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(v)
	}
	return b.String()
}

func (c *KVCall) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s", c.Name, c.Group)
	for _, cmp := range c.Compare {
		operator := "="
		if cmp.Not {
			operator = "!="
		}
		fmt.Fprintf(&b, " if %s%s%q", slotName(cmp.Slot), operator, cmp.Value)
	}
	describeActions(&b, c.Then)
	if len(c.Else) > 0 {
		b.WriteString(" else")
		describeActions(&b, c.Else)
	}
	return b.String()
}

func describeActions(b *strings.Builder, actions []Action) {
	for _, a := range actions {
		switch slot := slotName(a.Slot); {
		case a.Put:
			fmt.Fprintf(b, " put %s=%s", slot, a.Value)
		case a.Delete:
			fmt.Fprintf(b, " delete %s", slot)
		case a.Move:
			fmt.Fprintf(b, " move %s to %d", slot, a.To)
		default:
			fmt.Fprintf(b, " get %s", slot)
		}
	}
}

func slotName(slot int) string {
	if slot == All {
		return "*"
	}
	return fmt.Sprint(slot)
}

func describeAnswer(out any) string {
	if out == nil {
		return "?"
	}
	a := out.(KVAnswer)
	branch := ""
	if a.Else {
		branch = "else "
	}
	return fmt.Sprintf("%s%v", branch, a.Found)
}

// partitionBy returns a function that divides a history by a name in its operations.
func partitionBy(name func(in any) string) func([]porcupine.Operation) [][]porcupine.Operation {
	return func(history []porcupine.Operation) [][]porcupine.Operation {
		var parts [][]porcupine.Operation
		index := map[string]int{}
		for _, op := range history {
			key := name(op.Input)
			at, known := index[key]
			if !known {
				at = len(parts)
				index[key], parts = at, append(parts, nil)
			}
			parts[at] = append(parts[at], op)
		}
		return parts
	}
}
