package kv

import (
	"errors"
	"fmt"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

// ValidateTxn returns ErrInvalidArgument, naming the field, for a transaction that can't be executed. A list that
// writes a key twice is one: which of the two was meant to last can't be told.
func ValidateTxn(cmd *storagepb.Txn) error {
	if len(cmd.Compares) > MaxTxnOps {
		return tooMany("compare", len(cmd.Compares), MaxTxnOps)
	}
	for i, c := range cmd.Compares {
		if err := validateCompare(c); err != nil {
			return within(fmt.Sprintf("compare[%d]", i), err)
		}
	}
	if err := validateOps("success", cmd.Success); err != nil {
		return err
	}
	return validateOps("failure", cmd.Failure)
}

func validateOps(list string, ops []*storagepb.TxnOp) error {
	if len(ops) > MaxTxnOps {
		return tooMany(list, len(ops), MaxTxnOps)
	}
	for i, op := range ops {
		if field, err := validateOp(op); err != nil {
			return within(fmt.Sprintf("%s[%d]%s", list, i, field), err)
		}
	}
	return validateWrites(list, ops)
}

// validateOp returns the field of an operation that can't be executed, and why.
func validateOp(op *storagepb.TxnOp) (field string, err error) {
	switch op := op.GetOp().(type) {
	case *storagepb.TxnOp_Range:
		r := op.Range
		if r.GetLimit() < 0 {
			return ".range", metasrv.InvalidArgument("limit", "is %d", r.GetLimit())
		}
		return ".range", Range{Key: r.GetKey(), End: r.GetRangeEnd()}.Validate()
	case *storagepb.TxnOp_Put:
		return ".put", ValidatePair(op.Put.GetKey(), op.Put.GetValue())
	case *storagepb.TxnOp_DeleteRange:
		return ".delete_range", Range{Key: op.DeleteRange.GetKey(), End: op.DeleteRange.GetRangeEnd()}.Validate()
	}
	return "", metasrv.InvalidArgument("op", "is absent: say what to do, range, put or delete_range")
}

// validateWrites returns ErrInvalidArgument where a list puts a key twice, or puts one that it also deletes. To delete a
// key twice is to delete it.
func validateWrites(list string, ops []*storagepb.TxnOp) error {
	type deletion struct {
		place    int
		from, to string
	}
	var deletions []deletion
	for i, op := range ops {
		if d := op.GetDeleteRange(); d != nil {
			from, to := Range{Key: d.Key, End: d.RangeEnd}.Bounds()
			deletions = append(deletions, deletion{i, from, to})
		}
	}
	puts := map[string]int{}
	for i, op := range ops {
		put := op.GetPut()
		if put == nil {
			continue
		}
		key := prefix + string(put.Key)
		if first, twice := puts[key]; twice {
			return duplicate(list, i, first)
		}
		puts[key] = i
		for _, d := range deletions {
			if d.from <= key && key < d.to {
				return duplicate(list, i, d.place)
			}
		}
	}
	return nil
}

func duplicate(list string, i, other int) error {
	return metasrv.InvalidArgument(fmt.Sprintf("%s[%d].put.key", list, i),
		"is also written by %s[%d]: a transaction writes no key twice", list, other)
}

// within puts the place of a message before the field of an error in it.
func within(place string, err error) error {
	e, ok := errors.AsType[*metasrv.Error](err)
	if !ok {
		return err
	}
	return metasrv.InvalidArgument(place+"."+e.Field, "%s", e.Message)
}

func txn(tx state.Tx, cmd *storagepb.Txn) (*storagepb.TxnResult, error) {
	if err := ValidateTxn(cmd); err != nil {
		return nil, err
	}
	return execute(tx, cmd)
}

// ReadTxn executes a transaction whose lists only read.
func ReadTxn(v state.View, cmd *storagepb.Txn) (*storagepb.TxnResult, error) {
	if err := ValidateTxn(cmd); err != nil {
		return nil, err
	}
	return execute(readOnly{v}, cmd)
}

// ReadsOnly reports whether nothing in a transaction writes.
func ReadsOnly(cmd *storagepb.Txn) bool {
	for _, list := range [][]*storagepb.TxnOp{cmd.Success, cmd.Failure} {
		for _, op := range list {
			if _, reads := op.GetOp().(*storagepb.TxnOp_Range); !reads {
				return false
			}
		}
	}
	return true
}

// readOnly is a Tx for transactions that only read.
type readOnly struct{ state.View }

func (readOnly) Put(key string, _ []byte) {
	panic("write of " + key + " in a transaction that only reads")
}
func (readOnly) Delete(key string)     { panic("deletion of " + key + " in a transaction that only reads") }
func (readOnly) Now() state.LeaderTime { return 0 }

// execute runs the list that the comparisons choose. Its results together are bounded as that of one command.
func execute(tx state.Tx, cmd *storagepb.Txn) (*storagepb.TxnResult, error) {
	result := &storagepb.TxnResult{Succeeded: true}
	for _, c := range cmd.Compares {
		ok, err := holds(tx, c)
		if err != nil {
			return nil, err
		}
		if !ok {
			result.Succeeded = false
			break
		}
	}
	list, ops := "success", cmd.Success
	if !result.Succeeded {
		list, ops = "failure", cmd.Failure
	}
	left := MaxResultBytes
	for i, op := range ops {
		r, err := executeOp(tx, op, left)
		if err != nil {
			return nil, refusedIn(fmt.Sprintf("%s[%d]", list, i), err)
		}
		for _, pair := range r.Pairs {
			left -= len(pair.Key) + len(pair.Value)
		}
		result.Results = append(result.Results, r)
	}
	return result, nil
}

// refusedIn names the operation that was refused. Other errors stop the member and stay as they are.
func refusedIn(place string, err error) error {
	if e, ok := errors.AsType[*metasrv.Error](err); ok {
		return metasrv.InvalidArgument(place, "%s; the operations of a transaction can return %d bytes together", e.Message, MaxResultBytes)
	}
	return err
}

// executeOp runs one operation, whose result may have limit bytes.
func executeOp(tx state.Tx, op *storagepb.TxnOp, limit int) (*storagepb.TxnOpResult, error) {
	switch op := op.GetOp().(type) {
	case *storagepb.TxnOp_Range:
		return readInTxn(tx, op.Range, limit)
	case *storagepb.TxnOp_Put:
		prev, err := write(tx, op.Put.Key, op.Put.Value, op.Put.PrevKv)
		if err != nil || prev == nil {
			return &storagepb.TxnOpResult{}, err
		}
		if prev.size() > limit {
			return nil, metasrv.ErrTooLarge.With("the previous pair has %d bytes", prev.size())
		}
		return &storagepb.TxnOpResult{Pairs: []*storagepb.KvPair{prev.toProto()}}, nil
	default:
		d := op.(*storagepb.TxnOp_DeleteRange).DeleteRange
		deleted, prev, err := remove(tx, Range{Key: d.Key, End: d.RangeEnd}, d.PrevKv, limit)
		if err != nil {
			return nil, err
		}
		return &storagepb.TxnOpResult{Count: deleted, Pairs: prev}, nil
	}
}

func readInTxn(v state.View, op *storagepb.TxnRange, limit int) (*storagepb.TxnOpResult, error) {
	r := Range{Key: op.Key, End: op.RangeEnd}
	if op.CountOnly {
		return &storagepb.TxnOpResult{Count: Count(v, r)}, nil
	}
	// 0 would mean no bound.
	pairs, more, err := Read(v, r, Options{Limit: op.Limit, KeysOnly: op.KeysOnly, MaxBytes: max(1, limit)})
	if err != nil {
		return nil, err
	}
	result := &storagepb.TxnOpResult{More: more, Count: int64(len(pairs))}
	for i := range pairs {
		result.Pairs = append(result.Pairs, pairs[i].toProto())
	}
	return result, nil
}
