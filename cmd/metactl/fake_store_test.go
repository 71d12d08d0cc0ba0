package main

import (
	"context"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/metasrv/metasrv/client"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

// fakeStore is the key-value store of a fake cluster.
type fakeStore struct {
	mu     sync.Mutex
	values map[string][]byte
	puts   int
	// afterPut is told how many there were.
	afterPut func(puts int)
}

func (s *fakeStore) keys() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.values))
}

func (m *fakeMember) Put(_ context.Context, r *metasrvpb.PutRequest) (*metasrvpb.PutResponse, error) {
	if err := m.refuse(nil); err != nil {
		return nil, err
	}
	s := &m.cluster.store
	s.mu.Lock()
	if s.values == nil {
		s.values = map[string][]byte{}
	}
	s.values[string(r.Key)] = r.Value
	s.puts++
	after, puts := s.afterPut, s.puts
	s.mu.Unlock()
	if after != nil {
		after(puts)
	}
	return &metasrvpb.PutResponse{Header: m.header()}, nil
}

func (m *fakeMember) Range(_ context.Context, r *metasrvpb.RangeRequest) (*metasrvpb.RangeResponse, error) {
	if err := m.refuse(r.Header); err != nil {
		return nil, err
	}
	resp := &metasrvpb.RangeResponse{Header: m.header()}
	for _, key := range m.cluster.store.keys() {
		if key == string(r.Key) || len(r.RangeEnd) > 0 && key > string(r.Key) && (key < string(r.RangeEnd) || string(r.RangeEnd) == "\x00") {
			m.cluster.store.mu.Lock()
			resp.Kvs = append(resp.Kvs, &metasrvpb.KeyValue{Key: []byte(key), Value: m.cluster.store.values[key]})
			m.cluster.store.mu.Unlock()
		}
	}
	return resp, nil
}

func (m *fakeMember) DeleteRange(
	_ context.Context, r *metasrvpb.DeleteRangeRequest,
) (*metasrvpb.DeleteRangeResponse, error) {
	if err := m.refuse(nil); err != nil {
		return nil, err
	}
	s := &m.cluster.store
	s.mu.Lock()
	defer s.mu.Unlock()
	maps.DeleteFunc(s.values, func(key string, _ []byte) bool { return key >= string(r.Key) && key < string(r.RangeEnd) })
	return &metasrvpb.DeleteRangeResponse{Header: m.header()}, nil
}

func fakeClient(t *testing.T, c *fakeCluster) *client.Client {
	t.Helper()
	cl, err := client.New(client.Config{Endpoints: []string{c.members[0].addr}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cl.Close() })
	return cl
}
