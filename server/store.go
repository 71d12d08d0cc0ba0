package server

import (
	"context"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// maxRangeBytes bounds the keys and values of one answer.
const maxRangeBytes = 64 << 20

// storeService is the Store service over package kv. What batches and transactions do is in store_batch.go and
// store_txn.go, the watch in store_watch.go.
type storeService struct {
	metasrvpb.UnimplementedStoreServer
	*services
}

func (s storeService) Range(ctx context.Context, req *metasrvpb.RangeRequest) (*metasrvpb.RangeResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	r := kv.Range{Key: req.GetKey(), End: req.GetRangeEnd()}
	if req.GetCountOnly() {
		if err := r.Validate(); err != nil {
			return nil, err
		}
		return &metasrvpb.RangeResponse{Header: view.header(), Count: kv.Count(view, r)}, nil
	}
	pairs, more, err := kv.Read(view, r, kv.Options{
		Limit: req.GetLimit(), KeysOnly: req.GetKeysOnly(), PageBytes: req.GetPageBytes(), MaxBytes: maxRangeBytes,
	})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.RangeResponse{Header: view.header(), Kvs: pairsOf(pairs), More: more, Count: int64(len(pairs))}, nil
}

func (s storeService) Put(ctx context.Context, req *metasrvpb.PutRequest) (*metasrvpb.PutResponse, error) {
	if err := kv.ValidatePair(req.GetKey(), req.GetValue()); err != nil {
		return nil, err
	}
	command := &storagepb.Put{Key: req.GetKey(), Value: req.GetValue(), PrevKv: req.GetPrevKv()}
	r, err := s.propose(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_PUT, command)
	if err != nil {
		return nil, err
	}
	resp := &metasrvpb.PutResponse{Header: &metasrvpb.ResponseHeader{Revision: r.Revision}}
	if !req.GetPrevKv() {
		return resp, nil // most puts; the result says nothing
	}
	var result storagepb.KvResult
	if err := r.Decode(&result); err != nil {
		return nil, metasrv.ErrInternal.With("result of a put: %v", err)
	}
	resp.PrevKv = first(result.GetPrev())
	return resp, nil
}

func (s storeService) CompareAndPut(
	ctx context.Context, req *metasrvpb.CompareAndPutRequest,
) (*metasrvpb.CompareAndPutResponse, error) {
	if err := kv.ValidatePair(req.GetKey(), req.GetValue()); err != nil {
		return nil, err
	}
	var result storagepb.KvResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_COMPARE_AND_PUT,
		&storagepb.CompareAndPut{Key: req.GetKey(), Expect: req.GetExpect(), Value: req.GetValue()}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.CompareAndPutResponse{Header: h, Success: result.GetSuccess(), PrevKv: first(result.GetPrev())}, nil
}

func (s storeService) DeleteRange(ctx context.Context, req *metasrvpb.DeleteRangeRequest) (*metasrvpb.DeleteRangeResponse, error) {
	if err := (kv.Range{Key: req.GetKey(), End: req.GetRangeEnd()}).Validate(); err != nil {
		return nil, err
	}
	var result storagepb.KvResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE,
		&storagepb.DeleteRange{Key: req.GetKey(), RangeEnd: req.GetRangeEnd(), PrevKv: req.GetPrevKv()}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.DeleteRangeResponse{Header: h, Deleted: result.GetDeleted(), PrevKvs: keyValues(result.GetPrev())}, nil
}

// pairOf returns a pair as the API shows it, nil for none. It shares the pair's bytes.
func pairOf(p *kv.Pair) *metasrvpb.KeyValue {
	if p == nil {
		return nil
	}
	return &metasrvpb.KeyValue{
		Key: p.Key, Value: p.Value, CreateRevision: p.CreateRevision, ModRevision: p.ModRevision, Version: p.Version,
	}
}

func pairsOf(pairs []kv.Pair) []*metasrvpb.KeyValue {
	kvs := make([]*metasrvpb.KeyValue, len(pairs))
	for i := range pairs {
		kvs[i] = pairOf(&pairs[i])
	}
	return kvs
}

func keyValue(p *storagepb.KvPair) *metasrvpb.KeyValue {
	return &metasrvpb.KeyValue{
		Key: p.GetKey(), Value: p.GetValue(),
		CreateRevision: p.GetCreateRevision(), ModRevision: p.GetModRevision(), Version: p.GetVersion(),
	}
}

func keyValues(pairs []*storagepb.KvPair) []*metasrvpb.KeyValue { return each(pairs, keyValue) }

// first returns the only pair of a result, nil where there is none.
func first(pairs []*storagepb.KvPair) *metasrvpb.KeyValue {
	if len(pairs) == 0 {
		return nil
	}
	return keyValue(pairs[0])
}
