package workload

import "github.com/metasrv/metasrv/cmd/metasrv/internal/linear"

// The requests that operations on the store are.
const (
	get           = "get"
	rangeOfKeys   = "range"
	batchGet      = "batch-get"
	put           = "put"
	batchPut      = "batch-put"
	compareAndPut = "compare-and-put"
	deleteRange   = "delete"
	batchDelete   = "batch-delete"
	moveValue     = "move-value"
	txn           = "txn"
)

// question returns an operation that reads.
func (w *worker) question(group string) linear.KVCall {
	switch n := w.percent(); {
	case n < 40:
		return linear.KVCall{Name: rangeOfKeys, Group: group, Then: []linear.Action{{Slot: linear.All}}}
	case n < 46:
		return linear.KVCall{Name: txn, Group: group, Compare: w.comparisons(group), Then: []linear.Action{{Slot: linear.All}}, Else: []linear.Action{{Slot: w.slot()}}}
	case n < 51:
		return linear.KVCall{Name: batchGet, Group: group, Then: w.each(func(slot int) linear.Action { return linear.Action{Slot: slot} })}
	}
	return linear.KVCall{Name: get, Group: group, Then: []linear.Action{{Slot: w.slot()}}}
}

// change returns an operation that may change a group.
func (w *worker) change(group string) linear.KVCall {
	slot, blind := w.slot(), w.chance(50)
	call := linear.KVCall{Group: group}
	switch n := w.percent(); {
	case n < 25:
		call.Name, call.Then = put, []linear.Action{{Put: true, Slot: slot, Value: w.value(), Blind: blind}}
	case n < 47:
		call.Name, call.Compare = compareAndPut, []linear.Compare{{Slot: slot, Value: w.known[group][slot]}}
		call.Then, call.Else = []linear.Action{{Put: true, Slot: slot, Value: w.value(), Blind: true}}, []linear.Action{{Slot: slot}}
	case n < 68:
		call.Name, call.Compare = txn, w.comparisons(group)
		call.Then, call.Else = w.writes(), []linear.Action{{Slot: linear.All}}
		if w.chance(50) {
			call.Else = w.writes()
		}
	case n < 78:
		call.Name = batchPut
		call.Then = w.each(func(slot int) linear.Action {
			return linear.Action{Put: true, Slot: slot, Value: w.value(), Blind: blind}
		})
	case n < 87:
		call.Name, call.Then = moveValue, []linear.Action{{Move: true, Slot: slot, To: w.slot()}}
	case n < 91:
		call.Name = batchDelete
		call.Then = w.each(func(slot int) linear.Action { return linear.Action{Delete: true, Slot: slot} })
	case n < 98:
		call.Name, call.Then = deleteRange, []linear.Action{{Delete: true, Slot: slot}}
	default:
		call.Name, call.Then = deleteRange, []linear.Action{{Delete: true, Slot: linear.All}}
	}
	return call
}

func (w *worker) slot() int { return w.random.IntN(linear.Slots) }

// each returns an action for each of some keys, at least one, in any order.
func (w *worker) each(action func(slot int) linear.Action) []linear.Action {
	var actions []linear.Action
	for _, slot := range w.random.Perm(linear.Slots)[:1+w.slot()] {
		actions = append(actions, action(slot))
	}
	return actions
}

// comparisons returns up to two, which often hold.
func (w *worker) comparisons(group string) []linear.Compare {
	var all []linear.Compare
	for range w.random.IntN(3) {
		slot := w.slot()
		c := linear.Compare{Slot: slot, Value: w.known[group][slot]}
		switch n := w.percent(); {
		case n < 20:
			c.Not, c.Value = true, w.known[group][w.slot()]
		case n < 36:
			c = linear.Compare{Slot: linear.All, Not: w.chance(80)}
		case n < 42:
			c.Slot, c.Not = linear.All, w.chance(50)
		}
		all = append(all, c)
	}
	return all
}

// writes returns a list of a transaction: it writes some keys, none twice, and may read before and behind that.
func (w *worker) writes() []linear.Action {
	list := w.each(func(slot int) linear.Action {
		if w.chance(30) {
			return linear.Action{Delete: true, Slot: slot}
		}
		return linear.Action{Put: true, Slot: slot, Value: w.value(), Blind: w.chance(50)}
	})
	if w.chance(10) {
		list = []linear.Action{{Delete: true, Slot: linear.All}}
	}
	if w.chance(30) {
		list = append([]linear.Action{{Slot: w.slot()}}, list...)
	}
	if w.chance(50) {
		list = append(list, linear.Action{Slot: linear.All})
	}
	return list
}
