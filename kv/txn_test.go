package kv_test

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv/kv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	metasrvpb "github.com/metasrv/metasrv/proto/metasrv/v1"
	"github.com/metasrv/metasrv/raftfsm/memory"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	equal    = metasrvpb.CompareOperator_COMPARE_OPERATOR_EQUAL
	notEqual = metasrvpb.CompareOperator_COMPARE_OPERATOR_NOT_EQUAL
	greater  = metasrvpb.CompareOperator_COMPARE_OPERATOR_GREATER
	less     = metasrvpb.CompareOperator_COMPARE_OPERATOR_LESS
)

func opPut(key, value string) *storagepb.TxnOp {
	return &storagepb.TxnOp{Op: &storagepb.TxnOp_Put{Put: &storagepb.Put{Key: []byte(key), Value: []byte(value), PrevKv: true}}}
}

func opDelete(key, end string) *storagepb.TxnOp {
	return &storagepb.TxnOp{Op: &storagepb.TxnOp_DeleteRange{DeleteRange: &storagepb.DeleteRange{
		Key: []byte(key), RangeEnd: []byte(end), PrevKv: true,
	}}}
}

func opRange(key, end string) *storagepb.TxnOp {
	return &storagepb.TxnOp{Op: &storagepb.TxnOp_Range{Range: &storagepb.TxnRange{Key: []byte(key), RangeEnd: []byte(end)}}}
}

func exists(key string, want bool) *metasrvpb.Compare {
	return &metasrvpb.Compare{Key: []byte(key), Target: &metasrvpb.Compare_Exists{Exists: want}}
}

func runTxn(n *memory.Node, cmd *storagepb.Txn) (*storagepb.TxnResult, error) {
	r, err := n.Propose(context.Background(), state.Proposal{Kind: txn, Payload: cmd})
	if err != nil {
		return nil, err
	}
	result := &storagepb.TxnResult{}
	return result, state.Decode(r.Payload, result)
}

func mustTxn(t *testing.T, n *memory.Node, cmd *storagepb.Txn) *storagepb.TxnResult {
	t.Helper()
	result, err := runTxn(n, cmd)
	if err != nil {
		t.Fatal(err)
	}
	return result
}

// A key's record tells when it was created and last written, and how often since.
func TestRecordsKeepTheirHistory(t *testing.T) {
	n := newStore(t) // revision 1
	must(t, n, put, &storagepb.Put{Key: []byte("a"), Value: []byte("1")})
	must(t, n, put, &storagepb.Put{Key: []byte("a"), Value: []byte("2")})
	must(t, n, batchPut, &storagepb.BatchPut{Pairs: []*storagepb.KvPair{pair("b", ""), pair("a", "3")}})
	want := func(key, value string, create, mod, version uint64) {
		t.Helper()
		got, err := kv.Get(n.View(), []byte(key))
		if err != nil || got == nil {
			t.Fatalf("%s: %v, %v", key, got, err)
		}
		if diff := cmp.Diff(&kv.Pair{Key: []byte(key), Value: got.Value, CreateRevision: create, ModRevision: mod, Version: version}, got); diff != "" || string(got.Value) != value {
			t.Errorf("value %q, %s", got.Value, diff)
		}
	}
	want("a", "3", 2, 4, 3)
	want("b", "", 4, 4, 1)
	must(t, n, deleteRange, &storagepb.DeleteRange{Key: []byte("a")})
	must(t, n, compareAndPut, &storagepb.CompareAndPut{Key: []byte("a"), Value: []byte("4")})
	want("a", "4", 6, 6, 1)
	must(t, n, moveValue, &storagepb.MoveValue{FromKey: []byte("a"), ToKey: []byte("b")})
	want("b", "4", 4, 7, 2)
	if got := n.View().Revision(); got != 7 {
		t.Errorf("revision %d, want 7", got)
	}
}

