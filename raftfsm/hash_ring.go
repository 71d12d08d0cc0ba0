package raftfsm

import "slices"

const (
	// hashInterval is the distance in raft indexes at which members note the hash of their state. It need not be the same
	// in two builds: hashes of the indexes that both have are compared.
	hashInterval = 256
	// keptHashes is how many a member remembers: members that lag by less than all of them can be compared.
	keptHashes = 128
)

// hashRing holds the hashes of the latest states at every hashInterval-th index. Raft has entries that never reach the
// state, so that is the first index from there on that did; every member notes the same.
type hashRing struct {
	// hashes begins to be overwritten at next when it is full.
	hashes []stateHash
	next   int
}

// stateHash is the hash of the state at an index.
type stateHash struct{ index, hash uint64 }

// note is called when the state has gone from one index to another.
func (r *hashRing) note(from, to uint64, hash func() uint64) {
	if from/hashInterval == to/hashInterval {
		return
	}
	h := stateHash{index: to, hash: hash()}
	if len(r.hashes) < keptHashes {
		r.hashes = append(r.hashes, h)
		return
	}
	r.hashes[r.next] = h
	r.next = (r.next + 1) % keptHashes
}

// clear forgets all: the state was replaced.
func (r *hashRing) clear() { *r = hashRing{} }

// latestHashes returns the hashes of the latest states, the present one among them, in no order.
func (f *fsm) latestHashes() []stateHash {
	f.mu.Lock()
	defer f.mu.Unlock()
	hashes := slices.Clone(f.hashes.hashes)
	if present := f.machine.Position().Index; present > 0 {
		hashes = append(hashes, stateHash{index: present, hash: f.machine.Hash()})
	}
	return hashes
}
