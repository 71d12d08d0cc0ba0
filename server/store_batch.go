package server

import (
	"context"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (s storeService) BatchGet(ctx context.Context, req *metasrvpb.BatchGetRequest) (*metasrvpb.BatchGetResponse, error) {
	if err := kv.ValidateKeys(req.GetKeys()); err != nil {
		return nil, err
	}
	view, err := s.read(ctx, req.GetHeader())
	if err != nil {
		return nil, err
	}
	resp, size := &metasrvpb.BatchGetResponse{Header: view.header()}, 0
	for _, key := range req.GetKeys() {
		pair, err := kv.Get(view, key)
		if err != nil {
			return nil, err
		}
		if pair == nil {
			continue
		}
		if size += len(pair.Key) + len(pair.Value); size > maxRangeBytes {
			return nil, metasrv.ErrTooLarge.With("the pairs have more than the %d bytes that one answer can have; ask for fewer keys", maxRangeBytes)
		}
		resp.Kvs = append(resp.Kvs, pairOf(pair))
	}
	return resp, nil
}

func (s storeService) BatchPut(ctx context.Context, req *metasrvpb.BatchPutRequest) (*metasrvpb.BatchPutResponse, error) {
	command := &storagepb.BatchPut{PrevKv: req.GetPrevKv(), Pairs: each(req.GetKvs(), func(p *metasrvpb.KeyValue) *storagepb.KvPair {
		return &storagepb.KvPair{Key: p.GetKey(), Value: p.GetValue()}
	})}
	if err := kv.ValidateBatchPut(command); err != nil {
		return nil, err
	}
	var result storagepb.KvResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_BATCH_PUT, command, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.BatchPutResponse{Header: h, PrevKvs: keyValues(result.GetPrev())}, nil
}

func (s storeService) BatchDelete(ctx context.Context, req *metasrvpb.BatchDeleteRequest) (*metasrvpb.BatchDeleteResponse, error) {
	if err := kv.ValidateKeys(req.GetKeys()); err != nil {
		return nil, err
	}
	var result storagepb.KvResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_BATCH_DELETE,
		&storagepb.BatchDelete{Keys: req.GetKeys(), PrevKv: req.GetPrevKv()}, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.BatchDeleteResponse{Header: h, PrevKvs: keyValues(result.GetPrev())}, nil
}

func (s storeService) MoveValue(ctx context.Context, req *metasrvpb.MoveValueRequest) (*metasrvpb.MoveValueResponse, error) {
	command := &storagepb.MoveValue{FromKey: req.GetFromKey(), ToKey: req.GetToKey()}
	if err := kv.ValidateMove(command); err != nil {
		return nil, err
	}
	var result storagepb.KvResult
	h, err := s.execute(ctx, req.GetHeader(), storagepb.CommandKind_COMMAND_KIND_MOVE_VALUE, command, &result)
	if err != nil {
		return nil, err
	}
	return &metasrvpb.MoveValueResponse{Header: h, Kv: first(result.GetPrev())}, nil
}
