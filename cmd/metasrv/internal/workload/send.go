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
	store := metasrvpb.NewStoreClient(conn)
	switch action := call.Then[0]; {
	case len(call.Compare) > 0:
		return sendCompareAndPut(ctx, store, call, header)
	case action.Put:
		r, err := store.Put(ctx, &metasrvpb.PutRequest{Header: header, Key: key(call.Group, action.Slot), Value: []byte(action.Value), PrevKv: !action.Blind}, client.Once())
		return found(call.Group, r.GetPrevKv()), r.GetHeader().GetRevision(), err
	case action.Delete:
		from, to := rangeOf(call.Group, action.Slot)
		r, err := store.DeleteRange(ctx, &metasrvpb.DeleteRangeRequest{Header: header, Key: from, RangeEnd: to, PrevKv: true})
		if err == nil && int(r.GetDeleted()) != len(r.GetPrevKvs()) {
			panic(fmt.Sprintf("deleted %d keys and returned %d", r.GetDeleted(), len(r.GetPrevKvs())))
		}
		return found(call.Group, r.GetPrevKvs()...), r.GetHeader().GetRevision(), err
	default:
		from, to := rangeOf(call.Group, action.Slot)
		r, err := store.Range(ctx, &metasrvpb.RangeRequest{Header: header, Key: from, RangeEnd: to})
		return found(call.Group, r.GetKvs()...), r.GetHeader().GetRevision(), err
	}
}

func sendCompareAndPut(ctx context.Context, store metasrvpb.StoreClient, call *linear.KVCall, header *metasrvpb.RequestHeader) (linear.KVAnswer, uint64, error) {
	put := call.Then[0]
	r, err := store.CompareAndPut(ctx, &metasrvpb.CompareAndPutRequest{
		Header: header, Key: key(call.Group, put.Slot), Expect: []byte(call.Compare[0].Value), Value: []byte(put.Value),
	})
	answer := found(call.Group)
	if !r.GetSuccess() {
		answer = found(call.Group, r.GetPrevKv())
		answer.Else = true
	}
	return answer, r.GetHeader().GetRevision(), err
}

func rangeOf(group string, slot int) (from, to []byte) {
	if slot == linear.All {
		return bounds(group)
	}
	return key(group, slot), nil
}

// found returns the answer of an operation with one action that found pairs.
func found(group string, pairs ...*metasrvpb.KeyValue) linear.KVAnswer {
	var s linear.KVState
	for _, pair := range pairs {
		for slot := range s {
			if pair != nil && bytes.Equal(pair.GetKey(), key(group, slot)) {
				s[slot] = string(pair.GetValue())
			}
		}
	}
	return linear.KVAnswer{Found: []linear.KVState{s}}
}

// errUnknown: the operation may have taken effect or not.
var errUnknown = errors.New("outcome unknown")

// errRefused: the operation had no effect and will have none.
var errRefused = errors.New("refused")

// refused reports whether an error says that the request had no effect and will have none.
func refused(err error) bool {
	switch client.Reason(err) {
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
	}
	return errRefused
}