func TestBatches(t *testing.T) {
	n := newStore(t)
	steps := []struct {
		name string
		kind storagepb.CommandKind
		cmd  proto.Message
		want *storagepb.KvResult
	}{
		{"put", batchPut, &storagepb.BatchPut{Pairs: []*storagepb.KvPair{pair("b", "2"), pair("a", "1")}, PrevKv: true}, &storagepb.KvResult{}},
		{
			"put over", batchPut, &storagepb.BatchPut{Pairs: []*storagepb.KvPair{pair("c", "3"), pair("a", "0")}, PrevKv: true},
			&storagepb.KvResult{Prev: []*storagepb.KvPair{pair("a", "1")}},
		},
		{
			"delete, one key twice", batchDelete, &storagepb.BatchDelete{Keys: [][]byte{[]byte("x"), []byte("c"), []byte("c")}, PrevKv: true},
			&storagepb.KvResult{Deleted: 1, Prev: []*storagepb.KvPair{pair("c", "3")}},
		},
		{"delete nothing", batchDelete, &storagepb.BatchDelete{}, &storagepb.KvResult{}},
		{
			"move over", moveValue, &storagepb.MoveValue{FromKey: []byte("a"), ToKey: []byte("b")},
			&storagepb.KvResult{Prev: []*storagepb.KvPair{pair("a", "0")}},
		},
		{
			"move what is gone", moveValue, &storagepb.MoveValue{FromKey: []byte("a"), ToKey: []byte("b")},
			&storagepb.KvResult{Prev: []*storagepb.KvPair{pair("b", "0")}},
		},
		{"move nothing", moveValue, &storagepb.MoveValue{FromKey: []byte("a"), ToKey: []byte("x")}, &storagepb.KvResult{}},
		{
			"move onto itself", moveValue, &storagepb.MoveValue{FromKey: []byte("b"), ToKey: []byte("b")},
			&storagepb.KvResult{Prev: []*storagepb.KvPair{pair("b", "0")}},
		},
	}
	for _, s := range steps {
		got := must(t, n, s.kind, s.cmd)
		if diff := cmp.Diff(s.want, got, protocmp.Transform(), ignoreHistory); diff != "" {
			t.Errorf("%s: %s", s.name, diff)
		}
	}
	pairs, _, err := kv.Read(n.View(), kv.Range{End: []byte{0}}, kv.Options{})
	if err != nil || len(pairs) != 1 || string(pairs[0].Key) != "b" || pairs[0].Version != 2 {
		t.Errorf("left is %v, %v", pairs, err)
	}
}

func TestCompares(t *testing.T) {
	n := newStore(t)
	for _, p := range []string{"a", "a", "b"} { // revisions 2, 3, 4
		must(t, n, put, &storagepb.Put{Key: []byte(p), Value: []byte("=" + p)})
	}
	version := func(key, end string, o metasrvpb.CompareOperator, v uint64) *metasrvpb.Compare {
		return &metasrvpb.Compare{Key: []byte(key), RangeEnd: []byte(end), Operator: o, Target: &metasrvpb.Compare_Version{Version: v}}
	}
	value := func(key string, o metasrvpb.CompareOperator, v string) *metasrvpb.Compare {
		return &metasrvpb.Compare{Key: []byte(key), Operator: o, Target: &metasrvpb.Compare_Value{Value: []byte(v)}}
	}
	created := func(key string, v uint64) *metasrvpb.Compare {
		return &metasrvpb.Compare{Key: []byte(key), Target: &metasrvpb.Compare_CreateRevision{CreateRevision: v}}
	}
	changed := func(key string, o metasrvpb.CompareOperator, v uint64) *metasrvpb.Compare {
		return &metasrvpb.Compare{Key: []byte(key), Operator: o, Target: &metasrvpb.Compare_ModRevision{ModRevision: v}}
	}
	inRange := func(key, end string, want bool) *metasrvpb.Compare {
		return &metasrvpb.Compare{Key: []byte(key), RangeEnd: []byte(end), Operator: equal, Target: &metasrvpb.Compare_Exists{Exists: want}}
	}
	tests := []struct {
		compare *metasrvpb.Compare
		want    bool
	}{
		{version("a", "", equal, 2), true},
		{version("a", "", 0, 2), true},
		{version("a", "", notEqual, 2), false},
		{version("a", "", greater, 1), true},
		{version("a", "", greater, 2), false},
		{version("a", "", less, 3), true},
		{version("a", "", less, 2), false},
		{version("x", "", equal, 0), true},
		{version("x", "", less, 1), true},
		{version("a", "z", greater, 0), true},
		{version("a", "z", greater, 1), false}, // b has 1
		{version("x", "z", equal, 0), true},
		{version("x", "z", greater, 0), false},
		{value("a", equal, "=a"), true},
		{value("a", less, "=b"), true},
		{value("a", greater, "=b"), false},
		{value("x", equal, ""), false},
		{value("x", notEqual, "=a"), false},
		{value("x", less, "=a"), false},
		{created("a", 2), true},
		{created("a", 3), false},
		{created("x", 0), true},
		{changed("a", equal, 3), true},
		{changed("a", equal, 2), false},
		{changed("b", greater, 3), true},
		{changed("x", equal, 0), true},
		{exists("a", true), true},
		{exists("a", false), false},
		{exists("x", false), true},
		{exists("x", true), false},
		{inRange("a", "z", true), true},
		{inRange("x", "z", true), false},
		{inRange("x", "z", false), true},
	}
	for _, tt := range tests {
		if got := mustTxn(t, n, &storagepb.Txn{Compares: []*metasrvpb.Compare{tt.compare}}); got.Succeeded != tt.want {
			t.Errorf("%v: %t, want %t", tt.compare, got.Succeeded, tt.want)
		}
	}
}

