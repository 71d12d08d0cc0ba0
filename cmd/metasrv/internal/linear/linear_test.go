package linear

import (
	"os"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func put(value string) KVCall {
	return KVCall{Name: "put", Group: "g", Then: []Action{{Put: true, Value: value, Blind: true}}}
}

func get() KVCall { return KVCall{Name: "get", Group: "g", Then: []Action{{}}} }

func found(values ...string) KVAnswer {
	var a KVAnswer
	for _, v := range values {
		a.Found = append(a.Found, KVState{v})
	}
	return a
}

// script makes a history of operations that follow each other; two that are under way together are given by hand.
type script struct{ History }

func (s *script) do(in, out any, meta func(*Op)) { s.Begin(1, in).End(out, meta) }

func at(revision uint64, member string) func(*Op) {
	return func(op *Op) { op.Revision, op.Member = revision, member }
}

func TestHistories(t *testing.T) {
	for _, test := range []struct {
		name string
		make func(s *script)
		// want is part of the report, "" where the history is right.
		want string
	}{
		{"a read after a write", func(s *script) {
			s.do(put("1"), found(""), at(1, "a"))
			s.do(get(), found("1"), at(1, "a"))
		}, ""},
		{"an old value", func(s *script) {
			s.do(put("1"), found(""), at(1, "a"))
			s.do(put("2"), found(""), at(2, "a"))
			s.do(get(), found("1"), at(2, "b"))
		}, "not linearizable: store g"},
		{"an old revision", func(s *script) {
			s.do(put("1"), found(""), at(2, "a"))
			s.do(KVCall{Name: "get", Group: "h", Then: []Action{{}}}, found(""), at(1, "b"))
		}, "a linearizable answer is of revision 1 after one of 2"},
		{"a write that may come later", func(s *script) {
			s.Begin(2, put("1")).Unknown()
			s.do(get(), found(""), at(1, "a"))
			s.do(get(), found("1"), at(2, "a"))
		}, ""},
		{"a write that comes twice", func(s *script) {
			s.Begin(2, put("1")).Unknown()
			s.do(get(), found("1"), at(1, "a"))
			s.do(put("2"), found(""), at(2, "a"))
			s.do(get(), found("2"), at(2, "a"))
			s.do(get(), found("1"), at(3, "a"))
		}, "not linearizable: store g"},
		{"an operation under way", func(s *script) {
			p := s.Begin(2, put("1"))
			s.do(get(), found("1"), at(1, "a"))
			p.End(found(""), at(1, "a"))
		}, ""},
		{"a stale answer", func(s *script) {
			s.do(put("1"), found(""), at(1, "a"))
			s.do(put("2"), found(""), at(2, "a"))
			s.do(get(), found("1"), func(op *Op) { op.Stale, op.Revision, op.Member = true, 1, "b" })
		}, ""},
		{"a stale answer of what never was", func(s *script) {
			s.do(put("1"), found(""), at(1, "a"))
			s.do(put("2"), found(""), at(2, "a"))
			s.do(get(), found("2"), func(op *Op) { op.Stale, op.Revision, op.Member = true, 1, "b" })
		}, "not linearizable: store-by-revision g"},
		{"min_revision not kept", func(s *script) {
			s.do(get(), found(""), func(op *Op) { op.Stale, op.Revision, op.MinRevision, op.Member = true, 1, 2, "b" })
		}, "revision 2 was asked for"},
		{"a member that goes back", func(s *script) {
			s.do(get(), found(""), func(op *Op) { op.Stale, op.Revision, op.Member = true, 2, "b" })
			s.do(get(), found(""), func(op *Op) { op.Stale, op.Revision, op.Member = true, 1, "b" })
		}, "member b went back from revision 2 to 1"},
		{"one revision twice", func(s *script) {
			p := s.Begin(2, put("1"))
			s.do(put("2"), found(""), at(1, "a"))
			p.End(found(""), at(1, "a"))
		}, "two changes have revision 1"},
		{"a transaction", func(s *script) {
			txn := KVCall{Name: "txn", Group: "g", Compare: []Compare{{0, "", false}}, Then: []Action{{Put: true, Value: "1"}, {Slot: All}}, Else: []Action{{Slot: All}}}
			s.do(txn, KVAnswer{Found: []KVState{{""}, {"1"}}}, at(1, "a"))
			s.do(txn, KVAnswer{Else: true, Found: []KVState{{"1"}}}, at(1, "a"))
		}, ""},
		{"a transaction by half", func(s *script) {
			txn := KVCall{Name: "txn", Group: "g", Then: []Action{{Put: true, Value: "1"}, {Put: true, Slot: 1, Value: "2"}}}
			s.do(txn, KVAnswer{Found: []KVState{{}, {}}}, at(1, "a"))
			s.do(KVCall{Name: "range", Group: "g", Then: []Action{{Slot: All}}}, KVAnswer{Found: []KVState{{"1", ""}}}, at(1, "a"))
		}, "not linearizable"},
		{"a session that expires in time", func(s *script) {
			s.do(Expiry{Session: 4, Idle: time.Second, TTL: time.Second}, struct{}{}, nil)
		}, ""},
		{"a session that expires too early", func(s *script) {
			s.do(Expiry{Session: 4, Idle: time.Second, TTL: time.Minute}, struct{}{}, nil)
		}, "session 4 had expired 1s after its last use"},
		{"comparisons", func(s *script) {
			s.do(put("1"), found(""), at(1, "a"))
			for _, c := range []struct {
				compare Compare
				holds   bool
			}{
				{Compare{0, "1", false}, true}, {Compare{0, "2", false}, false}, {Compare{0, "", false}, false}, {Compare{1, "", false}, true},
				{Compare{0, "2", true}, true}, {Compare{0, "1", true}, false}, {Compare{0, "", true}, true}, {Compare{1, "", true}, false},
				{Compare{1, "1", false}, false}, {Compare{1, "1", true}, false}, // a value that is not there is no other one either
				{Compare{All, "1", false}, true}, {Compare{All, "2", false}, false}, {Compare{All, "", false}, false}, {Compare{All, "", true}, true},
			} {
				read := KVCall{Name: "txn", Group: "g", Compare: []Compare{c.compare}, Then: []Action{{}}, Else: []Action{{}}}
				s.do(read, KVAnswer{Else: !c.holds, Found: []KVState{{"1"}}}, at(1, "a"))
			}
		}, ""},
		{"a move", func(s *script) {
			move := KVCall{Name: "move-value", Group: "g", Then: []Action{{Move: true, To: 1}}}
			s.do(move, found(""), at(0, "a"))
			s.do(put("1"), found(""), at(1, "a"))
			s.do(move, found("1"), at(2, "a"))
			s.do(move, KVAnswer{Found: []KVState{{"", "1"}}}, at(2, "a"))
			s.do(KVCall{Name: "move-value", Group: "g", Then: []Action{{Move: true, Slot: 1, To: 1}}}, KVAnswer{Found: []KVState{{"", "1"}}}, at(2, "a"))
			s.do(KVCall{Name: "range", Group: "g", Then: []Action{{Slot: All}}}, KVAnswer{Found: []KVState{{"", "1"}}}, at(2, "a"))
		}, ""},
		{"a move that leaves the old key", func(s *script) {
			s.do(put("1"), found(""), at(1, "a"))
			s.do(KVCall{Name: "move-value", Group: "g", Then: []Action{{Move: true, To: 1}}}, found("1"), at(2, "a"))
			s.do(KVCall{Name: "range", Group: "g", Then: []Action{{Slot: All}}}, KVAnswer{Found: []KVState{{"1", "1"}}}, at(2, "a"))
		}, "not linearizable"},
		{"the life of a table", func(s *script) {
			s.do(TableCall{Op: CreateTable, Name: "t"}, TableAnswer{ID: 1024}, nil)
			s.do(TableCall{Op: GetTable, Name: "t"}, TableAnswer{Refused: true}, nil)
			s.do(TableCall{Op: CreateTable, Name: "t"}, TableAnswer{Refused: true}, nil)
			s.do(TableCall{Op: CommitTable, Name: "t", ID: 1024}, TableAnswer{ID: 1024}, nil)
			s.do(TableCall{Op: GetTable, Name: "t"}, TableAnswer{ID: 1024}, nil)
			s.Begin(2, TableCall{Op: DropTable, Name: "t"}).Unknown()
			s.do(TableCall{Op: CreateTable, Name: "t"}, TableAnswer{ID: 1025}, nil)
			s.do(TableCall{Op: CommitTable, Name: "t", ID: 1024}, TableAnswer{Refused: true}, nil)
			s.do(TableCall{Op: AbortTable, Name: "t", ID: 1025}, TableAnswer{ID: 1025}, nil)
		}, ""},
		{"a name given twice", func(s *script) {
			s.do(TableCall{Op: CreateTable, Name: "t"}, TableAnswer{ID: 1024}, nil)
			s.do(TableCall{Op: CreateTable, Name: "t"}, TableAnswer{ID: 1025}, nil)
		}, "not linearizable: tables t"},
		{"an id twice", func(s *script) {
			s.do(IDCall{"session"}, IDAnswer{4}, nil)
			s.do(IDCall{"session"}, IDAnswer{4}, nil)
		}, "session 4 was given out twice"},
		{"ids out of order", func(s *script) {
			s.do(IDCall{"session"}, IDAnswer{4}, nil)
			s.do(IDCall{"session"}, IDAnswer{2}, nil)
		}, "session 2 was given out after 4"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var s script
			test.make(&s)
			r, err := Check(s.Ops(), time.Minute, "")
			if err != nil {
				t.Fatal(err)
			}
			if r.Failed() != (test.want != "") || !strings.Contains(r.String(), test.want) {
				t.Errorf("the report is %q, want %q in it", r, test.want)
			}
		})
	}
}

