package kv

import (
	"bytes"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// MaxPrevBytes bounds what DeleteRange returns of what it deleted: a result is kept for its session.
const MaxPrevBytes = 4 << 20

// NewApplier returns the applier of the key-value store. Its commands answer with a KvResult. A CompareAndPut that
// finds another value is no error: its result has no success and the present pair.
func NewApplier() state.Applier {
	return state.NewApplier(
		state.On(storagepb.CommandKind_COMMAND_KIND_PUT, put),
		state.On(storagepb.CommandKind_COMMAND_KIND_COMPARE_AND_PUT, compareAndPut),
		state.On(storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE, deleteRange),
	)
}

func put(tx state.Tx, cmd *storagepb.Put) (*storagepb.KvResult, error) {
	if err := validatePair(cmd.Key, cmd.Value); err != nil {
		return nil, err
	}
	var result *storagepb.KvResult
	if cmd.PrevKv {
		if prev, ok := Get(tx, cmd.Key); ok {
			result = &storagepb.KvResult{Prev: []*storagepb.KvPair{{Key: cmd.Key, Value: prev}}}
		}
	}
	tx.Put(prefix+string(cmd.Key), bytes.Clone(cmd.Value))
	return result, nil
}

func compareAndPut(tx state.Tx, cmd *storagepb.CompareAndPut) (*storagepb.KvResult, error) {
	if err := validatePair(cmd.Key, cmd.Value); err != nil {
		return nil, err
	}
	present, ok := Get(tx, cmd.Key)
	expected := ok && len(cmd.Expect) > 0 && bytes.Equal(present, cmd.Expect) || !ok && len(cmd.Expect) == 0
	if !expected {
		result := &storagepb.KvResult{}
		if ok {
			result.Prev = []*storagepb.KvPair{{Key: cmd.Key, Value: present}}
		}
		return result, nil
	}
	tx.Put(prefix+string(cmd.Key), bytes.Clone(cmd.Value))
	return &storagepb.KvResult{Success: true}, nil
}

func deleteRange(tx state.Tx, cmd *storagepb.DeleteRange) (*storagepb.KvResult, error) {
	pairs, _, err := Read(tx, Range{Key: cmd.Key, End: cmd.RangeEnd}, Options{KeysOnly: !cmd.PrevKv})
	if err != nil {
		return nil, err
	}
	if n := bytesOf(pairs); cmd.PrevKv && n > MaxPrevBytes {
		return nil, metasrv.InvalidArgument("prev_kv", "the range holds %d bytes, of which at most %d can be returned; "+
			"read it by Range and delete it without prev_kv", n, MaxPrevBytes)
	}
	result := &storagepb.KvResult{Deleted: int64(len(pairs))}
	for _, pair := range pairs {
		tx.Delete(prefix + string(pair.Key))
	}
	if cmd.PrevKv {
		result.Prev = pairs
	}
	return result, nil
}

// bytesOf returns the size of keys and values.
func bytesOf(pairs []*storagepb.KvPair) int {
	n := 0
	for _, p := range pairs {
		n += len(p.Key) + len(p.Value)
	}
	return n
}

func validatePair(key, value []byte) error {
	if err := ValidateKey("key", key); err != nil {
		return err
	}
	return ValidateValue("value", value)
}
