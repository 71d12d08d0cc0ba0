// Package kv is a key-value store for the database's own metadata, in a key space of its own. It gives keys and
// values no meaning. Ranges are named as in the Store service: see Range.
//
// A key's record holds its value, the revisions of its creation and its last write, and the number of writes between:
// with them a client can compare what it has read with what is there, and tell a key from another one of the same name.
package kv

import (
	"bytes"
	"fmt"
	"iter"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// prefix stands before every key; stop is the first key behind them, as '0' follows '/'.
const (
	prefix = "kv/"
	stop   = "kv0"
)

// Range names keys: without End the one key; with End "\0" all keys from Key on; otherwise those with
// Key <= key < End. Key and End both "\0" mean all keys. Key may be empty where there is an End.
type Range struct {
	Key, End []byte
}

// Bounds returns the keys of the state between which the range lies; the second one is outside.
func (r Range) Bounds() (from, to string) {
	from = prefix + string(r.Key)
	switch {
	case len(r.End) == 0:
		return from, from + "\x00"
	case bytes.Equal(r.End, []byte{0}):
		return from, stop
	}
	return from, prefix + string(r.End)
}

// Get returns the pair of a key, nil where it does not exist.
func Get(v state.View, key []byte) (*Pair, error) {
	p := &Pair{Key: key}
	found, err := lookUp(v, prefix+string(key), p)
	if err != nil || !found {
		return nil, err
	}
	return p, nil
}

// lookUp fills p, but for its key, from the record under a key of the state; false where there is none.
func lookUp(v state.View, stateKey string, p *Pair) (bool, error) {
	record, ok := v.Get(stateKey)
	if !ok {
		return false, nil
	}
	if err := decodeRecord(record, p); err != nil {
		return false, fmt.Errorf("%s: %w", stateKey, err)
	}
	return true, nil
}

// Scan returns the pairs of a range in the order of their keys. After an error it ends.
func Scan(v state.View, r Range) iter.Seq2[Pair, error] {
	return func(yield func(Pair, error) bool) {
		from, to := r.Bounds()
		for key, record := range v.Ascend(from, to) {
			p := Pair{Key: userKey(key)}
			err := decodeRecord(record, &p)
			if err != nil {
				err = fmt.Errorf("%s: %w", key, err)
			}
			if !yield(p, err) || err != nil {
				return
			}
		}
	}
}

// Count returns the number of keys in a range.
func Count(v state.View, r Range) int64 {
	n := int64(0)
	from, to := r.Bounds()
	for range v.Ascend(from, to) {
		n++
	}
	return n
}

// Options say what Read returns.
type Options struct {
	// Limit is the largest number of pairs, 0 means all.
	Limit int64
	// KeysOnly leaves out the values.
	KeysOnly bool
	// PageBytes ends the page with the pair that reaches this size of keys and values. 0 means no end.
	PageBytes uint64
	// MaxBytes is the size at which Read refuses instead of going on. 0 means none.
	MaxBytes int
}

// Read returns the pairs of a range in the order of their keys, and whether the range has more. Errors are those of
// Range.Validate, ErrInvalidArgument for a negative limit, and ErrTooLarge.
func Read(v state.View, r Range, o Options) (pairs []Pair, more bool, err error) {
	if err := r.Validate(); err != nil {
		return nil, false, err
	}
	if o.Limit < 0 {
		return nil, false, metasrv.InvalidArgument("limit", "is %d", o.Limit)
	}
	size := 0
	for p, err := range Scan(v, r) {
		switch {
		case err != nil:
			return nil, false, err
		case o.Limit > 0 && int64(len(pairs)) == o.Limit, o.PageBytes > 0 && uint64(size) >= o.PageBytes: //nolint:gosec // sizes are positive
			return pairs, true, nil
		}
		if o.KeysOnly {
			p.Value = nil
		}
		size += p.size()
		if o.MaxBytes > 0 && size > o.MaxBytes {
			return nil, false, metasrv.ErrTooLarge.With("the range holds more than the %d bytes that one answer can have; "+
				"read it in pages: set limit, and go on behind the last key while there is more", o.MaxBytes)
		}
		pairs = append(pairs, p)
	}
	return pairs, false, nil
}

// Changed returns the pairs around a change of the state, nil where there is none; ok is false for a change of other
// keys than those of this package. Of a deletion, after holds the key and the revision as ModRevision.
func Changed(c *state.Change, revision uint64) (before, after *Pair, ok bool, err error) {
	if len(c.Key) < len(prefix) || c.Key[:len(prefix)] != prefix {
		return nil, nil, false, nil
	}
	after = &Pair{Key: userKey(c.Key), ModRevision: revision}
	if c.Value != nil {
		if err := decodeRecord(c.Value, after); err != nil {
			return nil, nil, true, fmt.Errorf("%s at revision %d: %w", c.Key, revision, err)
		}
	}
	if c.Prev != nil {
		before = &Pair{Key: after.Key}
		if err := decodeRecord(c.Prev, before); err != nil {
			return nil, nil, true, fmt.Errorf("%s before revision %d: %w", c.Key, revision, err)
		}
	}
	return before, after, true, nil
}

func userKey(key string) []byte { return []byte(key[len(prefix):]) }
