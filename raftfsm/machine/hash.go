package machine

import (
	"math/bits"

	"github.com/cespare/xxhash/v2"
)

// The hash of a state is the sum, modulo 2^64, of the hashes of its pairs: a command adds what it wrote and subtracts
// what it overwrote, so keeping it costs nothing that grows with the state, and the order of the writes doesn't
// matter. It finds damage and members that differ; it is no defence against somebody who makes states that collide.

// Odd constants of xxhash and splitmix64: they keep key and value, and the numbers of a position, apart.
const (
	hashKeyFactor   = 0x9E3779B185EBCA87
	hashValueFactor = 0xC2B2AE3D27D4EB4F
)

// pairHash returns the hash of one pair. The words of a remembered refusal are not in it: members that were upgraded one
// after the other may have others.
func pairHash(key string, value []byte) uint64 {
	if isResult(key) {
		value = withoutMessage(value)
	}
	return mixPair(xxhash.Sum64String(key), xxhash.Sum64(value))
}

func mixPair(key, value uint64) uint64 {
	return mix(key*hashKeyFactor ^ bits.RotateLeft64(value, 31)*hashValueFactor)
}

// mix spreads each bit of h over all of the result (the last step of splitmix64).
func mix(h uint64) uint64 {
	h = (h ^ h>>30) * 0xBF58476D1CE4E5B9
	h = (h ^ h>>27) * 0x94D049BB133111EB
	return h ^ h>>31
}

// Hash returns the hash of the state: of every pair, and of the position.
func (v *View) Hash() uint64 { return hashAt(v.sum, v.pos) }

// Hash returns the hash of the present state.
func (m *Machine) Hash() uint64 { return hashAt(m.sum, m.pos) }

func hashAt(sum uint64, pos Position) uint64 {
	h := sum
	for _, n := range [...]uint64{pos.Index, pos.Term, pos.Revision, uint64(pos.Now)} {
		h = mix(h*hashKeyFactor ^ n)
	}
	return h
}

// Hasher adds up the hash of a state whose pairs pass by, in any order.
type Hasher struct{ sum uint64 }

// Add takes the next pair.
func (h *Hasher) Add(key, value []byte) {
	if isResult(key) {
		value = withoutMessage(value)
	}
	h.sum += mixPair(xxhash.Sum64(key), xxhash.Sum64(value))
}

// At returns the hash of a state of the pairs that were added.
func (h *Hasher) At(pos Position) uint64 { return hashAt(h.sum, pos) }
