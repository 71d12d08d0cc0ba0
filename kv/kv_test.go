package kv_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	put           = storagepb.CommandKind_COMMAND_KIND_PUT
	compareAndPut = storagepb.CommandKind_COMMAND_KIND_COMPARE_AND_PUT
	deleteRange   = storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE
	batchPut      = storagepb.CommandKind_COMMAND_KIND_BATCH_PUT
	batchDelete   = storagepb.CommandKind_COMMAND_KIND_BATCH_DELETE
	moveValue     = storagepb.CommandKind_COMMAND_KIND_MOVE_VALUE
	txn           = storagepb.CommandKind_COMMAND_KIND_TXN
)

// neighbours keeps keys of other packages beside those of kv: no range may reach them.
type neighbours struct{}

func (neighbours) Kinds() []storagepb.CommandKind {
	return []storagepb.CommandKind{storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE}
}

func (neighbours) Apply(tx state.Tx, _ storagepb.CommandKind, _ []byte) (proto.Message, error) {
	for _, key := range []string{"kv", "kv.", "kv0", "kv1", "node/1", "catalog/a"} {
		tx.Put(key, []byte("not yours"))
	}
	return nil, nil
}

func newStore(t interface{ Fatal(...any) }) *memory.Node {
	n := memory.New(kv.NewApplier(), neighbours{})
	p := state.Proposal{Kind: storagepb.CommandKind_COMMAND_KIND_REGISTER_NODE, Payload: &storagepb.RegisterNode{}}
	if _, err := n.Propose(context.Background(), p); err != nil {
		t.Fatal(err)
	}
	return n
}

func propose(n *memory.Node, kind storagepb.CommandKind, cmd proto.Message) (*storagepb.KvResult, error) {
	r, err := n.Propose(context.Background(), state.Proposal{Kind: kind, Payload: cmd})
	if err != nil {
		return nil, err
	}
	result := &storagepb.KvResult{}
	return result, state.Decode(r.Payload, result)
}

func must(t *testing.T, n *memory.Node, kind storagepb.CommandKind, cmd proto.Message) *storagepb.KvResult {
	t.Helper()
	result, err := propose(n, kind, cmd)
	if err != nil {
		t.Fatalf("%s %v: %v", kind, cmd, err)
	}
	return result
}

func pair(key, value string) *storagepb.KvPair {
	return &storagepb.KvPair{Key: []byte(key), Value: []byte(value)}
}

// ignoreHistory leaves out what TestRecordsKeepTheirHistory looks at.
var ignoreHistory = protocmp.IgnoreFields(&storagepb.KvPair{}, "create_revision", "mod_revision", "version")

func TestCommands(t *testing.T) {
	// In this order on one store.
	steps := []struct {
		name string
		kind storagepb.CommandKind
		cmd  proto.Message
		want *storagepb.KvResult
	}{
		{"put", put, &storagepb.Put{Key: []byte("a"), Value: []byte("1"), PrevKv: true}, &storagepb.KvResult{}},
		{"put over", put, &storagepb.Put{Key: []byte("a"), Value: []byte("2"), PrevKv: true}, &storagepb.KvResult{Prev: []*storagepb.KvPair{pair("a", "1")}}},
		{"put without asking", put, &storagepb.Put{Key: []byte("a"), Value: []byte("3")}, &storagepb.KvResult{}},
		{"compare with what is there", compareAndPut, &storagepb.CompareAndPut{Key: []byte("a"), Expect: []byte("3"), Value: []byte("4")}, &storagepb.KvResult{Success: true}},
		{"compare with another value", compareAndPut, &storagepb.CompareAndPut{Key: []byte("a"), Expect: []byte("3"), Value: []byte("5")}, &storagepb.KvResult{Prev: []*storagepb.KvPair{pair("a", "4")}}},
		{"compare with absence, present", compareAndPut, &storagepb.CompareAndPut{Key: []byte("a"), Value: []byte("5")}, &storagepb.KvResult{Prev: []*storagepb.KvPair{pair("a", "4")}}},
		{"compare with a value, absent", compareAndPut, &storagepb.CompareAndPut{Key: []byte("b"), Expect: []byte("x"), Value: []byte("5")}, &storagepb.KvResult{}},
		{"compare with absence, absent", compareAndPut, &storagepb.CompareAndPut{Key: []byte("b")}, &storagepb.KvResult{Success: true}},
		{"an empty value is present", compareAndPut, &storagepb.CompareAndPut{Key: []byte("b"), Value: []byte("x")}, &storagepb.KvResult{Prev: []*storagepb.KvPair{pair("b", "")}}},
		{"delete nothing", deleteRange, &storagepb.DeleteRange{Key: []byte("x"), PrevKv: true}, &storagepb.KvResult{}},
		{"delete one", deleteRange, &storagepb.DeleteRange{Key: []byte("a"), PrevKv: true}, &storagepb.KvResult{Deleted: 1, Prev: []*storagepb.KvPair{pair("a", "4")}}},
		{"delete all", deleteRange, &storagepb.DeleteRange{Key: []byte{0}, RangeEnd: []byte{0}}, &storagepb.KvResult{Deleted: 1}},
	}
	n := newStore(t)
	for _, s := range steps {
		got := must(t, n, s.kind, s.cmd)
		if diff := cmp.Diff(s.want, got, protocmp.Transform(), ignoreHistory); diff != "" {
			t.Errorf("%s: %s", s.name, diff)
		}
	}
	if _, ok := n.View().Get("kv0"); !ok {
		t.Error("deleting all keys reached those of others")
	}
}