func TestTxnRefusals(t *testing.T) {
	long, big := strings.Repeat("k", kv.MaxKeyLength+1), strings.Repeat("v", kv.MaxValueLength+1)
	many := slices.Repeat([]*storagepb.TxnOp{opRange("a", "")}, kv.MaxTxnOps+1)
	tests := []struct {
		cmd   *storagepb.Txn
		field string
	}{
		{&storagepb.Txn{Compares: []*metasrvpb.Compare{exists("a", true), {Key: []byte("a")}}}, "compare[1].target"},
		{&storagepb.Txn{Compares: []*metasrvpb.Compare{exists("", true)}}, "compare[0].key"},
		{&storagepb.Txn{Compares: []*metasrvpb.Compare{{
			Key: []byte("a"), Operator: less, Target: &metasrvpb.Compare_Exists{},
		}}}, "compare[0].operator"},
		{&storagepb.Txn{Compares: []*metasrvpb.Compare{{
			Key: []byte("a"), Operator: 9, Target: &metasrvpb.Compare_Version{},
		}}}, "compare[0].operator"},
		{&storagepb.Txn{Compares: []*metasrvpb.Compare{{
			Key: []byte("a"), Target: &metasrvpb.Compare_Value{Value: []byte(big)},
		}}}, "compare[0].value"},
		{&storagepb.Txn{Compares: slices.Repeat([]*metasrvpb.Compare{exists("a", true)}, kv.MaxTxnOps+1)}, "compare"},
		{&storagepb.Txn{Success: many}, "success"},
		{&storagepb.Txn{Failure: many}, "failure"},
		{&storagepb.Txn{Success: []*storagepb.TxnOp{{}}}, "success[0].op"},
		{&storagepb.Txn{Success: []*storagepb.TxnOp{opPut(long, "")}}, "success[0].put.key"},
		{&storagepb.Txn{Failure: []*storagepb.TxnOp{opPut("a", ""), opPut("b", big)}}, "failure[1].put.value"},
		{&storagepb.Txn{Success: []*storagepb.TxnOp{opRange("", "")}}, "success[0].range.key"},
		{&storagepb.Txn{Success: []*storagepb.TxnOp{opDelete("a", long)}}, "success[0].delete_range.range_end"},
		{&storagepb.Txn{Success: []*storagepb.TxnOp{opPut("a", "1"), opPut("b", "1"), opPut("a", "2")}}, "success[2].put.key"},
		{&storagepb.Txn{Success: []*storagepb.TxnOp{opDelete("a", "c"), opPut("b", "1")}}, "success[1].put.key"},
		{&storagepb.Txn{Success: []*storagepb.TxnOp{opPut("b", "1"), opDelete("a", "\x00")}}, "success[0].put.key"},
		{&storagepb.Txn{Failure: []*storagepb.TxnOp{opPut("b", "1"), opDelete("b", "")}}, "failure[0].put.key"},
	}
	n := newStore(t)
	for _, tt := range tests {
		_, err := runTxn(n, tt.cmd)
		checkField(t, err, tt.field)
	}
	_, err := propose(n, batchPut, &storagepb.BatchPut{Pairs: []*storagepb.KvPair{pair("a", ""), pair("b", ""), pair("a", "")}})
	checkField(t, err, "kvs[2].key")
	_, err = propose(n, batchPut, &storagepb.BatchPut{Pairs: []*storagepb.KvPair{pair("a", ""), pair("", "")}})
	checkField(t, err, "kvs[1].key")
	_, err = propose(n, batchDelete, &storagepb.BatchDelete{Keys: make([][]byte, kv.MaxBatch+1)})
	checkField(t, err, "keys")
	_, err = propose(n, moveValue, &storagepb.MoveValue{FromKey: []byte("a")})
	checkField(t, err, "to_key")
	if got := n.View().Revision(); got != 1 {
		t.Errorf("refusals moved the revision to %d", got)
	}
	// The same key in both lists is no duplicate, nor are two deletions of one.
	mustTxn(t, n, &storagepb.Txn{
		Success: []*storagepb.TxnOp{opPut("a", "1"), opDelete("b", ""), opDelete("b", "c")}, Failure: []*storagepb.TxnOp{opPut("a", "1")},
	})
}