// What is wrong can be looked at.
func TestIllegalHistoriesAreShown(t *testing.T) {
	var s script
	s.do(put("1"), found(""), at(1, "a"))
	s.do(get(), found(""), at(1, "a"))
	r, err := Check(s.Ops(), time.Minute, t.TempDir())
	if err != nil || len(r.Pages) != 3 {
		t.Fatalf("report %v, %v", r, err)
	}
	for _, page := range r.Pages {
		if text, err := os.ReadFile(page); err != nil || !strings.Contains(string(text), "put 0=1") {
			t.Errorf("%s doesn't show the operations: %v", page, err)
		}
	}
}

// What a client knows after an answer is what the answer says of it.
func TestKnownAfterAnAnswer(t *testing.T) {
	before := KVState{"1", "2", "3"}
	for _, test := range []struct {
		action Action
		found  KVState
		want   KVState
	}{
		{Action{Slot: All}, KVState{"4", "", "5"}, KVState{"4", "", "5"}},
		{Action{Put: true, Value: "4"}, KVState{"0"}, KVState{"4", "2", "3"}},
		{Action{Put: true, Value: "4", Blind: true}, KVState{}, KVState{"4", "2", "3"}},
		{Action{Delete: true, Slot: 1}, KVState{"", "9"}, KVState{"1", "", "3"}},
		{Action{Move: true, To: 1}, KVState{"7"}, KVState{"", "7", "3"}},
		{Action{Move: true, To: 1}, KVState{"", "7"}, KVState{"", "7", "3"}},
	} {
		call := KVCall{Then: []Action{test.action}}
		if got := call.Known(before, KVAnswer{Found: []KVState{test.found}}); got != test.want {
			t.Errorf("%s with the answer %s: %s, want %s", &call, test.found, got, test.want)
		}
	}
}
