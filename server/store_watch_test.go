package server

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func (m *testMemberServer) put(t *testing.T, key, value string) uint64 {
	t.Helper()
	resp, err := m.store().Put(timeout(t), &metasrvpb.PutRequest{Key: []byte(key), Value: []byte(value)})
	if err != nil {
		t.Fatal(err)
	}
	return resp.GetHeader().GetRevision()
}

// testWatch reads a watch of the store.
type testWatch struct {
	stream grpc.ServerStreamingClient[metasrvpb.WatchResponse]
	// resume is the last revision to resume behind.
	resume uint64
}

func (m *testMemberServer) watch(t *testing.T, req *metasrvpb.WatchRequest) *testWatch {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	t.Cleanup(cancel)
	stream, err := m.store().Watch(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	return &testWatch{stream: stream}
}

// next returns at least n events in short form, and what came with them.
func (w *testWatch) next(t *testing.T, n int) (events []string) {
	t.Helper()
	for len(events) < n {
		resp, err := w.stream.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", events, err)
		}
		for _, e := range resp.GetEvents() {
			events = append(events, shortEvent(e))
		}
		w.resume = max(w.resume, resp.GetRevision())
	}
	return events
}

func shortEvent(e *metasrvpb.WatchEvent) string {
	s := fmt.Sprintf("%s=%s@%d", e.GetKv().GetKey(), e.GetKv().GetValue(), e.GetKv().GetModRevision())
	if e.GetType() == metasrvpb.WatchEvent_TYPE_DELETE {
		s = fmt.Sprintf("-%s@%d", e.GetKv().GetKey(), e.GetKv().GetModRevision())
	}
	if e.GetType() == metasrvpb.WatchEvent_TYPE_PRESENT {
		s = "present " + s
	}
	if e.GetPrevKv() != nil {
		s += fmt.Sprintf(" was %s@%d", e.GetPrevKv().GetValue(), e.GetPrevKv().GetModRevision())
	}
	return s
}

func TestStoreWatch(t *testing.T) {
	m := startLeader(t)
	first := m.put(t, "a", "1")
	m.put(t, "b", "1")
	m.put(t, "x", "1")
	all := m.watch(t, &metasrvpb.WatchRequest{Key: []byte("a"), RangeEnd: []byte("c"), PrevKv: true})
	want := []string{fmt.Sprintf("present a=1@%d", first), fmt.Sprintf("present b=1@%d", first+1)}
	if got := all.next(t, 2); fmt.Sprint(got) != fmt.Sprint(want) || all.resume != first+2 {
		t.Errorf("begins with %q up to %d, want %q up to %d", got, all.resume, want, first+2)
	}
	one := m.watch(t, &metasrvpb.WatchRequest{Key: []byte("b"), ChangesOnly: true, NoPut: true})
	if resp, err := one.stream.Recv(); err != nil || len(resp.GetEvents()) != 0 || resp.GetRevision() != first+2 {
		t.Errorf("changes only: %v, %v, want revision %d", resp, err, first+2)
	}
	m.put(t, "a", "2")
	m.put(t, "x", "2")
	if _, err := m.store().Txn(timeout(t), &metasrvpb.TxnRequest{Success: []*metasrvpb.TxnOp{
		{Op: &metasrvpb.TxnOp_Put{Put: &metasrvpb.PutRequest{Key: []byte("a"), Value: []byte("3")}}},
		{Op: &metasrvpb.TxnOp_Put{Put: &metasrvpb.PutRequest{Key: []byte("y"), Value: []byte("3")}}},
		{Op: &metasrvpb.TxnOp_DeleteRange{DeleteRange: &metasrvpb.DeleteRangeRequest{Key: []byte("b")}}},
	}}); err != nil {
		t.Fatal(err)
	}
	want = []string{
		fmt.Sprintf("a=2@%d was 1@%d", first+3, first), fmt.Sprintf("a=3@%d was 2@%d", first+5, first+3),
		fmt.Sprintf("-b@%d was 1@%d", first+5, first+1),
	}
	if got := all.next(t, 3); fmt.Sprint(got) != fmt.Sprint(want) || all.resume != first+5 {
		t.Errorf("changes %q up to %d, want %q up to %d", got, all.resume, want, first+5)
	}
	if got := one.next(t, 1); got[0] != fmt.Sprintf("-b@%d", first+5) {
		t.Errorf("deletions only: %q", got)
	}
	m.node.follow(otherMember()) // a member goes on with what it has
	resumed := m.watch(t, &metasrvpb.WatchRequest{Key: []byte{0}, RangeEnd: []byte{0}, StartRevision: first + 4, NoDelete: true})
	want = []string{fmt.Sprintf("x=2@%d", first+4), fmt.Sprintf("a=3@%d", first+5), fmt.Sprintf("y=3@%d", first+5)}
	if got := resumed.next(t, 3); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("resumed with %q, want %q", got, want)
	}
}

func TestStoreWatchRefusals(t *testing.T) {
	m := startLeader(t)
	for _, tt := range []struct {
		req   *metasrvpb.WatchRequest
		field string
	}{
		{&metasrvpb.WatchRequest{}, "key"},
		{&metasrvpb.WatchRequest{Key: []byte("k"), RangeEnd: make([]byte, 5000)}, "range_end"},
		{&metasrvpb.WatchRequest{Key: []byte("k"), StartRevision: 1, ChangesOnly: true}, "changes_only"},
	} {
		_, err := m.watch(t, tt.req).stream.Recv()
		wantRefusal(t, err, refusal{Code: codes.InvalidArgument, Reason: "INVALID_ARGUMENT", Field: tt.field})
	}
}

// A revision that the member doesn't have yet is waited for.
func TestWatchFromTheFuture(t *testing.T) {
	m := startLeader(t)
	now := m.put(t, "k", "0")
	w := m.watch(t, &metasrvpb.WatchRequest{Key: []byte("k"), StartRevision: now + 3})
	for i := range 4 {
		m.put(t, "k", fmt.Sprint(i+1))
	}
	want := []string{fmt.Sprintf("k=3@%d", now+3), fmt.Sprintf("k=4@%d", now+4)}
	if got := w.next(t, 2); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A revision that is too large for one message comes in several, of which only the last is a point to resume from.
func TestLargeRevisionComesInParts(t *testing.T) {
	m := startLeader(t)
	const keys = 3000
	batch := &metasrvpb.BatchPutRequest{}
	for i := range keys {
		batch.Kvs = append(batch.Kvs, &metasrvpb.KeyValue{Key: fmt.Appendf(nil, "k%04d", i), Value: make([]byte, 100)})
	}
	written, err := m.store().BatchPut(timeout(t), batch)
	if err != nil {
		t.Fatal(err)
	}
	revision := written.GetHeader().GetRevision()
	before := m.watch(t, &metasrvpb.WatchRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: revision})
	m.put(t, "k", "after")
	parts, events := 0, 0
	for events < keys {
		resp, err := before.stream.Recv()
		if err != nil {
			t.Fatal(err)
		}
		parts++
		events += len(resp.GetEvents())
		if complete := events >= keys; complete != (resp.GetRevision() >= revision) {
			t.Errorf("part %d, after %d events, is a point to resume behind revision %d", parts, events, resp.GetRevision())
		}
	}
	if parts < 3 {
		t.Errorf("%d changes came in %d messages", keys, parts)
	}
}
