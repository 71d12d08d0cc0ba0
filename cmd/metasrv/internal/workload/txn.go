package workload

import (
	"context"

	"github.com/metasrv/metasrv/cmd/metasrv/internal/linear"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// sendTxn makes an operation by a transaction, and returns its answer and the revision of that.
func sendTxn(ctx context.Context, store metasrvpb.StoreClient, call *linear.KVCall, header *metasrvpb.RequestHeader) (linear.KVAnswer, uint64, error) {
	request := &metasrvpb.TxnRequest{Header: header, Success: txnOps(call.Group, call.Then), Failure: txnOps(call.Group, call.Else)}
	for _, c := range call.Compare {
		request.Compare = append(request.Compare, comparison(call.Group, c))
	}
	r, err := store.Txn(ctx, request)
	if err != nil {
		return linear.KVAnswer{}, 0, err
	}
	answer := linear.KVAnswer{Else: !r.GetSucceeded()}
	for _, response := range r.GetResponses() {
		var pairs []*metasrvpb.KeyValue
		switch response := response.GetResponse().(type) {
		case *metasrvpb.TxnOpResponse_Range:
			pairs = response.Range.GetKvs()
		case *metasrvpb.TxnOpResponse_Put:
			pairs = append(pairs, response.Put.GetPrevKv())
		case *metasrvpb.TxnOpResponse_DeleteRange:
			pairs = response.DeleteRange.GetPrevKvs()
		}
		answer.Found = append(answer.Found, valuesOf(call.Group, pairs))
	}
	return answer, r.GetHeader().GetRevision(), nil
}

func comparison(group string, c linear.Compare) *metasrvpb.Compare {
	from, to := rangeOf(group, c.Slot)
	compare := &metasrvpb.Compare{Key: from, RangeEnd: to, Target: &metasrvpb.Compare_Value{Value: []byte(c.Value)}}
	switch {
	case c.Value == "":
		compare.Target = &metasrvpb.Compare_Exists{Exists: c.Not}
	case c.Not:
		compare.Operator = metasrvpb.CompareOperator_COMPARE_OPERATOR_NOT_EQUAL
	}
	return compare
}

func txnOps(group string, actions []linear.Action) []*metasrvpb.TxnOp {
	var ops []*metasrvpb.TxnOp
	for _, a := range actions {
		from, to := rangeOf(group, a.Slot)
		switch {
		case a.Put:
			ops = append(ops, &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Put{Put: &metasrvpb.PutRequest{Key: from, Value: []byte(a.Value), PrevKv: !a.Blind}}})
		case a.Delete:
			ops = append(ops, &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_DeleteRange{DeleteRange: &metasrvpb.DeleteRangeRequest{Key: from, RangeEnd: to, PrevKv: true}}})
		default:
			ops = append(ops, &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Range{Range: &metasrvpb.RangeRequest{Key: from, RangeEnd: to}}})
		}
	}
	return ops
}