// What is read in a transaction may not make its result larger than one can be kept; all of it is taken back then.
func TestTxnReturnsABoundedResult(t *testing.T) {
	n := newStore(t)
	for i := range 5 {
		must(t, n, put, &storagepb.Put{Key: []byte{'k', byte('0' + i)}, Value: make([]byte, 1<<20)})
	}
	for i, ops := range [][]*storagepb.TxnOp{
		{opPut("a", "1"), opRange("k", "l")},
		{opRange("k", "k3"), opPut("k4", "")},
		{opRange("k", "k3"), opDelete("k3", "\x00")},
	} {
		before := n.View().Revision()
		_, err := runTxn(n, &storagepb.Txn{Success: ops})
		checkField(t, err, fmt.Sprintf("success[%d]", len(ops)-1))
		if after := n.View().Revision(); after != before {
			t.Errorf("transaction %d was refused, but moved the revision from %d to %d", i, before, after)
		}
	}
	keysOnly := opRange("k", "l")
	keysOnly.GetRange().KeysOnly = true
	count := opRange("k", "l")
	count.GetRange().CountOnly = true
	limited := opRange("k", "l")
	limited.GetRange().Limit = 2
	r := mustTxn(t, n, &storagepb.Txn{Success: []*storagepb.TxnOp{keysOnly, count, limited}})
	if len(r.Results[0].Pairs) != 5 || r.Results[1].Count != 5 || len(r.Results[2].Pairs) != 2 || !r.Results[2].More {
		t.Errorf("read %d pairs, counted %d, read %d with a limit", len(r.Results[0].Pairs), r.Results[1].Count, len(r.Results[2].Pairs))
	}
}

// modelStore is what the store should be: a map with history.
type modelStore struct {
	pairs    map[string]kv.Pair
	revision uint64
}

