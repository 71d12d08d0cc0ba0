package server

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestReadWaitsForMinRevision(t *testing.T) {
	m := startLeader(t)
	now := m.node.View().Revision()
	read := make(chan error, 1)
	go func() {
		resp, err := m.store().Range(timeout(t), &metasrvpb.RangeRequest{
			Header: &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE, MinRevision: now + 1},
			Key:    []byte("k"),
		})
		if err == nil && (resp.GetHeader().GetRevision() < now+1 || len(resp.GetKvs()) != 1) {
			err = errors.New("was answered from an older state: " + resp.String())
		}
		read <- err
	}()
	select {
	case err := <-read:
		t.Fatalf("a read did not wait for its revision: %v", err)
	case <-time.After(20 * time.Millisecond): // nothing tells that a request waits
	}
	if _, err := m.store().Put(timeout(t), &metasrvpb.PutRequest{Key: []byte("k")}); err != nil {
		t.Fatal(err)
	}
	if err := <-read; err != nil {
		t.Error(err)
	}
}

func TestStaleReadsTellTheirAge(t *testing.T) {
	m := startLeader(t)
	age := func(h *metasrvpb.RequestHeader) *uint64 {
		t.Helper()
		resp, err := m.store().Range(timeout(t), &metasrvpb.RangeRequest{Header: h, Key: []byte("k")})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetHeader().AgeMs
	}
	stale := &metasrvpb.RequestHeader{ReadLevel: metasrvpb.ReadLevel_READ_LEVEL_STALE}
	if a := age(stale); a != nil {
		t.Errorf("unknown age is told as %d ms", *a)
	}
	m.node.setAge(1500*time.Millisecond + time.Nanosecond)
	for _, h := range []*metasrvpb.RequestHeader{stale, {MinRevision: 1}} {
		if a := age(h); a == nil || *a != 1501 {
			t.Errorf("age of the answer to %v is %v, want 1501 ms: it is an upper bound", h, a)
		}
	}
	if a := age(nil); a != nil {
		t.Errorf("a linearizable answer is %d ms old", *a)
	}
}

func TestReadLevelUnknown(t *testing.T) {
	m := startLeader(t)
	_, err := m.store().Range(timeout(t), &metasrvpb.RangeRequest{Header: &metasrvpb.RequestHeader{ReadLevel: 9}, Key: []byte("k")})
	wantRefusal(t, err, invalid("header.read_level"))
}

func TestReadEndsWithItsContext(t *testing.T) {
	m := startLeader(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := m.store().Range(ctx, &metasrvpb.RangeRequest{Header: &metasrvpb.RequestHeader{MinRevision: 1 << 40}, Key: []byte("k")})
	wantRefusal(t, err, refusal{Code: codes.DeadlineExceeded})
}

func TestPanicIsInternal(t *testing.T) {
	m := startLeader(t)
	broken := func() { panic("broken on purpose") }
	m.node.onBarrier.Store(&broken)
	_, err := m.store().Range(timeout(t), &metasrvpb.RangeRequest{Key: []byte("k")})
	wantRefusal(t, err, refusal{Code: codes.Internal, Reason: "INTERNAL"})
	m.node.onBarrier.Store(nil)
	if _, err := m.store().Range(timeout(t), &metasrvpb.RangeRequest{Key: []byte("k")}); err != nil {
		t.Errorf("the member did not survive: %v", err)
	}
}

// TestStatusOfEveryKind fails for a kind of errors that the table lacks.
func TestStatusOfEveryKind(t *testing.T) {
	leader := &metasrvpb.Member{Id: "m2", GrpcAddr: otherAddr}
	tests := []struct {
		err  error
		want refusal
	}{
		{metasrv.ErrInternal, refusal{Code: codes.Internal, Reason: "INTERNAL"}},
		{metasrv.InvalidArgument("f", "is bad"), invalid("f")},
		{metasrv.ErrTableNotFound, refusal{Code: codes.NotFound, Reason: "TABLE_NOT_FOUND"}},
		{metasrv.ErrTableExists, refusal{Code: codes.AlreadyExists, Reason: "TABLE_ALREADY_EXISTS"}},
		{metasrv.ErrCatalogNotEmpty, refusal{Code: codes.FailedPrecondition, Reason: "CATALOG_NOT_EMPTY"}},
		{metasrv.ErrSchemaVersionChanged, refusal{Code: codes.Aborted, Reason: "SCHEMA_VERSION_CHANGED"}},
		{metasrv.ErrStaleTerm, refusal{Code: codes.Aborted, Reason: "STALE_TERM", Retry: true}},
		{metasrv.ErrOutcomeUnknown, refusal{Code: codes.Unavailable, Reason: "OUTCOME_UNKNOWN", Retry: true}},
		{metasrv.ErrNodesNotHeard, refusal{Code: codes.Unavailable, Reason: "NODES_NOT_HEARD", Retry: true}},
		{metasrv.ErrOverloaded, refusal{Code: codes.ResourceExhausted, Reason: "OVERLOADED", Retry: true}},
		{metasrv.ErrCompacted, refusal{Code: codes.OutOfRange, Reason: "COMPACTED"}},
		{&metasrv.Error{Kind: metasrv.KindUnimplemented, Reason: "LATER"}, refusal{Code: codes.Unimplemented, Reason: "LATER"}},
		{metasrv.ErrNotLeader, refusal{Code: codes.FailedPrecondition, Reason: "NOT_LEADER", Leader: otherAddr}},
		{errors.New("anything else"), refusal{Code: codes.Internal, Reason: "INTERNAL"}},
		{context.Canceled, refusal{Code: codes.Canceled}},
		{context.DeadlineExceeded, refusal{Code: codes.DeadlineExceeded}},
	}
	kinds := map[metasrv.Kind]bool{}
	for _, tt := range tests {
		if e, ok := errors.AsType[*metasrv.Error](tt.err); ok {
			kinds[e.Kind] = true
		}
		if got := refusalOf(statusOf(tt.err, leader).Err()); got != tt.want {
			t.Errorf("%v: %+v, want %+v", tt.err, got, tt.want)
		}
	}
	for kind := metasrv.KindInternal; kind <= metasrv.KindUnimplemented; kind++ {
		if _, ok := statusCodes[kind]; !ok || !kinds[kind] {
			t.Errorf("kind %d is missing in the table or in this test", kind)
		}
	}
}
