package client

import (
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Prefix returns key and range_end of the range of all keys that begin with a prefix; of all keys where it is empty.
func Prefix(prefix string) (key, rangeEnd []byte) {
	// The end is the prefix with its last byte that can be raised raised.
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			end := []byte(prefix[:i+1])
			end[i]++
			return []byte(prefix), end
		}
	}
	if prefix == "" {
		return []byte{0}, []byte{0}
	}
	return []byte(prefix), []byte{0}
}

// Absent holds where a key does not exist: who writes it then is the first.
func Absent(key string) *metasrvpb.Compare {
	return &metasrvpb.Compare{Key: []byte(key), Target: &metasrvpb.Compare_Exists{}}
}

// Unchanged holds where the last write of a key is the one of a revision: its pair is the one that was read.
func Unchanged(key string, modRevision uint64) *metasrvpb.Compare {
	return &metasrvpb.Compare{Key: []byte(key), Target: &metasrvpb.Compare_ModRevision{ModRevision: modRevision}}
}

// ValueIs holds where a key exists and has a value.
func ValueIs(key string, value []byte) *metasrvpb.Compare {
	return &metasrvpb.Compare{Key: []byte(key), Target: &metasrvpb.Compare_Value{Value: value}}
}

// OpPut writes a key in a transaction.
func OpPut(key string, value []byte) *metasrvpb.TxnOp {
	return &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Put{Put: &metasrvpb.PutRequest{Key: []byte(key), Value: value}}}
}

// OpGet reads a range in a transaction; limit 0 means all keys.
func OpGet(key, rangeEnd []byte, limit int64, keysOnly bool) *metasrvpb.TxnOp {
	return &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Range{Range: &metasrvpb.RangeRequest{
		Key: key, RangeEnd: rangeEnd, Limit: limit, KeysOnly: keysOnly,
	}}}
}

// OpDelete deletes a range in a transaction.
func OpDelete(key, rangeEnd []byte, prevKV bool) *metasrvpb.TxnOp {
	return &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_DeleteRange{DeleteRange: &metasrvpb.DeleteRangeRequest{
		Key: key, RangeEnd: rangeEnd, PrevKv: prevKV,
	}}}
}