func TestFailedComparisonChangesNothing(t *testing.T) {
	n := newStore(t)
	must(t, n, put, &storagepb.Put{Key: []byte("a"), Value: []byte("1")})
	before := n.View().Revision()
	must(t, n, compareAndPut, &storagepb.CompareAndPut{Key: []byte("a"), Value: []byte("2")})
	if after := n.View().Revision(); after != before {
		t.Errorf("revision %d, want %d", after, before)
	}
}

func TestRead(t *testing.T) {
	n := newStore(t)
	for _, key := range []string{"a", "a\x00", "ab", "b", "b/c", "\xff\xff"} {
		must(t, n, put, &storagepb.Put{Key: []byte(key), Value: []byte("=" + key)})
	}
	tests := []struct {
		key, end string
		options  kv.Options
		want     []string
		more     bool
	}{
		{"a", "", kv.Options{}, []string{"a"}, false},
		{"x", "", kv.Options{}, nil, false},
		{"a", "b", kv.Options{}, []string{"a", "a\x00", "ab"}, false},
		{"", "b", kv.Options{}, []string{"a", "a\x00", "ab"}, false},
		{"b", "a", kv.Options{}, nil, false},
		{"b", "b", kv.Options{}, nil, false},
		{"ab", "\x00", kv.Options{}, []string{"ab", "b", "b/c", "\xff\xff"}, false},
		{"\x00", "\x00", kv.Options{}, []string{"a", "a\x00", "ab", "b", "b/c", "\xff\xff"}, false},
		{"", "\x00", kv.Options{}, []string{"a", "a\x00", "ab", "b", "b/c", "\xff\xff"}, false},
		{"a", "b", kv.Options{Limit: 2}, []string{"a", "a\x00"}, true},
		{"a", "b", kv.Options{Limit: 3}, []string{"a", "a\x00", "ab"}, false},
		{"a", "b", kv.Options{KeysOnly: true}, []string{"a", "a\x00", "ab"}, false},
	}
	for _, tt := range tests {
		pairs, more, err := kv.Read(n.View(), kv.Range{Key: []byte(tt.key), End: []byte(tt.end)}, tt.options)
		if err != nil {
			t.Fatal(err)
		}
		var keys []string
		for _, p := range pairs {
			keys = append(keys, string(p.Key))
			if want := "=" + string(p.Key); !tt.options.KeysOnly && string(p.Value) != want || tt.options.KeysOnly && p.Value != nil {
				t.Errorf("%q to %q: value of %q is %q", tt.key, tt.end, p.Key, p.Value)
			}
		}
		if !slices.Equal(keys, tt.want) || more != tt.more {
			t.Errorf("%q to %q, %+v = %q, more %t, want %q, %t", tt.key, tt.end, tt.options, keys, more, tt.want, tt.more)
		}
	}
}

