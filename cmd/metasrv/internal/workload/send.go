package workload

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strconv"

	"google.golang.org/grpc"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/client"
	"github.com/metasrv/metasrv/cmd/metasrv/internal/linear"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// key returns the key of a slot, bounds those of a whole group.
func key(group string, slot int) []byte { return []byte(group + "/" + strconv.Itoa(slot)) }

func bounds(group string) (from, to []byte) { return []byte(group + "/"), []byte(group + "0") }

// send makes one operation on the store by one call, and returns its answer and the revision of that.
func send(ctx context.Context, conn grpc.ClientConnInterface, call *linear.KVCall, header *metasrvpb.RequestHeader) (linear.KVAnswer, uint64, error) {
	store, first := metasrvpb.NewStoreClient(conn), call.Then[0]
	from, to := rangeOf(call.Group, first.Slot)
	switch call.Name {
	case get, rangeOfKeys:
		r, err := store.Range(ctx, &metasrvpb.RangeRequest{Header: header, Key: from, RangeEnd: to})
		return found(call, r.GetKvs()...), r.GetHeader().GetRevision(), err
	case put:
		r, err := store.Put(ctx, &metasrvpb.PutRequest{Header: header, Key: from, Value: []byte(first.Value), PrevKv: !first.Blind}, client.Once())
		return found(call, r.GetPrevKv()), r.GetHeader().GetRevision(), err
	case deleteRange:
		r, err := store.DeleteRange(ctx, &metasrvpb.DeleteRangeRequest{Header: header, Key: from, RangeEnd: to, PrevKv: true})
		if err == nil && int(r.GetDeleted()) != len(r.GetPrevKvs()) {
			panic(fmt.Sprintf("deleted %d keys and returned %d", r.GetDeleted(), len(r.GetPrevKvs())))
		}
		return found(call, r.GetPrevKvs()...), r.GetHeader().GetRevision(), err
	case moveValue:
		r, err := store.MoveValue(ctx, &metasrvpb.MoveValueRequest{Header: header, FromKey: from, ToKey: key(call.Group, first.To)})
		return found(call, r.GetKv()), r.GetHeader().GetRevision(), err
	case compareAndPut:
		return sendCompareAndPut(ctx, store, call, header)
	case txn:
		return sendTxn(ctx, store, call, header)
	}
	return sendBatch(ctx, store, call, header)
}

func sendCompareAndPut(ctx context.Context, store metasrvpb.StoreClient, call *linear.KVCall, header *metasrvpb.RequestHeader) (linear.KVAnswer, uint64, error) {
	put := call.Then[0]
	r, err := store.CompareAndPut(ctx, &metasrvpb.CompareAndPutRequest{
		Header: header, Key: key(call.Group, put.Slot), Expect: []byte(call.Compare[0].Value), Value: []byte(put.Value),
	})
	answer := found(call)
	if !r.GetSuccess() {
		answer = found(call, r.GetPrevKv())
		answer.Else = true
	}
	return answer, r.GetHeader().GetRevision(), err
}

func sendBatch(ctx context.Context, store metasrvpb.StoreClient, call *linear.KVCall, header *metasrvpb.RequestHeader) (linear.KVAnswer, uint64, error) {
	var keys [][]byte
	var pairs []*metasrvpb.KeyValue
	for _, a := range call.Then {
		keys = append(keys, key(call.Group, a.Slot))
		pairs = append(pairs, &metasrvpb.KeyValue{Key: key(call.Group, a.Slot), Value: []byte(a.Value)})
	}
	switch call.Name {
	case batchGet:
		r, err := store.BatchGet(ctx, &metasrvpb.BatchGetRequest{Header: header, Keys: keys})
		return found(call, r.GetKvs()...), r.GetHeader().GetRevision(), err
	case batchPut:
		r, err := store.BatchPut(ctx, &metasrvpb.BatchPutRequest{Header: header, Kvs: pairs, PrevKv: !call.Then[0].Blind}, client.Once())
		return found(call, r.GetPrevKvs()...), r.GetHeader().GetRevision(), err
	case batchDelete:
		r, err := store.BatchDelete(ctx, &metasrvpb.BatchDeleteRequest{Header: header, Keys: keys, PrevKv: true})
		return found(call, r.GetPrevKvs()...), r.GetHeader().GetRevision(), err
	}
	panic("no request is called " + call.Name)
}

func rangeOf(group string, slot int) (from, to []byte) {
	if slot == linear.All {
		return bounds(group)
	}
	return key(group, slot), nil
}

// found returns the answer of an operation that did Then and found pairs: each action those of its own keys.
func found(call *linear.KVCall, pairs ...*metasrvpb.KeyValue) linear.KVAnswer {
	var answer linear.KVAnswer
	for _, a := range call.Then {
		own := valuesOf(call.Group, pairs)
		for slot := range own {
			if slot != a.Slot && a.Slot != linear.All && (!a.Move || slot != a.To) {
				own[slot] = ""
			}
		}
		answer.Found = append(answer.Found, own)
	}
	return answer
}

// valuesOf returns the values of the pairs of a group.
func valuesOf(group string, pairs []*metasrvpb.KeyValue) linear.KVState {
	var s linear.KVState
	for _, pair := range pairs {
		for slot := range s {
			if pair != nil && bytes.Equal(pair.GetKey(), key(group, slot)) {
				s[slot] = string(pair.GetValue())
			}
		}
	}
	return s
}

// errUnknown: the operation may have taken effect or not.
var errUnknown = errors.New("outcome unknown")

// errRefused: the operation had no effect and will have none.
var errRefused = errors.New("refused")

// refused reports whether an error says that the request had no effect and will have none. No request of the workload is
// invalid.
func refused(err error) bool {
	switch client.Reason(err) {
	case metasrv.ErrInvalidArgument.Reason:
		panic(err)
	case metasrv.ErrOutcomeUnknown.Reason, metasrv.ErrInternal.Reason:
		return false
	case "":
		return errors.Is(err, errRefused)
	}
	return !errors.Is(err, errUnknown)
}

// libraryError returns what the client library says about the outcome of a request that failed.
func libraryError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, metasrv.ErrOutcomeUnknown):
		return errUnknown
	case errors.Is(err, metasrv.ErrInvalidArgument):
		panic(err)
	}
	return errRefused
}
