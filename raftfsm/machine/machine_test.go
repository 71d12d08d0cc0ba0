package machine

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"github.com/metasrv/metasrv"
	storagepb "github.com/metasrv/metasrv/proto/metasrv/storage/v1"
	"github.com/metasrv/metasrv/raftfsm/state"
)

const (
	put    = storagepb.CommandKind_COMMAND_KIND_PUT
	remove = storagepb.CommandKind_COMMAND_KIND_DELETE_RANGE
	// putThenFail writes a key and then refuses.
	putThenFail = storagepb.CommandKind_COMMAND_KIND_COMPARE_AND_PUT
	// count returns how often it was executed.
	count = storagepb.CommandKind_COMMAND_KIND_CREATE_CATALOG
	// putUnlessStale counts, or refuses its plan while there is no key "fresh".
	putUnlessStale = storagepb.CommandKind_COMMAND_KIND_CREATE_TABLE
)

// testApplier executes storagepb.Put under each kind.
type testApplier struct{}

func (testApplier) Kinds() []storagepb.CommandKind {
	return []storagepb.CommandKind{put, remove, putThenFail, count, putUnlessStale}
}

func (testApplier) Apply(tx state.Tx, kind storagepb.CommandKind, payload []byte) (proto.Message, error) {
	c := &storagepb.Put{}
	if err := state.Decode(payload, c); err != nil {
		return nil, err
	}
	switch kind {
	case put:
		prev, _ := tx.Get(string(c.Key))
		tx.Put(string(c.Key), c.Value)
		return &storagepb.KvPair{Value: prev}, nil
	case remove:
		tx.Delete(string(c.Key))
		return nil, nil
	case putUnlessStale:
		if _, fresh := tx.Get("fresh"); !fresh {
			return nil, metasrv.ErrStaleIncarnation.With("refused")
		}
		return &storagepb.KvResult{Deleted: int64(state.Next(tx, "counter", 1))}, nil
	case count:
		return &storagepb.KvResult{Deleted: int64(state.Next(tx, "counter", 1))}, nil
	default:
		tx.Put(string(c.Key), c.Value)
		tx.Delete("other")
		return nil, metasrv.ErrTableExists.With("refused")
	}
}

func command(kind storagepb.CommandKind, key, value string) *storagepb.Command {
	return &storagepb.Command{Kind: kind, Payload: state.Encode(&storagepb.Put{Key: []byte(key), Value: []byte(value)})}
}

// fixture applies entries one after the other.
type fixture struct {
	*Machine
	t     testing.TB
	index uint64
	feed  []state.Revision
}

func newFixture(t testing.TB) *fixture { return &fixture{Machine: New(testApplier{}), t: t} }

func (f *fixture) apply(commands ...*storagepb.Command) []*storagepb.Result {
	f.t.Helper()
	return f.applyEntry(7, &storagepb.Entry{Version: EntryVersion, Commands: commands})
}

func (f *fixture) applyEntry(term uint64, entry *storagepb.Entry) []*storagepb.Result {
	f.t.Helper()
	f.index++
	out, err := f.Apply(f.index, term, state.Encode(entry))
	if err != nil {
		f.t.Fatal(err)
	}
	f.feed = append(f.feed, out.Revisions...)
	return out.Encoded()
}

func (f *fixture) openSession() uint64 {
	f.t.Helper()
	result := f.apply(&storagepb.Command{Kind: storagepb.CommandKind_COMMAND_KIND_OPEN_SESSION, Payload: state.Encode(&storagepb.OpenSession{})})
	opened := &storagepb.OpenSessionResult{}
	if err := state.Decode(result[0].Payload, opened); err != nil {
		f.t.Fatal(err)
	}
	return opened.Session
}

func content(v state.View) map[string]string {
	all := map[string]string{}
	for key, value := range v.Ascend("", "") {
		all[key] = string(value)
	}
	return all
}

func refused(t *testing.T, r *storagepb.Result, want error) {
	t.Helper()
	if _, err := ResultOf(r); !errors.Is(err, want) {
		t.Errorf("result is %v, want %v", err, want)
	}
}

func TestRefusedCommandChangesNothing(t *testing.T) {
	f := newFixture(t)
	f.apply(command(put, "a", "1"), command(put, "other", "2"))
	before := content(f.View())
	results := f.apply(command(putThenFail, "a", "9"), command(putThenFail, "new", "9"), command(put, "b", "3"))
	refused(t, results[0], metasrv.ErrTableExists)
	refused(t, results[1], metasrv.ErrTableExists)
	before["b"] = "3"
	if got := content(f.View()); !maps.Equal(got, before) {
		t.Errorf("state is %v, want %v", got, before)
	}
}

