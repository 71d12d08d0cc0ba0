package server

import (
	"slices"
	"strings"
)

// keyRange holds the keys of the state with from <= key < to.
type keyRange struct{ from, to string }

func (r keyRange) contains(key string) bool { return r.from <= key && key < r.to }

// prefixRange returns the range of all keys that begin with a prefix, which ends with '/': '0' follows it.
func prefixRange(prefix string) keyRange { return keyRange{prefix, prefix[:len(prefix)-1] + "0"} }

// rangeIndex finds the watchers of a key in a time that does not grow with those that don't watch it: a binary tree
// over the ranges by their begin, laid out in a slice, where each subtree knows its furthest end.
type rangeIndex struct {
	entries []indexEntry
}

type indexEntry struct {
	keyRange
	watcher *watcher
	// furthest is the greatest to in the subtree of the entry.
	furthest string
}

func newRangeIndex(watchers map[*watcher]struct{}) *rangeIndex {
	x := &rangeIndex{}
	for w := range watchers {
		for _, r := range w.ranges {
			x.entries = append(x.entries, indexEntry{keyRange: r, watcher: w})
		}
	}
	slices.SortFunc(x.entries, func(a, b indexEntry) int { return strings.Compare(a.from, b.from) })
	x.measure(0, len(x.entries))
	return x
}

// measure sets furthest in the subtree of the entries between low and high, and returns it.
func (x *rangeIndex) measure(low, high int) string {
	if low >= high {
		return ""
	}
	middle := (low + high) / 2
	e := &x.entries[middle]
	e.furthest = max(e.to, x.measure(low, middle), x.measure(middle+1, high))
	return e.furthest
}

// find calls found for each range that contains a key.
func (x *rangeIndex) find(key string, found func(*watcher)) { x.findIn(0, len(x.entries), key, found) }

func (x *rangeIndex) findIn(low, high int, key string, found func(*watcher)) {
	for low < high {
		middle := (low + high) / 2
		e := &x.entries[middle]
		if e.furthest <= key {
			return
		}
		x.findIn(low, middle, key, found)
		if key < e.from {
			return
		}
		if key < e.to {
			found(e.watcher)
		}
		low = middle + 1
	}
}
