package kv

import (
	"bytes"
	"fmt"

	"google.golang.org/protobuf/proto"

	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// Applier runs the commands of the key-value store. It holds nothing.
type Applier struct{}

// NewApplier returns the applier of the key-value store.
func NewApplier() Applier { return Applier{} }

// Kinds returns the commands of the key-value store.
func (Applier) Kinds() []storagepb.CommandKind {
	return []storagepb.CommandKind{
		storagepb.CommandKind_COMMAND_KIND_PUT,
		storagepb.CommandKind_COMMAND_KIND_COMPARE_AND_PUT,
		storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE,
	}
}

// Apply executes a command and answers with a KvResult. A CompareAndPut that finds another value is no error:
// its result has no success and the present pair.
func (Applier) Apply(tx state.Tx, kind storagepb.CommandKind, payload []byte) (proto.Message, error) {
	switch kind {
	case storagepb.CommandKind_COMMAND_KIND_PUT:
		return run(tx, payload, &storagepb.Put{}, put)
	case storagepb.CommandKind_COMMAND_KIND_COMPARE_AND_PUT:
		return run(tx, payload, &storagepb.CompareAndPut{}, compareAndPut)
	case storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE:
		return run(tx, payload, &storagepb.DeleteRange{}, deleteRange)
	}
	return nil, fmt.Errorf("kv was given a command of kind %s", kind)
}

// run decodes a command and executes it. A command or a record that this build can't decode is not a
// *metasrv.Error: it stops the member instead of being answered, for other members may understand it.
func run[C proto.Message](tx state.Tx, payload []byte, cmd C, apply func(state.Tx, C) (*storagepb.KvResult, error)) (proto.Message, error) {
	if err := state.Decode(payload, cmd); err != nil {
		return nil, err
	}
	result, err := apply(tx, cmd)
	if err != nil {
		return nil, err
	}
	return result, nil
}

func put(tx state.Tx, cmd *storagepb.Put) (*storagepb.KvResult, error) {
	if err := validatePair(cmd.Key, cmd.Value); err != nil {
		return nil, err
	}
	result := &storagepb.KvResult{}
	if prev, ok := Get(tx, cmd.Key); ok && cmd.PrevKv {
		result.Prev = []*storagepb.KvPair{{Key: cmd.Key, Value: prev}}
	}
	tx.Put(prefix+string(cmd.Key), cmd.Value)
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
	tx.Put(prefix+string(cmd.Key), cmd.Value)
	return &storagepb.KvResult{Success: true}, nil
}

func deleteRange(tx state.Tx, cmd *storagepb.DeleteRange) (*storagepb.KvResult, error) {
	pairs, _, err := Read(tx, Range{Key: cmd.Key, End: cmd.RangeEnd}, Options{KeysOnly: !cmd.PrevKv})
	if err != nil {
		return nil, err
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

func validatePair(key, value []byte) error {
	if err := ValidateKey("key", key); err != nil {
		return err
	}
	return ValidateValue("value", value)
}