func TestCommandSeesThoseBeforeItInTheEntry(t *testing.T) {
	f := newFixture(t)
	results := f.apply(command(put, "a", "1"), command(put, "a", "2"))
	prev := &storagepb.KvPair{}
	if err := state.Decode(results[1].Payload, prev); err != nil || string(prev.Value) != "1" {
		t.Errorf("the second command saw %q, %v; want 1", prev.Value, err)
	}
}

func TestReadersSeeWholeEntries(t *testing.T) {
	f := newFixture(t)
	f.apply(command(put, "a", "1"), command(put, "b", "1"))
	old := f.View()
	f.apply(command(put, "a", "2"), command(remove, "b", ""))
	if got := fmt.Sprint(content(old)); got != "map[a:1 b:1]" {
		t.Errorf("an old view shows %s", got)
	}
	if got := fmt.Sprint(content(f.View())); got != "map[a:2]" {
		t.Errorf("the new view shows %s", got)
	}
}

func TestRevisionCountsCommandsThatChangeSomething(t *testing.T) {
	f := newFixture(t)
	results := f.apply(
		command(put, "a", "1"),         // 1
		command(remove, "absent", ""),  // changes nothing
		command(putThenFail, "b", "1"), // refused
		command(put, "a", "2"),         // 2
	)
	var got []uint64
	for _, r := range results {
		got = append(got, r.Revision)
	}
	if fmt.Sprint(got) != "[1 1 1 2]" {
		t.Errorf("revisions %v, want [1 1 1 2]", got)
	}
	f.openSession()
	if r := f.View().Revision(); r != 2 {
		t.Errorf("opening a session made revision %d, want 2: it is the machine's own", r)
	}
	if len(f.feed) != 2 || f.feed[1].Number != 2 || string(f.feed[1].Changes[0].Prev) != "1" {
		t.Errorf("feed is %+v", f.feed)
	}
}

func TestRetryReturnsTheFirstResult(t *testing.T) {
	f := newFixture(t)
	session := f.openSession()
	id := &storagepb.CommandId{Session: session, Sequence: 1}
	counted := command(count, "", "")
	counted.Id = id
	// Also twice in one entry.
	results := append(f.apply(counted, counted), f.apply(counted)...)
	for _, r := range results {
		if !proto.Equal(r, results[0]) {
			t.Errorf("a retry returned %v, want %v", r, results[0])
		}
	}
	if n := state.Peek(f.View(), "counter", 1); n != 2 {
		t.Errorf("executed %d times, want once", n-1)
	}
}

func TestRefusalIsRemembered(t *testing.T) {
	f := newFixture(t)
	session := f.openSession()
	c := command(putThenFail, "a", "1")
	c.Id = &storagepb.CommandId{Session: session, Sequence: 1}
	refused(t, f.apply(c)[0], metasrv.ErrTableExists)
	refused(t, f.apply(c)[0], metasrv.ErrTableExists)
	c.Kind = put // the same id for another command
	refused(t, f.apply(c)[0], metasrv.ErrInvalidArgument)
	if _, ok := f.View().Get("a"); ok {
		t.Error("the retry was executed")
	}
}

func TestSessionRefusesWhatItHasForgotten(t *testing.T) {
	f := newFixture(t)
	session := f.openSession()
	for sequence := uint64(1); sequence <= 3; sequence++ {
		c := command(put, "a", "1")
		c.Id = &storagepb.CommandId{Session: session, Sequence: sequence, Acknowledged: sequence - 1}
		f.apply(c)
	}
	again := command(put, "a", "2")
	again.Id = &storagepb.CommandId{Session: session, Sequence: 2}
	refused(t, f.apply(again)[0], metasrv.ErrSessionExpired)
	unknown := command(put, "a", "2")
	unknown.Id = &storagepb.CommandId{Session: session + 1, Sequence: 1}
	refused(t, f.apply(unknown)[0], metasrv.ErrSessionExpired)
	if got, _ := f.View().Get("a"); string(got) != "1" {
		t.Errorf("a is %s: a forgotten command was executed", got)
	}
	results := 0
	for key := range f.View().Ascend(sessionKey(session)+"/", sessionKey(session)+"0") {
		results++
		_ = key
	}
	if results != 1 {
		t.Errorf("%d results are remembered, want only the one that is not acknowledged", results)
	}
}

