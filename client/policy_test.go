package client

import (
	"context"
	"errors"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
)

func TestClassify(t *testing.T) {
	for _, test := range []struct {
		name string
		err  error
		want verdict
	}{
		{"leader named", notLeader("h:1"), verdict{action: follow, leader: "h:1"}},
		{"no leader", notLeader(""), verdict{action: another}},
		{"not ready", refusal(metasrv.ErrNotReady), verdict{action: another}},
		{"not ready, with a delay", refusal(metasrv.ErrNotReady, retryAfter(time.Second)), verdict{action: another, delay: time.Second}},
		{"nodes not heard", refusal(metasrv.ErrNodesNotHeard, retryAfter(time.Second)), verdict{action: again, delay: time.Second}},
		{"overloaded", refusal(metasrv.ErrOverloaded), verdict{action: again}},
		{"negative delay", refusal(metasrv.ErrOverloaded, retryAfter(-time.Second)), verdict{action: again}},
		{"outcome unknown", refusal(metasrv.ErrOutcomeUnknown), verdict{action: another, unknown: true}},
		{"session expired", refusal(metasrv.ErrSessionExpired), verdict{action: renewSession}},
		{"not found", refusal(metasrv.ErrTableNotFound), verdict{action: giveUp, settled: true}},
		{"disk full", refusal(metasrv.ErrDiskFull), verdict{action: again}},
		{"states differ", refusal(metasrv.ErrStatesDiffer), verdict{action: giveUp}},
		{"another life of the cluster", refusal(metasrv.ErrClusterMismatch), verdict{action: giveUp}},
		{"invalid", refusal(metasrv.ErrInvalidArgument), verdict{action: giveUp, settled: true}},
		{"aborted", refusal(metasrv.ErrSchemaVersionChanged), verdict{action: giveUp, settled: true}},
		{"internal", refusal(metasrv.ErrInternal), verdict{action: giveUp, unknown: true}},
		{"connection lost", status.Error(codes.Unavailable, "eof"), verdict{action: another, unknown: true}},
		{"attempt took too long", status.FromContextError(context.DeadlineExceeded).Err(), verdict{action: another, unknown: true}},
		{"member stops", status.Error(codes.Canceled, "stopping"), verdict{action: another, unknown: true}},
		{"message too large", status.Error(codes.ResourceExhausted, "too large"), verdict{action: giveUp, unknown: true}},
		{"unimplemented", status.Error(codes.Unimplemented, "no"), verdict{action: giveUp}},
		{"denied", status.Error(codes.PermissionDenied, "no"), verdict{action: giveUp}},
		{"no status", errors.New("broken"), verdict{action: giveUp, unknown: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := classify(test.err); got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

// A new RPC must say in the table of methods how it may be retried.
func TestMethodsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	protoregistry.GlobalFiles.RangeFilesByPackage("metasrv.v1", func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			service := f.Services().Get(i)
			for j := range service.Methods().Len() {
				m := service.Methods().Get(j)
				name := "/" + string(service.FullName()) + "/" + string(m.Name())
				seen[name] = true
				checkMethod(t, name, m)
			}
		}
		return true
	})
	for name := range methods {
		if !seen[name] {
			t.Errorf("%s is in the table but not in the protocol", name)
		}
	}
}

func checkMethod(t *testing.T, name string, m protoreflect.MethodDescriptor) {
	t.Helper()
	kind, ok := methods[name]
	if !ok {
		t.Errorf("%s is not in the table of methods", name)
		return
	}
	if streaming := m.IsStreamingClient() || m.IsStreamingServer(); streaming != (kind == stream) {
		t.Errorf("%s: streaming is %v, kind is %d", name, streaming, kind)
	}
	header := m.Input().Fields().ByName(headerField)
	if header == nil || header.Message().FullName() != "metasrv.v1.RequestHeader" {
		t.Errorf("%s: its request has no header", name)
	}
	if strings.HasPrefix(name, "/metasrv.v1.Maintenance/") {
		if kind == write || kind == once {
			t.Errorf("%s: kind is %d; what an operator does to the cluster must bear repetition without a session", name, kind)
		}
		return
	}
	if strings.HasPrefix(name, "/metasrv.v1.Lock/") || strings.HasPrefix(name, "/metasrv.v1.Election/") {
		return // whether they bear repetition depends on what a holder has, not on their names
	}
	mutating := true
	for _, prefix := range []string{"Get", "List", "Route", "Range", "BatchGet", "Stat", "AskLeader", "Watch", "Heartbeat", "OpenSession", "CloseSession"} {
		mutating = mutating && !strings.HasPrefix(string(m.Name()), prefix)
	}
	if mutating != (kind == write) {
		t.Errorf("%s: looks mutating: %v, kind is %d", name, mutating, kind)
	}
}

func TestWithHeaderLeavesTheMessageAlone(t *testing.T) {
	for _, header := range []*metasrvpb.RequestHeader{nil, {ClusterId: 7, RequestId: &metasrvpb.RequestId{Session: 1}}} {
		original := &metasrvpb.CreateRequest{
			Header:    header,
			TableName: &metasrvpb.TableName{TableName: "t"},
			TableInfo: []byte("info"),
			Replicas:  2,
		}
		original.ProtoReflect().SetUnknown([]byte{0xa8, 0x46, 0x01})
		before := proto.CloneOf(original)
		got, h := withHeader(original)
		h.RequestId = &metasrvpb.RequestId{Session: 3, Sequence: 4}
		if diff := cmp.Diff(before, original, protocmp.Transform()); diff != "" {
			t.Errorf("the original changed: %s", diff)
		}
		want := proto.CloneOf(before)
		if want.Header == nil {
			want.Header = &metasrvpb.RequestHeader{}
		}
		want.Header.RequestId = &metasrvpb.RequestId{Session: 3, Sequence: 4}
		if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
			t.Errorf("the copy differs: %s", diff)
		}
	}
	if _, h := withHeader(&metasrvpb.Peer{}); h != nil {
		t.Error("a message without a header got one")
	}
}