func TestRefusals(t *testing.T) {
	long, big := []byte(strings.Repeat("k", kv.MaxKeyLength+1)), make([]byte, kv.MaxValueLength+1)
	a := []byte("a")
	tests := []struct {
		kind  storagepb.CommandKind
		cmd   proto.Message
		field string
	}{
		{put, &storagepb.Put{}, "key"},
		{put, &storagepb.Put{Key: long}, "key"},
		{put, &storagepb.Put{Key: a, Value: big}, "value"},
		{compareAndPut, &storagepb.CompareAndPut{}, "key"},
		{compareAndPut, &storagepb.CompareAndPut{Key: a, Value: big}, "value"},
		{deleteRange, &storagepb.DeleteRange{}, "key"},
		{deleteRange, &storagepb.DeleteRange{Key: long, RangeEnd: a}, "key"},
		{deleteRange, &storagepb.DeleteRange{Key: a, RangeEnd: long}, "range_end"},
	}
	n := newStore(t)
	for _, tt := range tests {
		_, err := propose(n, tt.kind, tt.cmd)
		checkField(t, err, tt.field)
	}
	_, _, err := kv.Read(n.View(), kv.Range{Key: a}, kv.Options{Limit: -1})
	checkField(t, err, "limit")
	must(t, n, put, &storagepb.Put{Key: long[1:], Value: big[1:]})
}

func checkField(t *testing.T, err error, field string) {
	t.Helper()
	if e, _ := errors.AsType[*metasrv.Error](err); !errors.Is(err, metasrv.ErrInvalidArgument) || e.Field != field {
		t.Errorf("error %v, want one of field %s", err, field)
	}
}

// Against a map: whatever the commands, a range holds what the map holds between its ends.
func TestAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, model := newStore(t), map[string]string{}
		key := rapid.Map(rapid.SliceOfN(rapid.SampledFrom([]byte{0, 'a', '/', 0xff}), 1, 3), func(b []byte) string { return string(b) })
		within := func(from, to string) (keys []string) {
			for k := range model {
				if k >= from && (to == "\x00" || k < to) {
					keys = append(keys, k)
				}
			}
			slices.Sort(keys)
			return keys
		}
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), rapid.StringN(0, 2, 8).Draw(t, "value")
				if _, err := propose(n, put, &storagepb.Put{Key: []byte(k), Value: []byte(v)}); err != nil {
					t.Fatal(err)
				}
				model[k] = v
			},
			"delete": func(t *rapid.T) {
				from, to := key.Draw(t, "from"), key.Draw(t, "to")
				r, err := propose(n, deleteRange, &storagepb.DeleteRange{Key: []byte(from), RangeEnd: []byte(to)})
				doomed := within(from, to)
				if err != nil || r.Deleted != int64(len(doomed)) {
					t.Fatalf("deleted %v, %v, want %d", r, err, len(doomed))
				}
				for _, k := range doomed {
					delete(model, k)
				}
			},
			"": func(t *rapid.T) {
				pairs, _, err := kv.Read(n.View(), kv.Range{End: []byte{0}}, kv.Options{})
				if err != nil {
					t.Fatal(err)
				}
				got := map[string]string{}
				for _, p := range pairs {
					got[string(p.Key)] = string(p.Value)
				}
				if fmt.Sprint(got) != fmt.Sprint(model) {
					t.Fatalf("store %q, want %q", got, model)
				}
			},
		})
	})
}

// A result is kept for its session, so what DeleteRange returns is bounded; what is refused is not deleted.
func TestDeleteRangeReturnsABoundedResult(t *testing.T) {
	n := newStore(t)
	for i := range 5 {
		must(t, n, storagepb.CommandKind_COMMAND_KIND_PUT, &storagepb.Put{Key: []byte{'k', byte('0' + i)}, Value: make([]byte, 1<<20)})
	}
	all := &storagepb.DeleteRange{Key: []byte("k"), RangeEnd: []byte("l"), PrevKv: true}
	if _, err := propose(n, storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE, all); !errors.Is(err, metasrv.ErrInvalidArgument) {
		t.Errorf("5 MiB were answered with %v, want ErrInvalidArgument", err)
	}
	all.PrevKv = false
	if r := must(t, n, storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE, all); r.Deleted != 5 {
		t.Errorf("%d keys were left to delete, want 5", r.Deleted)
	}
}