func TestClosedSessionLeavesNothing(t *testing.T) {
	f := newFixture(t)
	session := f.openSession()
	c := command(put, "a", "1")
	c.Id = &storagepb.CommandId{Session: session, Sequence: 1}
	f.apply(c)
	f.apply(&storagepb.Command{
		Kind:    storagepb.CommandKind_COMMAND_KIND_CLOSE_SESSION,
		Payload: state.Encode(&storagepb.CloseSession{Session: session}),
	})
	for key := range f.View().Ascend(SystemPrefix+"session/", SystemPrefix+"session0") {
		t.Errorf("%s is left", key)
	}
}

func TestDutyOfAnEarlierTermIsRefused(t *testing.T) {
	f := newFixture(t)
	for planned, want := range map[uint64]error{5: metasrv.ErrStaleTerm, 7: nil, 0: nil} {
		c := command(put, "a", "1")
		c.PlannedTerm = planned
		_, err := ResultOf(f.applyEntry(7, &storagepb.Entry{Version: EntryVersion, Term: 5, Commands: []*storagepb.Command{c}})[0])
		if !errors.Is(err, want) {
			t.Errorf("planned in term %d, applied in 7: %v, want %v", planned, err, want)
		}
	}
}

func TestLeaderTimeNeverRunsBackwards(t *testing.T) {
	f := newFixture(t)
	for _, step := range []struct{ entry, want uint64 }{{100, 100}, {50, 100}, {0, 100}, {101, 101}} {
		f.applyEntry(1, &storagepb.Entry{Version: EntryVersion, LeaderTimeMs: step.entry})
		if got := f.View().Position().Now; uint64(got) != step.want {
			t.Errorf("an entry of leader time %d made it %d, want %d", step.entry, got, step.want)
		}
	}
}

func TestEntriesOfAnotherVersionStopTheMember(t *testing.T) {
	unknown := state.Encode(&storagepb.Entry{Version: EntryVersion})
	unknown = append(unknown, 0xf8, 0x7f, 1) // field 2047
	for name, entry := range map[string][]byte{
		"version":       state.Encode(&storagepb.Entry{Version: EntryVersion + 1}),
		"kind":          state.Encode(&storagepb.Entry{Version: EntryVersion, Commands: []*storagepb.Command{{Kind: 999}}}),
		"unknown field": unknown,
		"not an entry":  []byte("garbage"),
	} {
		if _, err := newFixture(t).Apply(1, 1, entry); err == nil {
			t.Errorf("%s: the entry was executed", name)
		}
	}
}

// Every member that applies the same entries has the same state, feed and results, and each view stays what it
// was; a refused command leaves no trace even among many.
func TestMachineIsDeterministic(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		a, b := newFixture(t), newFixture(t)
		model := map[string]string{}
		keys := rapid.SampledFrom([]string{"a", "b", "c", "other"})
		for range rapid.IntRange(1, 20).Draw(rt, "entries") {
			entry := &storagepb.Entry{Version: EntryVersion}
			for range rapid.IntRange(1, 5).Draw(rt, "commands") {
				kind := rapid.SampledFrom([]storagepb.CommandKind{put, remove, putThenFail}).Draw(rt, "kind")
				key, value := keys.Draw(rt, "key"), rapid.StringN(0, 3, 3).Draw(rt, "value")
				entry.Commands = append(entry.Commands, command(kind, key, value))
				switch kind {
				case put:
					model[key] = value
				case remove:
					delete(model, key)
				}
			}
			old, was := a.View(), content(a.View())
			ra, rb := a.applyEntry(1, entry), b.applyEntry(1, entry)
			for i := range ra {
				if !proto.Equal(ra[i], rb[i]) {
					rt.Fatalf("results differ: %v, %v", ra[i], rb[i])
				}
			}
			if !maps.Equal(content(old), was) {
				rt.Fatalf("a view changed from %v to %v", was, content(old))
			}
			if got := content(a.View()); !maps.Equal(got, model) {
				rt.Fatalf("state is %v, want %v", got, model)
			}
		}
		if fmt.Sprint(a.feed) != fmt.Sprint(b.feed) {
			rt.Fatalf("feeds differ: %v, %v", a.feed, b.feed)
		}
	})
}

func TestTwoAppliersOfOneKindPanic(t *testing.T) {
	defer func() {
		if r := recover(); r == nil || !strings.Contains(fmt.Sprint(r), "two appliers") {
			t.Errorf("recovered %v", r)
		}
	}()
	New(testApplier{}, testApplier{})
}
