package server

import (
	"context"
	"fmt"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// Txn executes a transaction; one that only reads doesn't go through the log and is answered as Range is.
func (s storeService) Txn(ctx context.Context, req *metasrvpb.TxnRequest) (*metasrvpb.TxnResponse, error) {
	command := &storagepb.Txn{Compares: req.GetCompare()}
	var err error
	if command.Success, err = txnOps("success", req.GetSuccess()); err != nil {
		return nil, err
	}
	if command.Failure, err = txnOps("failure", req.GetFailure()); err != nil {
		return nil, err
	}
	if err := kv.ValidateTxn(command); err != nil {
		return nil, err
	}
	result, h := &storagepb.TxnResult{}, (*metasrvpb.ResponseHeader)(nil)
	if kv.ReadsOnly(command) {
		view, err := s.read(ctx, req.GetHeader())
		if err != nil {
			return nil, err
		}
		h = view.header()
		if result, err = kv.ReadTxn(view, command); err != nil {
			return nil, err
		}
	} else {
		// The interceptor lets every member answer reads.
		if err := s.requireLeader(); err != nil {
			return nil, err
		}
		if h, err = s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_TXN, command, result); err != nil {
			return nil, err
		}
	}
	return txnResponse(h, req, result)
}

// txnOps returns operations as they are in the log. What an operation of a transaction can't have is refused.
func txnOps(list string, ops []*metasrvpb.TxnOp) ([]*storagepb.TxnOp, error) {
	out := make([]*storagepb.TxnOp, len(ops))
	for i, op := range ops {
		place := func(field string) string { return fmt.Sprintf("%s[%d].%s", list, i, field) }
		out[i] = &storagepb.TxnOp{}
		switch op := op.GetOp().(type) {
		case *metasrvpb.TxnOp_Range:
			r := op.Range
			if r.GetHeader() != nil {
				return nil, nestedHeader(place("range.header"))
			}
			if r.GetPageBytes() != 0 {
				return nil, metasrv.InvalidArgument(place("range.page_bytes"), "can't be in a transaction; use limit")
			}
			out[i].Op = &storagepb.TxnOp_Range{Range: &storagepb.TxnRange{
				Key: r.GetKey(), RangeEnd: r.GetRangeEnd(), Limit: r.GetLimit(), KeysOnly: r.GetKeysOnly(), CountOnly: r.GetCountOnly(),
			}}
		case *metasrvpb.TxnOp_Put:
			if op.Put.GetHeader() != nil {
				return nil, nestedHeader(place("put.header"))
			}
			out[i].Op = &storagepb.TxnOp_Put{Put: &storagepb.Put{
				Key: op.Put.GetKey(), Value: op.Put.GetValue(), PrevKv: op.Put.GetPrevKv(),
			}}
		case *metasrvpb.TxnOp_DeleteRange:
			d := op.DeleteRange
			if d.GetHeader() != nil {
				return nil, nestedHeader(place("delete_range.header"))
			}
			out[i].Op = &storagepb.TxnOp_DeleteRange{DeleteRange: &storagepb.DeleteRange{
				Key: d.GetKey(), RangeEnd: d.GetRangeEnd(), PrevKv: d.GetPrevKv(),
			}}
		}
	}
	return out, nil
}

func nestedHeader(field string) error {
	return metasrv.InvalidArgument(field, "can't be in a transaction: the header of the whole request counts")
}

// txnResponse gives each result the form that its operation asks for.
func txnResponse(h *metasrvpb.ResponseHeader, req *metasrvpb.TxnRequest, result *storagepb.TxnResult) (*metasrvpb.TxnResponse, error) {
	ops := req.GetSuccess()
	if !result.GetSucceeded() {
		ops = req.GetFailure()
	}
	if len(ops) != len(result.GetResults()) {
		return nil, metasrv.InvalidArgument("header.request_id", "was used for another transaction: that one had %d operations, this one has %d",
			len(result.GetResults()), len(ops))
	}
	resp := &metasrvpb.TxnResponse{Header: h, Succeeded: result.GetSucceeded()}
	for i, r := range result.GetResults() {
		answer := &metasrvpb.TxnOpResponse{}
		switch ops[i].GetOp().(type) {
		case *metasrvpb.TxnOp_Range:
			answer.Response = &metasrvpb.TxnOpResponse_Range{Range: &metasrvpb.RangeResponse{
				Kvs: keyValues(r.GetPairs()), More: r.GetMore(), Count: r.GetCount(),
			}}
		case *metasrvpb.TxnOp_Put:
			answer.Response = &metasrvpb.TxnOpResponse_Put{Put: &metasrvpb.PutResponse{PrevKv: first(r.GetPairs())}}
		case *metasrvpb.TxnOp_DeleteRange:
			answer.Response = &metasrvpb.TxnOpResponse_DeleteRange{DeleteRange: &metasrvpb.DeleteRangeResponse{
				Deleted: r.GetCount(), PrevKvs: keyValues(r.GetPairs()),
			}}
		}
		resp.Responses = append(resp.Responses, answer)
	}
	return resp, nil
}
