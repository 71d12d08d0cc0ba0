// Package kv is a key-value store for the database's own metadata, in a key space of its own. It gives keys and
// values no meaning. Ranges are named as in the Store service: see Range.
package kv

import (
	"bytes"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Bounds of a key and a value, in bytes.
const (
	MaxKeyLength   = 4 << 10
	MaxValueLength = 1 << 20
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

// Validate returns ErrInvalidArgument, naming the field, where the range can't be one.
func (r Range) Validate() error {
	if len(r.End) == 0 {
		return ValidateKey("key", r.Key)
	}
	if len(r.Key) > MaxKeyLength {
		return tooLong("key", len(r.Key), MaxKeyLength)
	}
	if len(r.End) > MaxKeyLength {
		return tooLong("range_end", len(r.End), MaxKeyLength)
	}
	return nil
}

// bounds returns the keys of the state between which the range lies; the second one is outside.
func (r Range) bounds() (from, to string) {
	from = prefix + string(r.Key)
	switch {
	case len(r.End) == 0:
		return from, from + "\x00"
	case bytes.Equal(r.End, []byte{0}):
		return from, stop
	}
	return from, prefix + string(r.End)
}

// ValidateKey returns ErrInvalidArgument for the given request field unless the key has 1 to MaxKeyLength bytes.
func ValidateKey(field string, key []byte) error {
	if len(key) == 0 {
		return metasrv.InvalidArgument(field, "is empty")
	}
	if len(key) > MaxKeyLength {
		return tooLong(field, len(key), MaxKeyLength)
	}
	return nil
}

// ValidateValue returns ErrInvalidArgument for the given request field where the value has more than
// MaxValueLength bytes.
func ValidateValue(field string, value []byte) error {
	if len(value) > MaxValueLength {
		return tooLong(field, len(value), MaxValueLength)
	}
	return nil
}

func tooLong(field string, length, most int) error {
	return metasrv.InvalidArgument(field, "has %d bytes, at most %d are allowed", length, most)
}

// Options say what Read returns.
type Options struct {
	// Limit is the largest number of pairs, 0 means all.
	Limit int64
	// KeysOnly leaves out the values.
	KeysOnly bool
}

// Get returns the value of a key, and whether it exists. The value must not be modified.
func Get(v state.View, key []byte) ([]byte, bool) { return v.Get(prefix + string(key)) }

// Read returns the pairs of a range in the order of their keys, and whether the range has more than Limit.
// Errors are those of Range.Validate, and ErrInvalidArgument for a negative limit.
func Read(v state.View, r Range, o Options) (pairs []*storagepb.KvPair, more bool, err error) {
	if err := r.Validate(); err != nil {
		return nil, false, err
	}
	if o.Limit < 0 {
		return nil, false, metasrv.InvalidArgument("limit", "is %d", o.Limit)
	}
	from, to := r.bounds()
	for key, value := range v.Ascend(from, to) {
		if o.Limit > 0 && int64(len(pairs)) == o.Limit {
			return pairs, true, nil
		}
		pair := &storagepb.KvPair{Key: userKey(key)}
		if !o.KeysOnly {
			pair.Value = value
		}
		pairs = append(pairs, pair)
	}
	return pairs, false, nil
}

func userKey(key string) []byte { return []byte(key[len(prefix):]) }
