package kv

import (
	"bytes"
	"fmt"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// ValidateBatchPut returns ErrInvalidArgument, naming the field, for a batch that can't be executed.
func ValidateBatchPut(cmd *storagepb.BatchPut) error {
	if len(cmd.Pairs) > MaxBatch {
		return tooMany("kvs", len(cmd.Pairs), MaxBatch)
	}
	seen := make(map[string]int, len(cmd.Pairs))
	for i, pair := range cmd.Pairs {
		if err := ValidateKey(fmt.Sprintf("kvs[%d].key", i), pair.GetKey()); err != nil {
			return err
		}
		if err := ValidateValue(fmt.Sprintf("kvs[%d].value", i), pair.GetValue()); err != nil {
			return err
		}
		if first, twice := seen[string(pair.GetKey())]; twice {
			return metasrv.InvalidArgument(fmt.Sprintf("kvs[%d].key", i), "is also written by kvs[%d]: a batch writes no key twice", first)
		}
		seen[string(pair.GetKey())] = i
	}
	return nil
}

// ValidateKeys returns ErrInvalidArgument, naming the field, for a list of keys that can't be executed.
func ValidateKeys(keys [][]byte) error {
	if len(keys) > MaxBatch {
		return tooMany("keys", len(keys), MaxBatch)
	}
	for i, key := range keys {
		if err := ValidateKey(fmt.Sprintf("keys[%d]", i), key); err != nil {
			return err
		}
	}
	return nil
}

// ValidateMove returns ErrInvalidArgument, naming the field, for a move that can't be executed.
func ValidateMove(cmd *storagepb.MoveValue) error {
	if err := ValidateKey("from_key", cmd.FromKey); err != nil {
		return err
	}
	return ValidateKey("to_key", cmd.ToKey)
}

// previous collects the pairs that a batch replaced.
type previous struct {
	wanted bool
	pairs  []*storagepb.KvPair
	size   int
}

func (p *previous) add(pair *Pair) error {
	if !p.wanted || pair == nil {
		return nil
	}
	if p.size += pair.size(); p.size > MaxResultBytes {
		return metasrv.InvalidArgument("prev_kv", "the previous pairs have more than the %d bytes that can be returned; "+
			"take fewer keys, or leave out prev_kv", MaxResultBytes)
	}
	p.pairs = append(p.pairs, pair.toProto())
	return nil
}

func batchPut(tx state.Tx, cmd *storagepb.BatchPut) (*storagepb.KvResult, error) {
	if err := ValidateBatchPut(cmd); err != nil {
		return nil, err
	}
	prev := previous{wanted: cmd.PrevKv}
	for _, pair := range cmd.Pairs {
		before, err := write(tx, pair.Key, pair.Value, cmd.PrevKv)
		if err != nil {
			return nil, err
		}
		if err := prev.add(before); err != nil {
			return nil, err
		}
	}
	return &storagepb.KvResult{Prev: prev.pairs}, nil
}

func batchDelete(tx state.Tx, cmd *storagepb.BatchDelete) (*storagepb.KvResult, error) {
	if err := ValidateKeys(cmd.Keys); err != nil {
		return nil, err
	}
	prev := previous{wanted: cmd.PrevKv}
	deleted := int64(0)
	for _, key := range cmd.Keys {
		before, err := Get(tx, key)
		if err != nil {
			return nil, err
		}
		if before == nil {
			continue
		}
		if err := prev.add(before); err != nil {
			return nil, err
		}
		tx.Delete(prefix + string(key))
		deleted++
	}
	return &storagepb.KvResult{Deleted: deleted, Prev: prev.pairs}, nil
}

func moveValue(tx state.Tx, cmd *storagepb.MoveValue) (*storagepb.KvResult, error) {
	if err := ValidateMove(cmd); err != nil {
		return nil, err
	}
	from, err := Get(tx, cmd.FromKey)
	if err != nil {
		return nil, err
	}
	answer := from
	switch {
	case from == nil:
		if answer, err = Get(tx, cmd.ToKey); err != nil {
			return nil, err
		}
	case !bytes.Equal(cmd.FromKey, cmd.ToKey):
		if _, err := write(tx, cmd.ToKey, from.Value, false); err != nil {
			return nil, err
		}
		tx.Delete(prefix + string(cmd.FromKey))
	}
	if answer == nil {
		return &storagepb.KvResult{}, nil
	}
	return &storagepb.KvResult{Prev: []*storagepb.KvPair{answer.toProto()}}, nil
}
