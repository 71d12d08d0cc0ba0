package server

import (
	"context"

	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// storeService is the Store service over package kv.
type storeService struct {
	metasrvpb.UnimplementedStoreServer
	*services
}

func (s storeService) Range(ctx context.Context, req *metasrvpb.RangeRequest) (*metasrvpb.RangeResponse, error) {
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	pairs, more, err := kv.Read(view, kv.Range{Key: req.GetKey(), End: req.GetRangeEnd()},
		kv.Options{Limit: req.GetLimit(), KeysOnly: req.GetKeysOnly()})
	if err != nil {
		return nil, err
	}
	return &metasrvpb.RangeResponse{Header: view.header(), Kvs: keyValues(pairs), More: more}, nil
}

func (s storeService) Put(ctx context.Context, req *metasrvpb.PutRequest) (*metasrvpb.PutResponse, error) {
	if err := validatePair(req.GetKey(), req.GetValue()); err != nil {
		return nil, err
	}
	var result storagepb.KvResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_PUT,
		&storagepb.Put{Key: req.GetKey(), Value: req.GetValue(), PrevKv: req.GetPrevKv()}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.PutResponse{Header: h, PrevKv: first(result.GetPrev())}, nil
}

func (s storeService) CompareAndPut(
	ctx context.Context, req *metasrvpb.CompareAndPutRequest,
) (*metasrvpb.CompareAndPutResponse, error) {
	if err := validatePair(req.GetKey(), req.GetValue()); err != nil {
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

func validatePair(key, value []byte) error {
	if err := kv.ValidateKey("key", key); err != nil {
		return err
	}
	return kv.ValidateValue("value", value)
}

func keyValues(pairs []*storagepb.KvPair) []*metasrvpb.KeyValue {
	kvs := make([]*metasrvpb.KeyValue, len(pairs))
	for i, p := range pairs {
		kvs[i] = &metasrvpb.KeyValue{Key: p.GetKey(), Value: p.GetValue()}
	}
	return kvs
}

// first returns the only pair of a result, nil where there is none.
func first(pairs []*storagepb.KvPair) *metasrvpb.KeyValue {
	if len(pairs) == 0 {
		return nil
	}
	return &metasrvpb.KeyValue{Key: pairs[0].GetKey(), Value: pairs[0].GetValue()}
}
