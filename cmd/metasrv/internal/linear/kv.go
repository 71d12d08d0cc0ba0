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
	// Put writes Value, Delete removes; neither reads.
	Put, Delete bool
	Slot        int
	Value       string
	// Blind: the answer does not tell the values before the action.
	Blind bool
}

// Compare is a condition on one key, which an empty Value wants to be absent.
type Compare struct {
	Slot  int
	Value string
}

// KVCall is an operation on one group of keys: Then where every comparison holds, else Else. Actions see those before
// them. An operation without comparisons does Then.
type KVCall struct {
	Group   string
	Compare []Compare
	Then    []Action
	Else    []Action
	// Name of the operation, for people.
	Name string
}

// KVAnswer says which branch was taken, and what each of its actions found: the values before it, in its own slots.
type KVAnswer struct {
	Else  bool
	Found []KVState
}

// Writes reports whether the operation can change something.
func (c *KVCall) Writes() bool {
	for _, a := range append(c.Then[:len(c.Then):len(c.Then)], c.Else...) {
		if a.Put || a.Delete {
			return true
		}
	}
	return false
}

// run returns the state after the operation, and its answer.
func (c *KVCall) run(s KVState) (KVState, KVAnswer) {
	var answer KVAnswer
	for _, cmp := range c.Compare {
		answer.Else = answer.Else || s[cmp.Slot] != cmp.Value
	}
	actions := c.Then
	if answer.Else {
		actions = c.Else
	}
	for _, a := range actions {
		var found KVState
		for i := range s {
			if a.Slot != All && a.Slot != i {
				continue
			}
			if !a.Blind {
				found[i] = s[i]
			}
			if a.Put || a.Delete {
				s[i] = a.Value
			}
		}
		answer.Found = append(answer.Found, found)
	}
	return s, answer
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
	actions := c.Then
	if answer.Else {
		actions = c.Else
	}
	for i, a := range actions {
		if a.Put || a.Delete && (a.Blind || answer.Found[i] != KVState{}) {
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
		fmt.Fprintf(&b, " if %d=%q", cmp.Slot, cmp.Value)
	}
	describe := func(actions []Action) {
		for _, a := range actions {
			slot := fmt.Sprint(a.Slot)
			if a.Slot == All {
				slot = "*"
			}
			switch {
			case a.Put:
				fmt.Fprintf(&b, " put %s=%s", slot, a.Value)
			case a.Delete:
				fmt.Fprintf(&b, " delete %s", slot)
			default:
				fmt.Fprintf(&b, " get %s", slot)
			}
		}
	}
	describe(c.Then)
	if len(c.Else) > 0 {
		b.WriteString(" else")
		describe(c.Else)
	}
	return b.String()
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