func (m *modelStore) within(key, end string) (keys []string) {
	for k := range m.pairs {
		if end == "" && k == key || end != "" && k >= key && (end == "\x00" || k < end) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys
}

func (m *modelStore) protoOf(key string) *storagepb.KvPair {
	p := m.pairs[key]
	return &storagepb.KvPair{
		Key: []byte(key), Value: p.Value, CreateRevision: p.CreateRevision, ModRevision: p.ModRevision, Version: p.Version,
	}
}

func (m *modelStore) holds(c *metasrvpb.Compare) bool {
	p, ok := m.pairs[string(c.Key)]
	order := 0
	switch target := c.Target.(type) {
	case *metasrvpb.Compare_Exists:
		return ok == target.Exists
	case *metasrvpb.Compare_Value:
		if !ok {
			return false
		}
		order = bytes.Compare(p.Value, target.Value)
	case *metasrvpb.Compare_ModRevision:
		order = int(p.ModRevision) - int(target.ModRevision)
	case *metasrvpb.Compare_CreateRevision:
		order = int(p.CreateRevision) - int(target.CreateRevision)
	case *metasrvpb.Compare_Version:
		order = int(p.Version) - int(target.Version)
	}
	return map[metasrvpb.CompareOperator]bool{equal: order == 0, notEqual: order != 0, greater: order > 0, less: order < 0}[c.Operator]
}

func (m *modelStore) execute(cmd *storagepb.Txn) *storagepb.TxnResult {
	want := &storagepb.TxnResult{Succeeded: !slices.ContainsFunc(cmd.Compares, func(c *metasrvpb.Compare) bool { return !m.holds(c) })}
	ops, wrote := cmd.Success, false
	if !want.Succeeded {
		ops = cmd.Failure
	}
	for _, op := range ops {
		r := &storagepb.TxnOpResult{}
		switch op := op.Op.(type) {
		case *storagepb.TxnOp_Range:
			for _, key := range m.within(string(op.Range.Key), string(op.Range.RangeEnd)) {
				r.Pairs = append(r.Pairs, m.protoOf(key))
				r.Count++
			}
		case *storagepb.TxnOp_Put:
			key := string(op.Put.Key)
			p, ok := m.pairs[key]
			if ok {
				r.Pairs = append(r.Pairs, m.protoOf(key))
			} else {
				p.CreateRevision = m.revision + 1
			}
			p.Value, p.ModRevision, p.Version, wrote = op.Put.Value, m.revision+1, p.Version+1, true
			m.pairs[key] = p
		case *storagepb.TxnOp_DeleteRange:
			for _, key := range m.within(string(op.DeleteRange.Key), string(op.DeleteRange.RangeEnd)) {
				r.Pairs = append(r.Pairs, m.protoOf(key))
				r.Count++
				delete(m.pairs, key)
				wrote = true
			}
		}
		want.Results = append(want.Results, r)
	}
	if wrote {
		m.revision++
	}
	return want
}

func drawTxn(t *rapid.T) *storagepb.Txn {
	key := rapid.SampledFrom([]string{"a", "b", "c"})
	value := rapid.SampledFrom([]string{"", "x", "y"})
	number := rapid.Uint64Range(0, 8)
	cmd := &storagepb.Txn{}
	for range rapid.IntRange(0, 2).Draw(t, "compares") {
		c := &metasrvpb.Compare{
			Key:      []byte(key.Draw(t, "compared")),
			Operator: rapid.SampledFrom([]metasrvpb.CompareOperator{equal, notEqual, greater, less}).Draw(t, "operator"),
		}
		switch rapid.IntRange(0, 4).Draw(t, "target") {
		case 0:
			c.Target = &metasrvpb.Compare_Value{Value: []byte(value.Draw(t, "value"))}
		case 1:
			c.Target = &metasrvpb.Compare_ModRevision{ModRevision: number.Draw(t, "mod")}
		case 2:
			c.Target = &metasrvpb.Compare_CreateRevision{CreateRevision: number.Draw(t, "create")}
		case 3:
			c.Target = &metasrvpb.Compare_Version{Version: number.Draw(t, "version")}
		default:
			c.Operator, c.Target = equal, &metasrvpb.Compare_Exists{Exists: rapid.Bool().Draw(t, "exists")}
		}
		cmd.Compares = append(cmd.Compares, c)
	}
	list := func(name string) (ops []*storagepb.TxnOp) {
		for range rapid.IntRange(0, 3).Draw(t, name) {
			k, end := key.Draw(t, "key"), rapid.SampledFrom([]string{"", "c", "\x00"}).Draw(t, "end")
			switch rapid.IntRange(0, 2).Draw(t, "op") {
			case 0:
				ops = append(ops, opRange(k, end))
			case 1:
				ops = append(ops, opPut(k, value.Draw(t, "value")))
			default:
				ops = append(ops, opDelete(k, end))
			}
		}
		return ops
	}
	cmd.Success, cmd.Failure = list("success"), list("failure")
	return cmd
}

// Whatever transactions are executed, each has the results, and leaves the pairs, that a simple model has.
func TestTxnsAgainstAModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, model := newStore(t), &modelStore{pairs: map[string]kv.Pair{}, revision: 1}
		for range rapid.IntRange(1, 20).Draw(t, "transactions") {
			cmd := drawTxn(t)
			if kv.ValidateTxn(cmd) != nil {
				if _, err := runTxn(n, cmd); err == nil {
					t.Fatalf("%v was executed", cmd)
				}
				continue
			}
			if kv.ReadsOnly(cmd) {
				read, err := kv.ReadTxn(n.View(), cmd)
				want := (&modelStore{pairs: model.pairs}).execute(cmd)
				if diff := cmp.Diff(want, read, protocmp.Transform()); err != nil || diff != "" {
					t.Fatalf("read by %v: %v, %s", cmd, err, diff)
				}
			}
			want := model.execute(cmd)
			got, err := runTxn(n, cmd)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, protocmp.Transform()); diff != "" {
				t.Fatalf("%v: %s", cmd, diff)
			}
			if n.View().Revision() != model.revision {
				t.Fatalf("%v made revision %d, want %d", cmd, n.View().Revision(), model.revision)
			}
		}
		all, _, err := kv.Read(n.View(), kv.Range{End: []byte{0}}, kv.Options{})
		if err != nil || len(all) != len(model.pairs) {
			t.Fatalf("%d pairs, want %d, %v", len(all), len(model.pairs), err)
		}
	})
}
