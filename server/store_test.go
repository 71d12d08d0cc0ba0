package server

import (
	"bytes"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/testing/protocmp"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestStore(t *testing.T) {
	m := startLeader(t)
	store := m.store()
	put := func(key, value string) *metasrvpb.PutResponse {
		t.Helper()
		resp, err := store.Put(timeout(t), &metasrvpb.PutRequest{Key: []byte(key), Value: []byte(value), PrevKv: true})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	if prev := put("a", "1").GetPrevKv(); prev != nil {
		t.Errorf("a new key had %v", prev)
	}
	if prev := put("a", "2").GetPrevKv(); string(prev.GetValue()) != "1" {
		t.Errorf("previous value is %v", prev)
	}
	put("b", "3")
	read, err := store.Range(timeout(t), &metasrvpb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, Limit: 1})
	if err != nil {
		t.Fatal(err)
	}
	want := []*metasrvpb.KeyValue{{Key: []byte("a"), Value: []byte("2")}}
	history := protocmp.IgnoreFields(&metasrvpb.KeyValue{}, "create_revision", "mod_revision", "version")
	if diff := cmp.Diff(want, read.GetKvs(), protocmp.Transform(), history); diff != "" || !read.GetMore() {
		t.Errorf("more %t, %s", read.GetMore(), diff)
	}
	cas, err := store.CompareAndPut(timeout(t), &metasrvpb.CompareAndPutRequest{Key: []byte("a"), Expect: []byte("x"), Value: []byte("4")})
	if err != nil || cas.GetSuccess() || string(cas.GetPrevKv().GetValue()) != "2" {
		t.Errorf("CompareAndPut with another value: %v, %v", cas, err)
	}
	deleted, err := store.DeleteRange(timeout(t), &metasrvpb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("c"), PrevKv: true})
	if err != nil || deleted.GetDeleted() != 2 || len(deleted.GetPrevKvs()) != 2 {
		t.Errorf("DeleteRange: %v, %v", deleted, err)
	}
}

func TestStoreRefusesBeforeTheLog(t *testing.T) {
	m := startLeader(t)
	_, err := m.store().Put(timeout(t), &metasrvpb.PutRequest{})
	wantRefusal(t, err, invalid("key"))
	_, err = m.store().CompareAndPut(timeout(t), &metasrvpb.CompareAndPutRequest{Key: []byte("k"), Value: make([]byte, 1<<20+1)})
	wantRefusal(t, err, invalid("value"))
	_, err = m.store().DeleteRange(timeout(t), &metasrvpb.DeleteRangeRequest{Key: bytes.Repeat([]byte("k"), 5000)})
	wantRefusal(t, err, invalid("key"))
	_, err = m.store().Range(timeout(t), &metasrvpb.RangeRequest{Key: []byte("k"), Limit: -1})
	wantRefusal(t, err, invalid("limit"))
	_, err = m.store().Put(timeout(t), &metasrvpb.PutRequest{Key: []byte("k"), Value: make([]byte, metasrv.MaxRequestBytes)})
	wantRefusal(t, err, refusal{Code: codes.ResourceExhausted})
}
