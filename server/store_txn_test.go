package server

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/testing/protocmp"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func txnPut(key, value string) *metasrvpb.TxnOp {
	return &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Put{Put: &metasrvpb.PutRequest{Key: []byte(key), Value: []byte(value), PrevKv: true}}}
}

func txnRange(key, end string) *metasrvpb.TxnOp {
	return &metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Range{Range: &metasrvpb.RangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func absent(key string) []*metasrvpb.Compare {
	return []*metasrvpb.Compare{{Key: []byte(key), Target: &metasrvpb.Compare_CreateRevision{}}}
}

// An election as users of etcd write it: who creates the key wins, the others learn who did.
func TestTxn(t *testing.T) {
	m := startLeader(t)
	campaign := func(name string) *metasrvpb.TxnResponse {
		t.Helper()
		resp, err := m.store().Txn(timeout(t), &metasrvpb.TxnRequest{
			Compare: absent("leader"), Success: []*metasrvpb.TxnOp{txnPut("leader", name)}, Failure: []*metasrvpb.TxnOp{txnRange("leader", "")},
		})
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	a, b := campaign("a"), campaign("b")
	if !a.GetSucceeded() || b.GetSucceeded() {
		t.Fatalf("a won: %t, b won: %t", a.GetSucceeded(), b.GetSucceeded())
	}
	won := a.GetHeader().GetRevision()
	want := []*metasrvpb.TxnOpResponse{{Response: &metasrvpb.TxnOpResponse_Range{Range: &metasrvpb.RangeResponse{
		Kvs: []*metasrvpb.KeyValue{{Key: []byte("leader"), Value: []byte("a"), CreateRevision: won, ModRevision: won, Version: 1}}, Count: 1,
	}}}}
	if diff := cmp.Diff(want, b.GetResponses(), protocmp.Transform()); diff != "" {
		t.Error(diff)
	}
	resigned, err := m.store().Txn(timeout(t), &metasrvpb.TxnRequest{
		Compare: []*metasrvpb.Compare{{Key: []byte("leader"), Target: &metasrvpb.Compare_ModRevision{ModRevision: won}}},
		Success: []*metasrvpb.TxnOp{
			{Op: &metasrvpb.TxnOp_DeleteRange{DeleteRange: &metasrvpb.DeleteRangeRequest{Key: []byte("leader"), PrevKv: true}}}, txnPut("was", "a"),
		},
	})
	if err != nil || !resigned.GetSucceeded() || resigned.GetResponses()[0].GetDeleteRange().GetDeleted() != 1 ||
		len(resigned.GetResponses()[0].GetDeleteRange().GetPrevKvs()) != 1 || resigned.GetResponses()[1].GetPut() == nil {
		t.Errorf("resigned: %v, %v", resigned, err)
	}
}

// The retry of a transaction under the same request id gets the first answer, and changes nothing.
func TestTxnIsExecutedOnce(t *testing.T) {
	m := startLeader(t)
	session, err := m.cluster().OpenSession(timeout(t), &metasrvpb.OpenSessionRequest{})
	if err != nil {
		t.Fatal(err)
	}
	req := &metasrvpb.TxnRequest{
		Header:  &metasrvpb.RequestHeader{RequestId: &metasrvpb.RequestId{Session: session.GetSession(), Sequence: 1}},
		Compare: absent("k"), Success: []*metasrvpb.TxnOp{txnPut("k", "1"), txnPut("l", "1")},
	}
	var answers []*metasrvpb.TxnResponse
	for range 2 {
		resp, err := m.store().Txn(timeout(t), req)
		if err != nil {
			t.Fatal(err)
		}
		answers = append(answers, resp)
	}
	if diff := cmp.Diff(answers[0], answers[1], protocmp.Transform()); diff != "" || !answers[1].GetSucceeded() {
		t.Errorf("the retry was answered differently: %s", diff)
	}
	// The same id for another transaction gets no answer that doesn't fit.
	req.Success = req.Success[:1]
	_, err = m.store().Txn(timeout(t), req)
	wantRefusal(t, err, invalid("header.request_id"))
}

func TestTxnThatReadsIsNoCommand(t *testing.T) {
	m := startLeader(t)
	before := m.put(t, "k", "1")
	m.node.follow(otherMember())
	read := &metasrvpb.TxnRequest{Compare: absent("k"), Success: []*metasrvpb.TxnOp{txnRange("k", "")}, Failure: []*metasrvpb.TxnOp{txnRange("k", "")}}
	read.Header = &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE}
	resp, err := m.store().Txn(timeout(t), read)
	if err != nil || resp.GetSucceeded() || len(resp.GetResponses()[0].GetRange().GetKvs()) != 1 || resp.GetHeader().GetRevision() != before {
		t.Errorf("stale: %v, %v", resp, err)
	}
	read.Failure = append(read.Failure, txnPut("k", "2"))
	_, err = m.store().Txn(timeout(t), read)
	if refusalOf(err).Reason != "NOT_LEADER" {
		t.Errorf("a follower executed a transaction that writes: %v", err)
	}
}

func TestTxnRefusesWhatItCanNotHave(t *testing.T) {
	m := startLeader(t)
	h := &metasrvpb.RequestHeader{}
	for _, tt := range []struct {
		op    *metasrvpb.TxnOp
		field string
	}{
		{&metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Put{Put: &metasrvpb.PutRequest{Header: h, Key: []byte("k")}}}, "failure[0].put.header"},
		{&metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Range{Range: &metasrvpb.RangeRequest{Header: h, Key: []byte("k")}}}, "failure[0].range.header"},
		{&metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_Range{Range: &metasrvpb.RangeRequest{PageBytes: 1, Key: []byte("k")}}}, "failure[0].range.page_bytes"},
		{&metasrvpb.TxnOp{Op: &metasrvpb.TxnOp_DeleteRange{DeleteRange: &metasrvpb.DeleteRangeRequest{Header: h}}}, "failure[0].delete_range.header"},
		{&metasrvpb.TxnOp{}, "failure[0].op"},
		{txnPut("", ""), "failure[0].put.key"},
	} {
		_, err := m.store().Txn(timeout(t), &metasrvpb.TxnRequest{Failure: []*metasrvpb.TxnOp{tt.op}})
		wantRefusal(t, err, invalid(tt.field))
	}
}
