package kv

import (
	"github.com/metasrv/metasrv"
)

// Bounds of a key and a value, in bytes, and of the lists of a request.
const (
	MaxKeyLength   = 4 << 10
	MaxValueLength = 1 << 20
	// MaxTxnOps is the number of comparisons of a transaction, and of operations in each of its lists.
	MaxTxnOps = 128
	// MaxBatch is the number of keys of a batch.
	MaxBatch = 16 << 10
	// MaxResultBytes bounds the keys and values that a command answers with: a result is part of the state until its
	// client has acknowledged it.
	MaxResultBytes = 4 << 20
)

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

// ValidatePair returns ErrInvalidArgument for a key or a value that can't be one.
func ValidatePair(key, value []byte) error {
	if err := ValidateKey("key", key); err != nil {
		return err
	}
	return ValidateValue("value", value)
}

func tooLong(field string, length, most int) error {
	return metasrv.InvalidArgument(field, "has %d bytes, at most %d are allowed", length, most)
}

func tooMany(field string, n, most int) error {
	return metasrv.InvalidArgument(field, "has %d entries, at most %d are allowed", n, most)
}