func TestConfigValidate(t *testing.T) {
	ok := []string{"h:1"}
	for _, test := range []struct {
		field string
		cfg   Config
	}{
		{"", Config{Endpoints: ok}},
		{"", Config{Endpoints: []string{"[::1]:3002", "h:1"}}},
		{"Endpoints", Config{}},
		{"Endpoints", Config{Endpoints: []string{"h"}}},
		{"Endpoints", Config{Endpoints: []string{":1"}}},
		{"Endpoints", Config{Endpoints: []string{"h:"}}},
		{"CallTimeout", Config{Endpoints: ok, CallTimeout: -1}},
		{"AttemptTimeout", Config{Endpoints: ok, AttemptTimeout: -1}},
		{"MinBackoff", Config{Endpoints: ok, MinBackoff: -1}},
		{"MaxBackoff", Config{Endpoints: ok, MaxBackoff: -1}},
		{"MaxBackoff", Config{Endpoints: ok, MinBackoff: 2, MaxBackoff: 1}},
		{"IdleTimeout", Config{Endpoints: ok, IdleTimeout: -1}},
	} {
		err := test.cfg.Validate()
		if test.field == "" {
			if err != nil {
				t.Errorf("%+v: %v", test.cfg, err)
			}
			continue
		}
		e, is := errors.AsType[*metasrv.Error](err)
		if !is || e.Field != test.field || !errors.Is(err, metasrv.ErrInvalidArgument) {
			t.Errorf("%+v: error is %v, want one of field %s", test.cfg, err, test.field)
		}
		if _, err := New(test.cfg); !errors.Is(err, metasrv.ErrInvalidArgument) {
			t.Errorf("New(%+v): error is %v", test.cfg, err)
		}
	}
	cfg := Config{Endpoints: []string{"h:1", "h:2", "h:1"}, MinBackoff: 5 * time.Second}.withDefaults()
	if diff := cmp.Diff([]string{"h:1", "h:2"}, cfg.Endpoints); diff != "" || cfg.MaxBackoff < cfg.MinBackoff {
		t.Errorf("defaults: %+v", cfg)
	}
}

