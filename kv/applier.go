package kv

import (
	"bytes"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// NewApplier returns the applier of the key-value store. TXN answers with a TxnResult, the other commands with a
// KvResult. A CompareAndPut that finds another value is no error: its result has no success and the present pair.
func NewApplier() state.Applier {
	return state.NewApplier(
		state.On(storagepb.CommandKind_COMMAND_KIND_PUT, put),
		state.On(storagepb.CommandKind_COMMAND_KIND_COMPARE_AND_PUT, compareAndPut),
		state.On(storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE, deleteRange),
		state.On(storagepb.CommandKind_COMMAND_KIND_BATCH_PUT, batchPut),
		state.On(storagepb.CommandKind_COMMAND_KIND_BATCH_DELETE, batchDelete),
		state.On(storagepb.CommandKind_COMMAND_KIND_MOVE_VALUE, moveValue),
		state.On(storagepb.CommandKind_COMMAND_KIND_TXN, txn),
	)
}

func put(tx state.Tx, cmd *storagepb.Put) (*storagepb.KvResult, error) {
	if err := ValidatePair(cmd.Key, cmd.Value); err != nil {
		return nil, err
	}
	prev, err := write(tx, cmd.Key, cmd.Value, cmd.PrevKv)
	if err != nil {
		return nil, err
	}
	var result *storagepb.KvResult
	if prev != nil {
		result = &storagepb.KvResult{Prev: []*storagepb.KvPair{prev.toProto()}}
	}
	return result, nil
}

// write gives a key a value and returns the pair that it had, where that is wanted; nil where there was none.
func write(tx state.Tx, key, value []byte, wanted bool) (*Pair, error) {
	stateKey := prefix + string(key)
	before := Pair{Key: key}
	existed, err := lookUp(tx, stateKey, &before)
	if err != nil {
		return nil, err
	}
	// The revision of a command is that of the state when it has been applied.
	revision := tx.Revision() + 1
	next := Pair{Value: value, CreateRevision: revision, ModRevision: revision, Version: 1}
	if existed {
		next.CreateRevision, next.Version = before.CreateRevision, before.Version+1
	}
	tx.Put(stateKey, encodeRecord(&next))
	if !existed || !wanted {
		return nil, nil
	}
	prev := before // on the heap only where it is wanted
	return &prev, nil
}

func compareAndPut(tx state.Tx, cmd *storagepb.CompareAndPut) (*storagepb.KvResult, error) {
	if err := ValidatePair(cmd.Key, cmd.Value); err != nil {
		return nil, err
	}
	present, err := Get(tx, cmd.Key)
	if err != nil {
		return nil, err
	}
	expected := present == nil
	if len(cmd.Expect) > 0 {
		expected = present != nil && bytes.Equal(present.Value, cmd.Expect)
	}
	if !expected {
		result := &storagepb.KvResult{}
		if present != nil {
			result.Prev = []*storagepb.KvPair{present.toProto()}
		}
		return result, nil
	}
	if _, err := write(tx, cmd.Key, cmd.Value, false); err != nil {
		return nil, err
	}
	return &storagepb.KvResult{Success: true}, nil
}

func deleteRange(tx state.Tx, cmd *storagepb.DeleteRange) (*storagepb.KvResult, error) {
	r := Range{Key: cmd.Key, End: cmd.RangeEnd}
	if err := r.Validate(); err != nil {
		return nil, err
	}
	deleted, prev, err := remove(tx, r, cmd.PrevKv, MaxResultBytes)
	if err != nil {
		return nil, err
	}
	return &storagepb.KvResult{Deleted: deleted, Prev: prev}, nil
}

// remove deletes a range. It returns the number of keys and, where wanted, the pairs, of at most limit bytes.
func remove(tx state.Tx, r Range, wantPrev bool, limit int) (deleted int64, prev []*storagepb.KvPair, err error) {
	from, to := r.Bounds()
	if !wantPrev {
		for key := range tx.Ascend(from, to) {
			tx.Delete(key)
			deleted++
		}
		return deleted, nil, nil
	}
	size := 0
	for pair, err := range Scan(tx, r) {
		if err != nil {
			return 0, nil, err
		}
		if size += pair.size(); size > limit {
			return 0, nil, metasrv.InvalidArgument("prev_kv", "the range holds more than the %d bytes that can be returned; "+
				"read it by Range and delete it without prev_kv", limit)
		}
		tx.Delete(prefix + string(pair.Key))
		prev = append(prev, pair.toProto())
	}
	return int64(len(prev)), prev, nil
}
