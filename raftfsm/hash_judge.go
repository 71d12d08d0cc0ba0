package raftfsm

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// hashReport is what one member says of its states.
type hashReport struct {
	member string
	voter  bool
	// build names the program: only members of the same one are compared.
	build  string
	hashes []stateHash
}

// comparison is what a member concludes from the hashes of all.
type comparison struct {
	// wrong says that a majority of the voters agrees on another state than this member has. Empty where it doesn't.
	wrong string
	// split says that members differ and that no majority of the voters agrees on one state. nil where they don't.
	split *split
	// compared is the latest index at which this member agreed with another one, 0 for none.
	compared uint64
	// agreed is the latest index at which a majority of the voters has one state, 0 for none.
	agreed uint64
}

// split is that the states of members differ, and that no majority agrees on one.
type split struct {
	cause string
	// at is the index at which that was seen.
	at uint64
}

// after returns what holds behind a comparison, where was held before. A split ends when a majority agrees at its index or
// behind it: where fewer are heard, or only states from before they differed are shared, it stands.
func (c comparison) after(was *split, voters int) *split {
	switch {
	case voters < 2:
		return nil
	case was == nil || c.split == nil && c.agreed >= was.at:
		return c.split
	case c.split == nil:
		return was
	}
	return &split{cause: c.split.cause, at: max(c.split.at, was.at)}
}

// judge compares this member's states with those of others of its build. voters is the number of voters in the cluster,
// also of those that said nothing.
//
// A member is wrong at any index at which a majority has another hash, also if the states became equal again since: it may
// have answered from the wrong one. A split is only looked for behind the latest index at which a majority agrees: states
// that became equal need nobody to decide between them.
func judge(self hashReport, others []hashReport, voters int) comparison {
	var c comparison
	own := slices.SortedFunc(slices.Values(self.hashes), func(a, b stateHash) int {
		return cmp.Compare(b.index, a.index)
	})
	for _, mine := range own {
		t := tallyAt(mine, self, others)
		if t.others == 0 {
			continue
		}
		hash, agreed := t.majority(voters)
		if agreed {
			c.agreed = max(c.agreed, mine.index)
		}
		switch {
		case agreed && hash != mine.hash && c.wrong == "":
			c.wrong = fmt.Sprintf("at index %d a majority of the members has another state than member %s: %s", mine.index, self.member, t)
		case c.agreed == 0 && c.split == nil && len(t.voters) > 1:
			c.split = &split{at: mine.index,
				cause: fmt.Sprintf("at index %d the members' states differ, and no majority agrees on one: %s", mine.index, t)}
		case t.sameAs(mine.hash) > 0:
			c.compared = max(c.compared, mine.index)
		}
	}
	return c
}

// tally has the hashes of the state at one index.
type tally struct {
	// voters has the voters by the hash that they have, all has every member.
	voters, all map[uint64][]string
	self        string
	// others is the number of other members that have the index.
	others int
}

func tallyAt(mine stateHash, self hashReport, others []hashReport) tally {
	t := tally{voters: map[uint64][]string{}, all: map[uint64][]string{}, self: self.member}
	t.add(self, mine.hash)
	for _, o := range others {
		at := slices.IndexFunc(o.hashes, func(h stateHash) bool { return h.index == mine.index })
		if at < 0 || o.build != self.build {
			continue
		}
		t.others++
		t.add(o, o.hashes[at].hash)
	}
	return t
}

func (t *tally) add(r hashReport, hash uint64) {
	t.all[hash] = append(t.all[hash], r.member)
	if r.voter {
		t.voters[hash] = append(t.voters[hash], r.member)
	}
}

// majority returns the hash that more than half of the voters have.
func (t *tally) majority(voters int) (uint64, bool) {
	for hash, members := range t.voters {
		if len(members) > voters/2 {
			return hash, true
		}
	}
	return 0, false
}

// sameAs returns how many others have a hash.
func (t *tally) sameAs(hash uint64) int { return len(t.all[hash]) - 1 }

// String names every hash with the members that have it.
func (t tally) String() string {
	var parts []string
	for _, hash := range slices.Sorted(maps.Keys(t.all)) {
		parts = append(parts, fmt.Sprintf("%016x on %s", hash, strings.Join(slices.Sorted(slices.Values(t.all[hash])), ", ")))
	}
	return strings.Join(parts, "; ")
}