// The watermark is the highest sequence below which nothing is open: never one that may still be sent again,
// and never less than can be forgotten.
func TestWatermark(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newSession(1)
		open := map[uint64]bool{}
		last := uint64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			if len(open) == 0 || rapid.Bool().Draw(t, "begin") {
				sequence, ok := s.begin()
				if !ok || sequence != last+1 {
					t.Fatalf("sequence %d follows %d", sequence, last)
				}
				last = sequence
				open[sequence] = true
			} else {
				var choices []uint64
				for sequence := uint64(1); sequence <= last; sequence++ {
					if open[sequence] {
						choices = append(choices, sequence)
					}
				}
				sequence := rapid.SampledFrom(choices).Draw(t, "end")
				delete(open, sequence)
				s.end(sequence)
			}
			want := last
			for sequence := range open {
				want = min(want, sequence-1)
			}
			if got := s.requestID(last).GetAcknowledged(); got != want {
				t.Fatalf("watermark is %d, want %d (open: %v)", got, want, open)
			}
			if len(s.ended) > int(last-want) {
				t.Fatalf("remembers %d ended sequences above %d", len(s.ended), want)
			}
		}
	})
}

func TestWalk(t *testing.T) {
	ms := newMembers(Config{Endpoints: []string{"a", "b", "c"}, MinBackoff: time.Second, MaxBackoff: 8 * time.Second, Logger: slog.New(slog.DiscardHandler)})
	start := func() *walk {
		ms.leader = "a"
		return ms.walk(firstLeader)
	}
	redirect := func(to string) verdict { return verdict{action: follow, leader: to} }

	w := start()
	if wait := w.next(redirect("x")); w.target != "x" || wait != 0 {
		t.Errorf("redirect: target %s after %s", w.target, wait)
	}
	if wait := w.next(verdict{action: again, delay: time.Minute}); w.target != "x" || wait != time.Minute {
		t.Errorf("again: target %s after %s", w.target, wait)
	}

	w = start()
	w.next(verdict{action: another, unknown: true})
	if w.target == "a" || ms.known() != "" {
		t.Errorf("after a silent leader: target %s, leader %q", w.target, ms.known())
	}
	if wait := w.next(redirect("a")); w.target != "a" || wait == 0 {
		t.Errorf("sent back to a silent member: target %s after %s", w.target, wait)
	}

	w = start()
	pauses := 0
	for i := range 100 {
		to := "b"
		if i%2 == 1 {
			to = "a"
		}
		if wait := w.next(redirect(to)); wait > 0 {
			pauses++
		}
	}
	if pauses < 100/(maxHops+1) {
		t.Errorf("%d pauses in a redirect loop of 100", pauses)
	}

	w = start()
	if wait := w.next(redirect("a")); wait == 0 {
		t.Error("a member that names itself is asked again without a pause")
	}

	w = start()
	for i := range 100 {
		asked := map[string]bool{w.target: true}
		for range 2 {
			if wait := w.next(verdict{action: another}); wait != 0 {
				t.Errorf("pause of %s before every member was asked", wait)
			}
			asked[w.target] = true
		}
		if len(asked) != 3 {
			t.Errorf("asked %v before a pause", asked)
		}
		longest := min(8*time.Second, time.Duration(float64(time.Second)*math.Pow(1.25, float64(i))))
		if wait := w.next(verdict{action: another}); wait < longest/2 || wait > longest {
			t.Errorf("pause %d is %s, want %s to %s", i, wait, longest/2, longest)
		}
	}
}

func TestMembersRotate(t *testing.T) {
	ms := newMembers(Config{Endpoints: []string{"a", "b"}})
	ms.learn([]string{"b", "c", "", "c"})
	var got []string
	for range 6 {
		got = append(got, ms.rotate(""))
	}
	if diff := cmp.Diff([]string{"a", "b", "c", "a", "b", "c"}, got); diff != "" {
		t.Error(diff)
	}
	if addr := ms.rotate("a"); addr != "b" {
		t.Errorf("rotate to %s", addr)
	}
	if addr := newMembers(Config{Endpoints: []string{"a"}}).rotate("a"); addr != "a" {
		t.Errorf("the only member: %q", addr)
	}
}
