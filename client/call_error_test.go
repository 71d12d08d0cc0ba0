package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestFinalErrors(t *testing.T) {
	m := startMember(t)
	c := dial(t, nil, m.addr)

	m.answer(nil, refusal(metasrv.ErrTableNotFound.With("table a.b.c does not exist")))
	_, err := c.Router().Route(t.Context(), &metasrvpb.RouteRequest{})
	wantIs(t, err, metasrv.ErrTableNotFound)
	if errors.Is(err, metasrv.ErrTableExists) {
		t.Error("any reason matches")
	}
	if err.Error() != "table a.b.c does not exist" || Reason(err) != "TABLE_NOT_FOUND" {
		t.Errorf("error %q, reason %q", err, Reason(err))
	}
	for _, e := range []error{err, fmt.Errorf("route: %w", err)} {
		st, ok := status.FromError(e)
		if !ok || st.Code() != codes.NotFound || len(st.Details()) != 1 {
			t.Errorf("status of %v: %v", e, st)
		}
	}
	if n := m.count(metasrvpb.Router_Route_FullMethodName); n != 1 {
		t.Errorf("asked %d times", n)
	}

	m.answer(nil, refusal(metasrv.InvalidArgument("table_names", "is empty"), &errdetails.BadRequest{
		FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "table_names", Description: "is empty"}},
	}))
	_, err = c.Router().Route(t.Context(), &metasrvpb.RouteRequest{})
	e, ok := errors.AsType[*metasrv.Error](err)
	if !ok || e.Field != "table_names" || e.Message != "is empty" || e.Kind != metasrv.KindInvalidArgument {
		t.Errorf("error is %#v", e)
	}
}

func TestErrorNamesEveryMemberThatWasTried(t *testing.T) {
	m, dead := startMember(t), deadAddr(t)
	m.follows("")
	c := dial(t, func(cfg *Config) { cfg.CallTimeout = 300 * time.Millisecond }, m.addr, dead)
	err := rangeAll(t.Context(), c)
	for _, part := range []string{m.addr, dead, "not the metasrv leader", "refused"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q lacks %q", err, part)
		}
	}
	wantIs(t, err, context.DeadlineExceeded)
	if code := status.Code(err); code != codes.FailedPrecondition && code != codes.Unavailable {
		t.Errorf("code is %s, want that of a member", code)
	}
}

// An attempt that the caller's deadline cut says less than the answer before it.
func TestErrorKeepsWhatWasSaidBeforeTheDeadline(t *testing.T) {
	m := startMember(t)
	var asked atomic.Int32
	m.onUnary(func(ctx context.Context, _ string, _ proto.Message) (proto.Message, error) {
		if asked.Add(1) == 1 {
			return nil, refusal(metasrv.ErrNotReady.With("still starting"))
		}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	// cut: as after an attempt that took too long, so that the next one may last until the deadline.
	c := dial(t, nil, m.addr)
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	defer cancel()
	k := &call{method: rangeMethod, kind: read, request: &metasrvpb.RangeRequest{}, reply: &metasrvpb.RangeResponse{}, cut: 1}
	err := c.run(ctx, k)
	wantIs(t, err, metasrv.ErrNotReady)
	wantIs(t, err, context.DeadlineExceeded)
}

func TestRetryInfoIsRespected(t *testing.T) {
	m := startMember(t)
	const delay = 300 * time.Millisecond
	var mu sync.Mutex
	var times []time.Time
	m.onUnary(func(_ context.Context, method string, _ proto.Message) (proto.Message, error) {
		if method != rangeMethod { // the client may look for members meanwhile
			return &metasrvpb.ListMembersResponse{}, nil
		}
		mu.Lock()
		defer mu.Unlock()
		times = append(times, time.Now())
		if len(times) == 1 {
			return nil, refusal(metasrv.ErrNodesNotHeard, retryAfter(delay))
		}
		return &metasrvpb.RangeResponse{}, nil
	})
	c := dial(t, nil, m.addr)
	if err := rangeAll(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	mu.Lock()
	asked := slices.Clone(times)
	mu.Unlock()
	if len(asked) != 2 || asked[1].Sub(asked[0]) < delay {
		t.Errorf("asked at %v", asked)
	}

	m.answer(nil, refusal(metasrv.ErrNodesNotHeard.With("waiting for 2 nodes"), retryAfter(time.Hour)))
	began := time.Now()
	err := rangeAll(t.Context(), c)
	wantIs(t, err, metasrv.ErrNodesNotHeard)
	wantIs(t, err, context.DeadlineExceeded)
	if time.Since(began) > 5*time.Second {
		t.Error("waited for a deadline that the member's delay exceeds")
	}
}

func TestContextEndsCalls(t *testing.T) {
	m := startMember(t)
	m.hangs()
	c := dial(t, func(cfg *Config) { cfg.CallTimeout = 200 * time.Millisecond }, m.addr)
	err := rangeAll(t.Context(), c)
	wantIs(t, err, context.DeadlineExceeded)
	if status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("default deadline: %v", err)
	}
	if errors.Is(err, metasrv.ErrOutcomeUnknown) {
		t.Error("a read has no outcome that matters")
	}

	ctx, cancel := context.WithCancel(t.Context())
	asked := m.count(rangeMethod)
	done := make(chan error, 1)
	go func() { done <- rangeAll(ctx, c) }()
	eventually(t, "call under way", func() bool { return m.count(rangeMethod) > asked })
	cancel()
	err = <-done
	wantIs(t, err, context.Canceled)
	if status.Code(err) != codes.Canceled {
		t.Errorf("cancelled: %v", err)
	}
}

func TestWatchErrors(t *testing.T) {
	m := startMember(t)
	c := dial(t, func(cfg *Config) { cfg.CallTimeout = 300 * time.Millisecond }, m.addr)
	for _, test := range []struct {
		name string
		end  error
		is   error
	}{
		{"final", refusal(metasrv.ErrCompacted), metasrv.ErrCompacted},
		{"no leader for too long", notLeader(""), metasrv.ErrNotLeader},
		{"ended", nil, io.EOF},
	} {
		t.Run(test.name, func(t *testing.T) {
			m.onStream(func(string, grpc.ServerStream) error { return test.end })
			watch, err := c.Router().Watch(t.Context(), &metasrvpb.WatchRoutesRequest{})
			if err == nil {
				_, err = watch.Recv()
			}
			wantIs(t, err, test.is)
		})
	}
	t.Run("context", func(t *testing.T) {
		m.hangs()
		ctx, cancel := context.WithCancel(t.Context())
		watch, err := c.Router().Watch(ctx, &metasrvpb.WatchRoutesRequest{})
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		_, err = watch.Recv()
		if status.Code(err) != codes.Canceled {
			t.Errorf("error is %v", err)
		}
	})
}
